//! A TLS listener: bounded, with a deadline for the handshake, and drained. A connection counts from before its
//! handshake.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    accept::accept,
    connection::{ConnectionHandle, ConnectionLimiter},
    drain,
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Hands each connection that `limiter` admits to `handler` after its handshake, until the drain begins. Each live
/// connection holds a drain guard.
pub async fn serve<H, F>(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    drain: drain::Watch,
    limiter: ConnectionLimiter,
    handler: H,
) where
    H: Fn(TlsStream<TcpStream>, SocketAddr, ConnectionHandle) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(config);
    let handler = Arc::new(handler);
    accept(listener, limiter, drain.draining(), |stream, peer, connection| {
        let (acceptor, handler, guard) = (acceptor.clone(), Arc::clone(&handler), drain.guard());
        async move {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => handler(stream, peer, connection).await,
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
