//! The health server: `/healthz` and `/readyz` on a port of its own, for the kubelet's probes and for nothing else.
//!
//! One request a connection, answered at once and closed, within `MAX_LIFE`. No client has a reason to keep a
//! connection here, so that any of them may be ended for a newer one. As long as the process answers at all, a
//! probe is answered, whatever else is connected here or to the other ports.
//!
//! Why probes come over HTTP and not by `exec`: a command runs in the container's own cgroup, where it is slowed and
//! killed first when memory or CPU time is short, which is when the probe matters, and it costs more CPU time than a
//! small container has in a second. Why the port is not kept for the kubelet by its address: which one it has depends
//! on the pod network (the node's, a bridge's, a tunnel's). Where NetworkPolicies are enforced, those of the
//! installation let no pod come here; the kubelet of the pod's own node always may.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONNECTION, HeaderValue},
    service::service_fn,
};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    accept::accept,
    connection::ConnectionLimiter,
    drain,
    http::{Limits, serve_until, text},
    metrics::SharedRegistry,
    quota::QuotaLimits,
    readiness::Readiness,
};

/// Connections at a time: more than a second brings of them from any one source.
const CONNECTIONS: QuotaLimits = QuotaLimits { total: 256, per_key: 64 };
/// Life of a connection; a probe asks as soon as it is connected.
const MAX_LIFE: Duration = Duration::from_secs(2);
const LIMITS: Limits = Limits {
    header_timeout: MAX_LIFE,
    idle: None,
    max_headers: 32,
    max_header_bytes: 8 << 10,
    max_streams: 1,
    max_frame: None,
    stream_window: None,
    connection_window: None,
    ping: None,
};

/// A health server whose socket is open.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens.
    pub addr: SocketAddr,
    listener: TcpListener,
    limiter: ConnectionLimiter,
    readiness: Readiness,
}

impl Bound {
    pub(crate) fn new(
        listener: TcpListener,
        registry: &SharedRegistry,
        readiness: Readiness,
    ) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        Ok(Self {
            addr,
            listener,
            limiter: ConnectionLimiter::new("health", CONNECTIONS, registry),
            readiness,
        })
    }

    /// Answers until the drain is over.
    pub async fn run(self, drain: drain::Watch) {
        let readiness = Arc::new(self.readiness);
        accept(self.listener, self.limiter, drain.over(), |stream, _, _| {
            let (readiness, drain) = (Arc::clone(&readiness), drain.clone());
            async move {
                // A probe that hangs up early or is slow is no error of ours.
                let _ = tokio::time::timeout(MAX_LIFE, serve(stream, &readiness, &drain)).await;
            }
        })
        .await;
    }
}

async fn serve(stream: TcpStream, readiness: &Readiness, drain: &drain::Watch) {
    let service = service_fn(|request: Request<Incoming>| {
        let mut answer = answer(request.method(), request.uri().path(), readiness, drain.is_draining());
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let _ = serve_until(stream, service, &LIMITS, drain.over()).await;
}

/// What health and readiness are, on this port and on that of the admin server.
pub(crate) fn answer(
    method: &Method,
    path: &str,
    readiness: &Readiness,
    draining: bool,
) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "read-only: GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/readyz" => ready(readiness),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let pending = readiness.pending();
    if pending.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", pending.join(", ")))
}
