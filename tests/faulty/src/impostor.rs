//! Something that looks like a recorder: the probe is answered as by a real one, and no recording is ever kept.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::fault::{Fault, Faults};

/// No frame of acknowledgements.
const NONSENSE: &str = "<html>welcome to nowhere</html>\n";

/// Answers a connection until it ends.
pub async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, faults: &Faults) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(request.method(), faults.now());
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection ended badly");
    }
}

fn respond(method: &Method, fault: Fault) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    response.headers_mut().insert("podwitness-ack", HeaderValue::from_static("process"));
    match (method, fault) {
        (&Method::HEAD, _) => {}
        (_, Fault::Nonsense) => *response.body_mut() = NONSENSE.into(),
        _ => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
    }
    response
}
