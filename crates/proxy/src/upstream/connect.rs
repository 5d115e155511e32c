//! Making connections: dial, TLS against the cluster's roots, HTTP handshake.

use std::{io, sync::Arc};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs::default_provider};
use thiserror::Error;
use tokio::time::{Duration, timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{CONNECT, Lane};
use crate::{
    BoxedStream, Dial,
    body::Body,
    metrics::{Metrics, Opened},
    stream::{Bulk, Lenient},
    target::Target,
};

/// A connection to the API server, under HTTP.
pub(crate) type Io = Lenient<TlsStream<Bulk<BoxedStream>>>;
pub(super) type Http2 = http2::Connection<TokioIo<Io>, Body, TokioExecutor>;
pub(super) type Http1 = http1::Connection<TokioIo<Io>, Body>;

/// Longest list of headers, in bytes and in number; what the API server itself takes.
const MAX_HEADER_BYTES: u32 = 1 << 20;
const MAX_HEADERS: usize = 500;
/// Streams on one connection even where the peer allows more, so that all their windows fit the connection's.
const MAX_ENDLESS: usize = 100;
const MAX_BULK: usize = 32;
const WINDOW_ENDLESS: u32 = 64 << 10;
const WINDOW_BULK: u32 = 256 << 10;

/// Why there is no connection to the API server.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address cannot be reached.
    #[error("cannot reach {0}")]
    Dial(String, #[source] io::Error),
    /// No trusted TLS.
    #[error("no trusted TLS with {0}; is the cluster's CA the one mounted into the pod?")]
    Tls(String, #[source] io::Error),
    /// No HTTP.
    #[error("no HTTP with {0}")]
    Http(String, #[source] hyper::Error),
    /// Nothing for too long.
    #[error("no connection to {0} within 10 s")]
    Slow(String),
}

/// Makes connections.
pub(super) struct Connector {
    dial: Arc<dyn Dial>,
    any: TlsConnector,
    http1: TlsConnector,
    pub(super) metrics: Metrics,
}

/// A connection that is ready for requests.
pub(super) enum Connected {
    Http1(http1::SendRequest<Body>, Box<Http1>),
    Http2(http2::SendRequest<Body>, Http2),
}

impl Connector {
    pub(super) fn new(
        roots: RootCertStore,
        dial: Arc<dyn Dial>,
        metrics: Metrics,
    ) -> Result<Self, rustls::Error> {
        let mut any = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A client that will upgrade offers no protocol at all, as kubectl does.
        let http1 = TlsConnector::from(Arc::new(any.clone()));
        any.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { dial, any: TlsConnector::from(Arc::new(any)), http1, metrics })
    }

    /// A connection for many requests, HTTP/2 where the server speaks it.
    pub(super) async fn connect(&self, target: &Target, lane: Lane) -> Result<Connected, ConnectError> {
        let connected = self.within(target, async {
            let io = self.tls(target, &self.any).await?;
            if io.0.get_ref().1.alpn_protocol() == Some(b"h2") {
                let (sender, connection) = http2_handshake(io, lane)
                    .await
                    .map_err(|e| ConnectError::Http(target.to.to_string(), e))?;
                Ok(Connected::Http2(sender, connection))
            } else {
                let (sender, connection) =
                    http1_handshake(io).await.map_err(|e| ConnectError::Http(target.to.to_string(), e))?;
                Ok(Connected::Http1(sender, Box::new(connection)))
            }
        });
        let connected = connected.await;
        self.metrics.opened(match &connected {
            Ok(Connected::Http1(..)) => Opened::Http1,
            Ok(Connected::Http2(..)) => Opened::Http2,
            Err(_) => Opened::Failed,
        });
        connected
    }

    /// A connection for one request, with its driver on its way; it may be upgraded.
    pub(super) async fn connect_alone(
        &self,
        target: &Target,
    ) -> Result<http1::SendRequest<Body>, ConnectError> {
        let connected = self.within(target, async {
            let io = self.tls(target, &self.http1).await?;
            http1_handshake(io).await.map_err(|e| ConnectError::Http(target.to.to_string(), e))
        });
        let connected = connected.await;
        self.metrics.opened(if connected.is_ok() { Opened::Http1 } else { Opened::Failed });
        let (sender, connection) = connected?;
        let open = OpenGuard::new(&self.metrics);
        tokio::spawn(async move {
            let _open = open;
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection for an upgrade ended");
            }
        });
        Ok(sender)
    }

    async fn within<T>(
        &self,
        target: &Target,
        connecting: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        timeout(CONNECT, connecting).await.unwrap_or_else(|_| Err(ConnectError::Slow(target.to.to_string())))
    }

    async fn tls(&self, target: &Target, connector: &TlsConnector) -> Result<Io, ConnectError> {
        let stream =
            self.dial.dial(target.to).await.map_err(|e| ConnectError::Dial(target.to.to_string(), e))?;
        let stream = connector.connect(target.name.clone(), Bulk::new(stream)).await;
        stream.map(Lenient).map_err(|e| ConnectError::Tls(target.to.to_string(), e))
    }
}

/// Streams that a connection of this lane may carry, where the peer allows `allowed`.
pub(super) fn capacity(lane: Lane, allowed: usize) -> usize {
    allowed.min(match lane {
        Lane::Bulk => MAX_BULK,
        Lane::Endless => MAX_ENDLESS,
    })
}

async fn http2_handshake(io: Io, lane: Lane) -> hyper::Result<(http2::SendRequest<Body>, Http2)> {
    let window = if lane == Lane::Bulk { WINDOW_BULK } else { WINDOW_ENDLESS };
    let streams = u32::try_from(capacity(lane, usize::MAX)).unwrap_or(u32::MAX);
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(window)
        .initial_connection_window_size(window.saturating_mul(streams))
        // Nothing may be sent before the peer's settings say how many streams it allows.
        .initial_max_send_streams(0)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(64 << 10)
        // As client-go: a connection on which watches are silent has to be known alive.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15))
        .handshake(TokioIo::new(io))
        .await?;
    settle(&mut connection).await?;
    Ok((sender, connection))
}

/// Drives a connection until the peer's settings are known; the caller bounds the time.
async fn settle(connection: &mut Http2) -> hyper::Result<()> {
    let mut look = tokio::time::interval(Duration::from_millis(1));
    while connection.current_max_send_streams() == 0 {
        tokio::select! {
            ended = &mut *connection => return ended,
            _ = look.tick() => {}
        }
    }
    Ok(())
}

async fn http1_handshake(io: Io) -> hyper::Result<(http1::SendRequest<Body>, Http1)> {
    http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES as usize + (64 << 10))
        .handshake(TokioIo::new(io))
        .await
}

/// Counts an open connection while it lives.
pub(super) struct OpenGuard(Metrics);

impl OpenGuard {
    pub(super) fn new(metrics: &Metrics) -> Self {
        metrics.upstream_open.inc();
        Self(metrics.clone())
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.upstream_open.dec();
    }
}
