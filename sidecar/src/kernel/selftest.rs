//! Proof of interception: a connection of our own without the mark has to land at our own listener.
//!
//! It catches what no look at the rules would: a socket load balancer that rewrites destinations before any packet
//! exists, a foreign table in front of ours, a kernel that takes rules and does not apply them. The connection is
//! known by its source port, which is ours before we connect.
//!
//! Where a load balancer in the socket has rewritten the destination, the kernel's table of sockets says into what: that
//! can be redirected as well.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    time::timeout,
};

use crate::sockets::Sockets;

/// How long a connection may take to land.
const PATIENCE: Duration = Duration::from_secs(2);

/// The probe that is under way, if any. The listener asks it about each connection.
#[derive(Debug, Default)]
pub struct Probe(Mutex<Option<Expected>>);

#[derive(Debug)]
struct Expected {
    port: u16,
    /// Takes where the connection was going.
    landed: oneshot::Sender<SocketAddr>,
}

/// Why interception is not proven.
#[derive(Debug, Error)]
pub enum SelftestError {
    /// The connection cannot be made at all.
    #[error("cannot connect to {to} to prove interception")]
    Connect {
        /// Where to.
        to: SocketAddr,
        /// Where it was really going, if that is another address.
        translated: Option<SocketAddr>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection went past us.
    #[error("a connection to {to} passed us by{}", by_translation(.translated))]
    Bypassed {
        /// Where to.
        to: SocketAddr,
        /// Where it really went, if that is another address.
        translated: Option<SocketAddr>,
    },
    /// It ended before it was known where it landed.
    #[error(
        "a connection to {to} was ended before it was proven to land here; are all connections of the sidecar taken?"
    )]
    Ended {
        /// Where to.
        to: SocketAddr,
        /// Where it really went, if that is another address and still known.
        translated: Option<SocketAddr>,
    },
}

impl SelftestError {
    /// Into what the node has translated the address, if it has.
    #[must_use]
    pub const fn translated(&self) -> Option<SocketAddr> {
        match self {
            Self::Connect { translated, .. }
            | Self::Bypassed { translated, .. }
            | Self::Ended { translated, .. } => *translated,
        }
    }
}

fn by_translation(translated: &Option<SocketAddr>) -> String {
    match translated {
        Some(to) => format!(": the node translates it into {to} in the socket"),
        None => ": does another program translate addresses in front of the pod's rules?".to_owned(),
    }
}

impl Probe {
    /// Connects to `to` without the mark and waits for the connection at our listener. Gives where it was going by then:
    /// another address where the node translates in the socket.
    ///
    /// # Errors
    /// Where it did not get there.
    pub async fn run(&self, to: SocketAddr) -> Result<SocketAddr, SelftestError> {
        self.run_through(to, to).await
    }

    /// The same where the kernel connects to `translated` in place of `to`.
    async fn run_through(&self, to: SocketAddr, translated: SocketAddr) -> Result<SocketAddr, SelftestError> {
        let failed = |source| SelftestError::Connect { to, translated: None, source };
        let socket = bound(to).map_err(failed)?;
        let port = socket.local_addr().map_err(failed)?.port();
        let (landed, arrival) = oneshot::channel();
        self.expect(Some(Expected { port, landed }));
        let mut connecting = pin!(socket.connect(translated));
        // While the socket is there, the table has it.
        let really = || Sockets.remote(port).filter(|really| *really != to);
        let outcome = match timeout(PATIENCE, connecting.as_mut()).await {
            Ok(Ok(mut stream)) => tokio::select! {
                biased;
                arrived = timeout(PATIENCE, arrival) => match arrived {
                    Ok(Ok(original)) => Ok(original),
                    _ => Err(SelftestError::Bypassed { to, translated: really() }),
                },
                () = ended(&mut stream) => Err(SelftestError::Ended { to, translated: really() }),
            },
            Ok(Err(source)) => Err(failed(source)),
            Err(_) => {
                let source = io::ErrorKind::TimedOut.into();
                Err(SelftestError::Connect { to, translated: really(), source })
            }
        };
        self.expect(None);
        outcome
    }

    /// Whether a connection that landed at our listener is the probe. One that nobody redirected is not.
    pub fn claims(&self, peer: SocketAddr, original: SocketAddr, listener: SocketAddr) -> bool {
        if original == listener {
            return false;
        }
        let mut expected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(probe) = expected.take_if(|probe| probe.port == peer.port()) else { return false };
        // The receiver is gone if the probe lost patience meanwhile.
        let _ = probe.landed.send(original);
        true
    }

    fn expect(&self, expected: Option<Expected>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = expected;
    }
}

/// Until the other side ends the connection, or fails. What it says first does not matter.
async fn ended(stream: &mut TcpStream) {
    let mut buffer = [0; 64];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

fn bound(to: SocketAddr) -> io::Result<TcpSocket> {
    let (socket, any) = match to {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    socket.bind(SocketAddr::new(any, 0))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_connection_that_lands_at_the_listener_is_the_proof() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (here, elsewhere) = (listener.local_addr().unwrap(), address("10.96.0.1:443"));
        let probe = Arc::new(Probe::default());
        let running = tokio::spawn({
            let probe = Arc::clone(&probe);
            async move { probe.run(here).await }
        });
        let (_stream, peer) = listener.accept().await.unwrap();
        let stranger = SocketAddr::new(peer.ip(), peer.port().wrapping_add(1));
        assert!(!probe.claims(stranger, elsewhere, here));
        assert!(!probe.claims(peer, here, here), "a direct connection proves nothing");
        assert!(probe.claims(peer, elsewhere, here));
        assert!(!probe.claims(peer, elsewhere, here), "only once");
        assert_eq!(running.await.unwrap().unwrap(), elsewhere, "where it was going");
    }

    #[tokio::test]
    async fn a_connection_that_is_ended_at_once_proves_nothing_and_refutes_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probe = Arc::new(Probe::default());
        let to = listener.local_addr().unwrap();
        let running = tokio::spawn(async move { probe.run(to).await });
        drop(listener.accept().await.unwrap());
        assert!(matches!(running.await.unwrap(), Err(SelftestError::Ended { .. })));
    }

    #[tokio::test]
    async fn a_connection_that_lands_elsewhere_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let outcome = Probe::default().run(listener.local_addr().unwrap()).await;
        assert!(matches!(outcome, Err(SelftestError::Bypassed { translated: None, .. })));
    }

    #[tokio::test]
    async fn a_connection_that_the_node_translates_says_into_what() {
        let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (service, endpoint) = (address("10.96.0.1:443"), endpoint.local_addr().unwrap());
        let error = Probe::default().run_through(service, endpoint).await.unwrap_err();
        assert_eq!(error.translated(), Some(endpoint));
        assert!(error.to_string().contains(&format!("translates it into {endpoint}")), "{error}");
    }

    #[tokio::test]
    async fn one_that_the_node_translates_and_the_endpoint_ends_says_so_as_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (service, endpoint) = (address("10.96.0.1:443"), listener.local_addr().unwrap());
        let running = tokio::spawn(async move { Probe::default().run_through(service, endpoint).await });
        drop(listener.accept().await.unwrap());
        let error = running.await.unwrap().unwrap_err();
        assert!(matches!(error, SelftestError::Ended { .. }), "{error}");
        assert_eq!(error.translated(), Some(endpoint));
    }
}
