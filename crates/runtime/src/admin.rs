//! The admin server: `/healthz`, `/readyz`, `/metrics`, for GET and HEAD, and nothing that changes state; beside it the
//! [`health`] server, where probes come.
//!
//! Both go on answering while the program drains (`/readyz` then says so with 503) and end when the drain is over.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};

use crate::{
    accept::{self, accept},
    connection::{ConnectionHandle, ConnectionLimiter},
    drain, health,
    http::{Limits, serve_until, text, tracked},
    metrics::SharedRegistry,
    quota::QuotaLimits,
    readiness::Readiness,
};

/// Connections at a time. Each may hold one answer that its client does not read.
const CONNECTIONS: QuotaLimits = QuotaLimits { total: 32, per_key: 8 };
/// Longest life of a connection, so that an answer that is not read is not held for longer.
const MAX_LIFE: Duration = Duration::from_secs(60);
/// Scrapers may keep a connection, but not for long: theirs are requests that can be repeated.
const IDLE: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits {
    header_timeout: IDLE,
    idle: Some(IDLE),
    max_headers: 64,
    max_header_bytes: 16 << 10,
    max_streams: 1,
    max_frame: None,
    stream_window: None,
    connection_window: None,
    ping: Some(Duration::from_secs(10)),
};
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What the admin server shows.
#[derive(Clone, Debug, Default)]
pub struct Admin {
    /// Shown by `/metrics`.
    pub registry: SharedRegistry,
    /// Shown by `/readyz`.
    pub readiness: Readiness,
}

/// Where the admin server listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AdminAddresses {
    /// For people and scrapers.
    pub admin: SocketAddr,
    /// For the kubelet's probes; `None` where there is no kubelet.
    pub health: Option<SocketAddr>,
}

/// An admin server whose sockets are open.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where probes are answered.
    pub health: Option<SocketAddr>,
    listener: TcpListener,
    health_server: Option<health::Bound>,
    limiter: ConnectionLimiter,
    admin: Admin,
}

/// Why the admin server cannot start.
#[derive(Debug, Error)]
#[error("cannot listen on {addr} for {what}; is the port taken?")]
pub struct BindError {
    addr: SocketAddr,
    what: &'static str,
    #[source]
    source: io::Error,
}

impl Admin {
    /// Opens the sockets.
    ///
    /// # Errors
    /// Where an address cannot be listened on.
    pub async fn bind(self, to: AdminAddresses) -> Result<Bound, BindError> {
        self.open(to, accept::bind).await
    }

    /// The same, but on a port that the kernel draws in place of one that somebody else listens on.
    ///
    /// # Errors
    /// As [`Admin::bind`].
    pub async fn bind_elsewhere(self, to: AdminAddresses) -> Result<Bound, BindError> {
        self.open(to, accept::bind_elsewhere).await
    }

    async fn open(
        self,
        to: AdminAddresses,
        bind: impl AsyncFn(SocketAddr) -> io::Result<TcpListener>,
    ) -> Result<Bound, BindError> {
        let failed = |source| BindError { addr: to.admin, what: "health and metrics", source };
        let listener = bind(to.admin).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let mut health_server = None;
        if let Some(addr) = to.health {
            let failed = |source| BindError { addr, what: "probes", source };
            let listener = bind(addr).await.map_err(failed)?;
            let opened = health::Bound::new(listener, &self.registry, self.readiness.clone());
            health_server = Some(opened.map_err(failed)?);
        }
        let health = health_server.as_ref().map(|server| server.addr);
        let limiter = ConnectionLimiter::new("admin", CONNECTIONS, &self.registry);
        Ok(Bound { addr, health, listener, health_server, limiter, admin: self })
    }

    fn answer(&self, method: &Method, path: &str, draining: bool) -> Response<Full<Bytes>> {
        if path == "/metrics" && matches!(*method, Method::GET | Method::HEAD) {
            self.metrics()
        } else {
            health::answer(method, path, &self.readiness, draining)
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.registry.encode() {
            Ok(body) => {
                let mut response = text(StatusCode::OK, body);
                response.headers_mut().insert(CONTENT_TYPE, OPENMETRICS);
                response
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be formatted\n"),
        }
    }
}

impl Bound {
    /// Answers until the drain is over.
    pub async fn run(self, drain: drain::Watch) {
        let admin = Arc::new(self.admin);
        let admin_server = accept(self.listener, self.limiter, drain.over(), |stream, _, connection| {
            let (admin, drain) = (Arc::clone(&admin), drain.clone());
            async move {
                // A client that hangs up early or is slow is no error of ours.
                let _ = tokio::time::timeout(MAX_LIFE, serve(stream, admin, &drain, &connection)).await;
            }
        });
        match self.health_server {
            Some(health) => {
                tokio::join!(admin_server, health.run(drain.clone()));
            }
            None => admin_server.await,
        }
    }
}

async fn serve(stream: TcpStream, admin: Arc<Admin>, drain: &drain::Watch, connection: &ConnectionHandle) {
    let during = drain.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let response = admin.answer(request.method(), request.uri().path(), during.is_draining());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let stop = async {
        tokio::select! {
            () = drain.over() => {}
            () = connection.idle_for(IDLE) => {}
        }
    };
    let _ = serve_until(stream, tracked(service, connection), &LIMITS, stop).await;
}

#[cfg(test)]
mod tests;
