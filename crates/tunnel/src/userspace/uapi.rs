//! The configuration socket of a userspace device (wireguard.com/xplatform, "Configuration Protocol").
//!
//! Whoever connects may read the private key and set peers: the folder belongs to this process alone.

use std::{fs, io, path::PathBuf};

use gotatun::device::uapi::{UapiClient, UapiServer};
use tokio::{net::UnixListener, task::JoinHandle};

use crate::{
    Error,
    wireguard::{SOCKETS, socket_path},
};

/// A listening configuration socket; it goes when dropped.
pub(super) struct ConfigurationSocket {
    path: PathBuf,
    accepting: JoinHandle<()>,
}

impl ConfigurationSocket {
    /// Listens at the place that belongs to the interface's name; what an earlier run left there is replaced.
    pub(super) fn bind(interface: &str) -> Result<(Self, UapiServer), Error> {
        let path = socket_path(interface);
        let listener =
            listen(&path).map_err(|why| Error::Uapi { path: path.to_string_lossy().into_owned(), why })?;
        let (client, server) = UapiServer::new();
        let accepting = tokio::spawn(accept(listener, client));
        Ok((Self { path, accepting }, server))
    }
}

impl Drop for ConfigurationSocket {
    fn drop(&mut self) {
        self.accepting.abort();
        // It may be gone already; a later run replaces it anyway.
        let _ = fs::remove_file(&self.path);
    }
}

fn listen(path: &PathBuf) -> io::Result<UnixListener> {
    fs::create_dir_all(SOCKETS)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Each connection is served by a thread of its own for as long as one request takes.
async fn accept(listener: UnixListener, client: UapiClient) {
    while let Ok((stream, _)) = listener.accept().await {
        let blocking = stream.into_std().and_then(|stream| stream.set_nonblocking(false).map(|()| stream));
        match blocking {
            Ok(stream) => client.clone().wrap_read_write(stream),
            Err(error) => tracing::warn!(%error, "a connection to the configuration socket is lost"),
        }
    }
}
