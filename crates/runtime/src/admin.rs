//! The admin server: `/healthz`, `/readyz`, `/metrics`, for GET and HEAD, and nothing that changes state.
//!
//! It goes on answering while the program drains (`/readyz` then says so with 503) and ends when the drain is over.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::{
    accept::{self, accept},
    drain,
    http::{Limits, serve_until, text},
    metrics::SharedRegistry,
    readiness::Readiness,
};

/// Connections at a time; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 32;
/// Longest life of a connection, so that idle ones cannot use up the cap.
const MAX_LIFE: Duration = Duration::from_secs(120);
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

/// An admin server whose socket is open.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens.
    pub addr: SocketAddr,
    listener: TcpListener,
    admin: Admin,
}

/// Why the admin server cannot start.
#[derive(Debug, Error)]
#[error("cannot listen on {addr} for health and metrics; is the port taken?")]
pub struct BindError {
    addr: SocketAddr,
    #[source]
    source: io::Error,
}

impl Admin {
    /// Opens the socket.
    ///
    /// # Errors
    /// Where the address cannot be listened on.
    pub async fn bind(self, addr: SocketAddr) -> Result<Bound, BindError> {
        let failed = |source| BindError { addr, source };
        let listener = accept::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Bound { addr, listener, admin: self })
    }

    fn answer(&self, method: &Method, path: &str, draining: bool) -> Response<Full<Bytes>> {
        if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
            return text(StatusCode::NOT_FOUND, "not found\n");
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "read-only: GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => self.metrics(),
            "/readyz" => self.ready(draining),
            _ => text(StatusCode::OK, "ok\n"),
        }
    }

    fn ready(&self, draining: bool) -> Response<Full<Bytes>> {
        if draining {
            return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        let pending = self.readiness.pending();
        if pending.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", pending.join(", ")))
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
        accept(self.listener, MAX_CONNECTIONS, drain.over(), |stream, _| {
            let (admin, drain) = (Arc::clone(&admin), drain.clone());
            async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let response = admin.answer(request.method(), request.uri().path(), drain.is_draining());
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let limits = Limits::default();
                let served = serve_until(stream, service, &limits, drain.over());
                // A probe that hangs up early or is slow concerns nobody.
                let _ = tokio::time::timeout(MAX_LIFE, served).await;
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests;
