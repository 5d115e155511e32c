//! The listener to which connections are redirected: loopback only, both families, so that nothing outside the pod
//! reaches it.
//!
//! Invariant: at most [`CONNECTIONS`] of both families. They all come from the pod's own containers; above the cap the one
//! that is idle for the longest time is ended for the next, and where all are busy, the next is closed. A connection
//! that nobody redirected has the listener itself as its destination.

mod owner;

pub use owner::Sockets;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use podwitness_proxy::Intercepted;
use podwitness_runtime::{
    accept::accept,
    connection::{ConnectionHandle, ConnectionLimiter},
    quota::QuotaLimits,
};
use socket2::SockRef;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};

use crate::kernel::selftest::Probe;

/// Connections at a time. What a session has become is no longer among them. Containers cannot be told apart by their
/// address, so that one source may have all.
pub const CONNECTIONS: QuotaLimits = QuotaLimits { total: 1024, per_key: 1024 };

/// The open sockets.
#[derive(Debug)]
pub struct Listener {
    v4: TcpListener,
    v6: Option<TcpListener>,
    addresses: Vec<SocketAddr>,
}

/// The listener cannot be opened.
#[derive(Debug, Error)]
#[error(
    "cannot listen on {address} for redirected connections; does another container of the pod use the port?"
)]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

impl Listener {
    /// Opens both sockets; that of IPv6 only where the pod has IPv6.
    ///
    /// # Errors
    /// Where the port is taken in either family.
    pub async fn bind(port: u16) -> Result<Self, ListenError> {
        let v4 = bind(Ipv4Addr::LOCALHOST.into(), port).await?;
        let port = v4.1.port();
        let v6 = match bind(Ipv6Addr::LOCALHOST.into(), port).await {
            Ok(bound) => Some(bound),
            Err(error) if is_without_ipv6(&error.source) => {
                tracing::debug!("the pod has no IPv6");
                None
            }
            Err(error) => return Err(error),
        };
        let addresses = std::iter::once(v4.1).chain(v6.as_ref().map(|bound| bound.1)).collect();
        Ok(Self { v4: v4.0, v6: v6.map(|bound| bound.0), addresses })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Hands each redirected connection that `limiter` admits to `handle`, except our own probe, until `until`
    /// completes. Connections in flight go on.
    pub async fn serve<U, F, H>(
        self,
        limiter: ConnectionLimiter,
        probe: Arc<Probe>,
        until: impl Fn() -> U,
        handle: H,
    ) where
        U: Future<Output = ()> + Send,
        F: Future<Output = ()> + Send + 'static,
        H: Fn(Intercepted<TcpStream>) -> F,
    {
        let take = |stream: TcpStream, peer, connection| {
            let intercepted = (!is_probe(&probe, &stream, peer))
                .then(|| intercepted(stream, peer, connection))
                .map(&handle);
            async move {
                if let Some(work) = intercepted {
                    work.await;
                }
            }
        };
        let v4 = accept(self.v4, limiter.clone(), until(), take);
        match self.v6 {
            Some(v6) => {
                tokio::join!(v4, accept(v6, limiter, until(), take));
            }
            None => v4.await,
        }
    }
}

async fn bind(ip: IpAddr, port: u16) -> Result<(TcpListener, SocketAddr), ListenError> {
    let failed = |source| ListenError { address: SocketAddr::new(ip, port), source };
    let listener = TcpListener::bind((ip, port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn is_without_ipv6(error: &io::Error) -> bool {
    /// `EAFNOSUPPORT`: the kernel has no IPv6 at all.
    const NO_FAMILY: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_FAMILY)
}

fn is_probe(probe: &Probe, stream: &TcpStream, peer: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|local| probe.claims(peer, original(stream), local))
}

fn intercepted(
    stream: TcpStream,
    client: SocketAddr,
    connection: ConnectionHandle,
) -> Intercepted<TcpStream> {
    let original = original(&stream);
    Intercepted { stream, client, original, connection }
}

/// Where the client wanted to go. Without an entry of connection tracking that is where it is.
fn original(stream: &TcpStream) -> SocketAddr {
    let Ok(local) = stream.local_addr() else { return (Ipv4Addr::UNSPECIFIED, 0).into() };
    let socket = SockRef::from(stream);
    let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    original.ok().and_then(|address| address.as_socket()).unwrap_or(local)
}

#[cfg(test)]
mod tests {
    use podwitness_runtime::quota::QuotaMetrics;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_nobody_redirected_was_meant_for_the_listener() {
        let listener = Listener::bind(0).await.unwrap();
        let address = listener.addresses()[0];
        let (sender, mut received) = mpsc::unbounded_channel();
        let handle = move |intercepted: Intercepted<TcpStream>| {
            sender.send(intercepted.original).unwrap();
            std::future::ready(())
        };
        let limiter = ConnectionLimiter::with(CONNECTIONS, QuotaMetrics::default());
        let server = tokio::spawn(listener.serve(limiter, Arc::default(), std::future::pending, handle));
        let _client = TcpStream::connect(address).await.unwrap();
        assert_eq!(received.recv().await, Some(address));
        server.abort();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_that_names_it() {
        let first = Listener::bind(0).await.unwrap();
        let taken = first.addresses()[0];
        let error = Listener::bind(taken.port()).await.unwrap_err();
        assert!(error.to_string().contains(&taken.to_string()));
    }
}
