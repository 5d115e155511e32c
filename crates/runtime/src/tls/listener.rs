//! A TLS listener: bounded, with a deadline for the handshake, and drained.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{accept::accept, drain};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Hands each connection to `handler` after its handshake, at most `max_connections` at a time (more wait in the
/// kernel's backlog), until the drain begins. Each live connection holds a drain guard.
pub async fn serve<H, F>(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    drain: drain::Watch,
    max_connections: usize,
    handler: H,
) where
    H: Fn(TlsStream<TcpStream>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(config);
    let handler = Arc::new(handler);
    accept(listener, max_connections, drain.draining(), |stream, peer| {
        let (acceptor, handler, guard) = (acceptor.clone(), Arc::clone(&handler), drain.guard());
        async move {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => handler(stream, peer).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS handshake"),
                Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
            }
            drop(guard);
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
