//! Connections: accepted within caps, served over h2c or HTTP/1.1, ended by the drain.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use hyper::service::service_fn;
use podwitness_runtime::{
    accept::accept,
    http::{Limits, serve_connection},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

use super::{Door, Ingest, authorise::Standing};

/// Connections at a time, of all peers.
const MAX_CONNECTIONS: usize = 8192;
/// How long a stranger may keep a connection; the tunnel forgets it after the same time.
const STRANGER: Duration = Duration::from_secs(10);
const LIMITS: Limits = Limits {
    header_timeout: Duration::from_secs(10),
    max_headers: 100,
    max_header_bytes: 64 << 10,
    max_streams: 256,
    // A packed frame of what cannot be compressed, and its headers.
    max_frame: Some(68 << 10),
    stream_window: Some(1 << 20),
    connection_window: Some(16 << 20),
    ping: Some(Duration::from_secs(20)),
};

impl Ingest {
    /// Serves connections until the drain begins; those that live then go on until their uploads have ended.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, door: Door) {
        let draining = self.parts.drain.clone();
        let until = async move { draining.draining().await };
        accept(listener, MAX_CONNECTIONS, until, |stream, peer| {
            Arc::clone(&self).connection(stream, peer.ip(), door.clone())
        })
        .await;
    }

    /// Serves one connection, which came from `from` through `door`.
    pub async fn connection<I>(self: Arc<Self>, stream: I, from: IpAddr, door: Door)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let standing = door.standing(from);
        if standing == Standing::Foreign {
            tracing::debug!(%from, "a connection did not come through the tunnel");
            self.parts.metrics.refused("foreign");
            return;
        }
        let counted = match self.parts.peers.connect(from, standing == Standing::Admitted) {
            Ok(counted) => counted,
            Err(refused) => {
                tracing::debug!(%from, %refused, "a connection is refused");
                self.parts.metrics.refused(refused.reason());
                return;
            }
        };
        // The drain waits until the last frame of every upload is on its way, not only until uploads have ended.
        let guard = self.parts.drain.guard();
        let service = service_fn(|request| {
            let answer = Arc::clone(&self).answer(door.clone(), from, request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        tokio::select! {
            served = serve_connection(stream, service, &LIMITS, &self.parts.drain) => {
                if let Err(error) = served {
                    tracing::debug!(%from, error, "a connection ended badly");
                }
            }
            () = stays_strange(&door, from) => {
                tracing::debug!(%from, "a connection brought no assertion in time");
                self.parts.metrics.refused("stranger");
            }
        }
        drop((counted, guard));
    }
}

/// Completes where a peer is not admitted within its time.
async fn stays_strange(door: &Door, from: IpAddr) {
    tokio::time::sleep(STRANGER).await;
    if door.admits(from) {
        std::future::pending::<()>().await;
    }
}
