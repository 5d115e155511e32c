//! The first message of a client, read without being consumed: TLS or not, and for whom.

use bytes::{Bytes, BytesMut};
use podwitness_wire::hello::{ClientHello, HelloError, HelloReader};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{Duration, Instant, timeout, timeout_at},
};

/// How a connection opens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Opening {
    /// A whole ClientHello.
    Tls(ClientHello),
    /// Anything else, and why it is no ClientHello.
    Other(HelloError),
    /// Nothing yet.
    Silent,
    /// The client left without a word.
    Gone,
}

impl Opening {
    /// The ClientHello, if it is one.
    pub(super) const fn hello(&self) -> Option<&ClientHello> {
        match self {
            Self::Tls(hello) => Some(hello),
            Self::Other(_) | Self::Silent | Self::Gone => None,
        }
    }
}

/// Reads until it is clear how the connection opens. A first byte has to come within `silence`, the rest within
/// `patience`; a ClientHello that is not whole by then is none, and neither is one that `may_hold` has no room for.
pub(super) async fn sniff<S: AsyncRead + Unpin>(
    stream: &mut S,
    silence: Duration,
    patience: Duration,
    may_hold: impl Fn(usize) -> bool,
) -> (Opening, Bytes) {
    let mut seen = BytesMut::with_capacity(2048);
    let mut hello = HelloReader::new();
    let opening = match timeout(silence, stream.read_buf(&mut seen)).await {
        Err(_) => Opening::Silent,
        Ok(Ok(0) | Err(_)) => Opening::Gone,
        Ok(Ok(_)) => {
            let deadline = Instant::now() + patience;
            loop {
                if !may_hold(seen.capacity()) {
                    break Opening::Gone;
                }
                match hello.read(&seen) {
                    Ok(Some(hello)) => break Opening::Tls(hello),
                    Ok(None) => {}
                    Err(error) => break Opening::Other(error),
                }
                match timeout_at(deadline, stream.read_buf(&mut seen)).await {
                    Ok(Ok(1..)) => {}
                    _ => break Opening::Other(HelloError::Unfinished),
                }
            }
        }
    };
    (opening, seen.freeze())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs::default_provider};
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn hello(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut bytes = Vec::new();
        let mut client =
            ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    async fn opening_of(bytes: &[u8], step: usize) -> (Opening, Bytes) {
        let (mut near, mut far) = duplex(1 << 20);
        let bytes = bytes.to_vec();
        let writer = tokio::spawn(async move {
            for part in bytes.chunks(step) {
                far.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            far
        });
        let seen = sniff(&mut near, SECOND, SECOND, |_| true).await;
        writer.await.unwrap();
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn a_hello_tells_its_server_name_however_it_is_cut() {
        let bytes = hello("kubernetes.default");
        for step in [1, 7, 100, bytes.len()] {
            let (opening, first) = opening_of(&bytes, step).await;
            let Opening::Tls(hello) = opening else { panic!("{opening:?}") };
            assert_eq!(hello.server_name.as_deref(), Some("kubernetes.default"));
            assert!(bytes.starts_with(&first));
        }
        let nameless = opening_of(&hello("10.96.0.1"), 4096).await.0;
        assert!(matches!(nameless, Opening::Tls(ClientHello { server_name: None, .. })), "{nameless:?}");
    }

    /// This library draws the order of extensions anew for each connection, and random values and keys as all do.
    #[tokio::test(start_paused = true)]
    async fn connections_of_one_program_have_one_shape() {
        let mut shapes = std::collections::HashSet::new();
        let mut hellos = std::collections::HashSet::new();
        for name in ["kubernetes", "kubernetes.default", "10.96.0.1"].into_iter().cycle().take(30) {
            let bytes = hello(name);
            let Opening::Tls(hello) = opening_of(&bytes, 4096).await.0 else { panic!("no hello") };
            shapes.insert(hello.shape);
            hellos.insert(bytes);
        }
        assert_eq!((shapes.len(), hellos.len()), (1, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_tls_is_told_by_its_first_byte_and_kept() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\0\0\0\0"] {
            let opening = opening_of(bytes, 3).await.0;
            assert_eq!(opening, Opening::Other(HelloError::Record(bytes[0])));
        }
        assert_eq!(&opening_of(b"SSH-2.0-x\r\n", 64).await.1[..], b"SSH-2.0-x\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn garbage_that_begins_like_tls_is_no_hello() {
        let mut bytes = vec![0x16, 3, 1, 0, 10, 1, 0, 0, 6];
        bytes.resize(64, 0xff);
        assert_eq!(opening_of(&bytes, 64).await.0, Opening::Other(HelloError::Malformed));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_leaving_are_not_the_same() {
        let (mut near, far) = duplex(64);
        assert_eq!(sniff(&mut near, SECOND, SECOND, |_| true).await.0, Opening::Silent);
        drop(far);
        assert_eq!(sniff(&mut near, SECOND, SECOND, |_| true).await.0, Opening::Gone);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_message_that_never_ends_is_judged_in_time() {
        let (mut near, mut far) = duplex(64);
        far.write_all(&hello("kubernetes")[..50]).await.unwrap();
        let unfinished = Opening::Other(HelloError::Unfinished);
        assert_eq!(sniff(&mut near, SECOND, SECOND, |_| true).await.0, unfinished);
        drop(far);
        assert_eq!(opening_of(&hello("kubernetes")[..50], 50).await.0, unfinished);
    }
}
