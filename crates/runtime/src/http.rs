//! Serving HTTP/1.1 and HTTP/2 on one connection, within limits and until the drain.
//!
//! The version is found by the first bytes (RFC 9113 §3.4). No request head may take longer than
//! [`Limits::header_timeout`], and neither may the first bytes of a connection. A connection on which no request is
//! answered ends after [`Limits::idle`].

mod first;
mod tracked;

pub use tracked::{TrackedBody, tracked};

use std::{error::Error, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    service::Service,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{connection::ConnectionHandle, drain};

/// How long an idle connection may take to end once its client was told.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// An error of a connection.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Bounds of a connection. The default fits small requests of well-behaved peers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// How long the head of an HTTP/1.1 request may take, counted from the end of the one before: idle HTTP/1.1
    /// connections end after it, too. The first bytes of any connection have to come within it. A request that crosses
    /// the end of a connection is lost, so that for clients who keep theirs and whose requests cannot be repeated it is
    /// longer than they do.
    pub header_timeout: Duration,
    /// How long a connection may be idle, as its [`ConnectionHandle`] says, before it is ended in an orderly way. HTTP/2
    /// loses nothing by that. `None` leaves it to the client and to `ping`.
    pub idle: Option<Duration>,
    /// Headers of an HTTP/1.1 request; more are answered 431.
    pub max_headers: usize,
    /// Bytes of a request's head, in both versions.
    pub max_header_bytes: u32,
    /// Concurrent HTTP/2 streams.
    pub max_streams: u32,
    /// Largest HTTP/2 frame that a peer may send; `None` leaves the library's, 16 KiB. Each is a write of the peer.
    pub max_frame: Option<u32>,
    /// HTTP/2 window of a stream in bytes; `None` leaves the library's.
    pub stream_window: Option<u32>,
    /// HTTP/2 window of a connection in bytes; `None` leaves the library's.
    pub connection_window: Option<u32>,
    /// An HTTP/2 peer that does not answer a ping sent after this idle time and within as long again is gone.
    pub ping: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            idle: Some(Duration::from_secs(10)),
            max_headers: 100,
            max_header_bytes: 64 << 10,
            max_streams: 100,
            max_frame: None,
            stream_window: None,
            connection_window: None,
            ping: Some(Duration::from_secs(30)),
        }
    }
}

impl Limits {
    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_headers(self.max_headers)
            .max_buf_size((self.max_header_bytes as usize).max(8 << 10));
        let mut http2 = builder.http2();
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(self.max_header_bytes)
            .max_concurrent_streams(self.max_streams)
            .max_frame_size(self.max_frame)
            .keep_alive_interval(self.ping);
        if let Some(ping) = self.ping {
            http2.keep_alive_timeout(ping);
        }
        if let Some(window) = self.stream_window {
            http2.initial_stream_window_size(window);
        }
        if let Some(window) = self.connection_window {
            http2.initial_connection_window_size(window);
        }
        builder
    }
}

/// Serves one connection until the peer ends it, or it is idle for too long. When a drain begins, requests in flight
/// are finished and no new one is taken; when it is over, the connection ends at once.
///
/// # Errors
/// Where the connection breaks, or a limit is exceeded.
pub async fn serve_connection<I, S, B>(
    io: I,
    service: S,
    limits: &Limits,
    drain: &drain::Watch,
    connection: &ConnectionHandle,
) -> Result<(), BoxError>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let stop = async {
        tokio::select! {
            () = drain.draining() => {}
            () = idle(connection, limits.idle) => {}
        }
    };
    tokio::select! {
        result = serve_until(io, service, limits, stop) => result,
        () = drain.over() => Ok(()),
        // A client that is told of the end and does not answer.
        () = idle(connection, limits.idle.map(|limit| limit.saturating_add(CLOSE_TIMEOUT))) => Ok(()),
    }
}

async fn idle(connection: &ConnectionHandle, limit: Option<Duration>) {
    match limit {
        Some(limit) => connection.idle_for(limit).await,
        None => std::future::pending().await,
    }
}

/// Serves one connection until the peer ends it, or until `stop` completes and no request is in flight.
pub(crate) async fn serve_until<I, S, B>(
    io: I,
    service: S,
    limits: &Limits,
    stop: impl Future<Output = ()>,
) -> Result<(), BoxError>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let io = TokioIo::new(first::FirstBytes::new(io, limits.header_timeout));
    let builder = limits.builder();
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    tokio::select! {
        result = connection.as_mut() => return result,
        () = stop => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// A short answer in plain text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests;
