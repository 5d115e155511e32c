//! HTTP towards the client: HTTP/2 and HTTP/1.1 by ALPN, with the API server's own limits, and its end in a drain.
//!
//! A connection on which no request is answered is ended after [`IDLE`], as the API server would end it. No request times
//! out: a watch may be silent for as long as it likes. It counts as busy, so that it is not ended for another connection
//! either.

use std::{
    convert::Infallible,
    error::Error,
    pin::{Pin, pin},
    sync::Arc,
};

use futures_util::FutureExt as _;
use http::{Method, Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use podwitness_core::{control::Notice, status::Status};
use podwitness_runtime::{connection::ConnectionHandle, http::tracked};
use tokio::time::Duration;

use crate::{
    Proxy,
    body::Body,
    classify::{self, Class},
    forward,
    intercept::{ServerIo, Terminated},
    memory::{
        Flight, body,
        meter::{Meter, Requested},
    },
    metrics, refusal, session,
    target::Target,
    upgrade,
};

/// How long a connection may be idle (`k8s.io/apiserver/pkg/server/secure_serving.go`, `IdleTimeout` of both versions of
/// HTTP). Clients end theirs after as long, or send a request again that crosses the end.
const IDLE: Duration = Duration::from_secs(90);
/// How long a client may take to end a connection that it was told is over.
const CLOSE: Duration = Duration::from_secs(5);
/// Longest list of headers, in bytes and in number.
const MAX_HEADER_BYTES: u32 = 1 << 20;
const MAX_HEADERS: usize = 500;
/// Streams of one HTTP/2 connection; what the API server allows.
const MAX_STREAMS: u32 = 100;
/// HTTP/2 window of a stream; the connection's holds those of all.
const WINDOW: u32 = 64 << 10;

const NO_CERTIFICATES: &str = "podwitness: this connection offers a client certificate, and client certificates cannot be relayed through a \
     recorded pod; use a token (kubectl --token, or a kubeconfig user with token or exec) instead";

/// What a request may make both ends hold while its bodies pass: the windows of the answer at the API server's end and
/// of what it is sent, each for the kinds of [`Lane`](crate::upstream::Lane).
const BULK: usize = (256 << 10) + WINDOW as usize;
const ENDLESS: usize = (64 << 10) + WINDOW as usize;

/// The client of one connection.
pub(crate) struct Client {
    /// The API server that it wants.
    pub(crate) target: Arc<Target>,
    /// Whether it offered a certificate.
    pub(crate) has_certificate: bool,
    /// Its place among the listener's.
    pub(crate) connection: ConnectionHandle,
    /// What the connection holds.
    pub(crate) meter: Arc<Meter>,
}

/// Serves a terminated connection to its end.
pub(crate) async fn serve(proxy: &Arc<Proxy>, io: ServerIo, client: Arc<Client>) {
    let is_http2 = is_http2(&io.inner);
    // HTTP/2 keeps the room of this future for as long as the answer's body lasts, and a watch may last for days: all
    // that it takes to come to an answer is given back with it.
    let handle = client.connection.clone();
    let asked = Arc::clone(proxy);
    let service = service_fn(move |request| {
        let requested = client.meter.requested();
        answer(Arc::clone(&asked), Arc::clone(&client), request, requested).boxed()
    });
    let service = tracked(service, &handle);
    let io = TokioIo::new(io);
    let ended = if is_http2 {
        let connection = http2().serve_connection(io, service);
        until_idle(proxy, &handle, connection, http2::Connection::graceful_shutdown).await
    } else {
        let connection = http1().serve_connection(io, service).with_upgrades();
        until_idle(proxy, &handle, connection, http1::UpgradeableConnection::graceful_shutdown).await
    };
    if let Err(error) = ended {
        if error.is_parse_too_large() {
            proxy.metrics.oversize();
        }
        tracing::debug!(error = &error as &dyn Error, "connection of a client ended");
    }
}

/// What the client and we have agreed on.
pub(crate) fn is_http2(io: &Terminated) -> bool {
    io.0.get_ref().1.alpn_protocol() == Some(b"h2")
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .auto_date_header(false)
        // Names that come from HTTP/2 are written as the API server writes them.
        .preserve_header_case(true)
        .title_case_headers(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES as usize + (64 << 10));
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * MAX_STREAMS)
        .max_send_buf_size(WINDOW as usize);
    builder
}

/// Lets a connection finish what it has begun when it has been idle or the drain begins (GOAWAY, `Connection: close`), and
/// drops it when its client does not answer to that, or the drain is over.
async fn until_idle<C>(
    proxy: &Proxy,
    handle: &ConnectionHandle,
    connection: C,
    finish: fn(Pin<&mut C>),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = proxy.drain.draining() => {}
        () = handle.idle_for(IDLE) => proxy.metrics.idle_ended(),
    }
    finish(connection.as_mut());
    tokio::select! {
        ended = connection => ended,
        () = proxy.drain.over() => Ok(()),
        () = handle.idle_for(IDLE.saturating_add(CLOSE)) => Ok(()),
    }
}

async fn answer(
    proxy: Arc<Proxy>,
    client: Arc<Client>,
    request: Request<Incoming>,
    requested: Requested,
) -> Result<Response<Body>, Infallible> {
    if let Some(status) = malformed(&request) {
        proxy.metrics.request(metrics::Request::Refused);
        return Ok(refusal::answer(&status));
    }
    let (head, incoming) = request.into_parts();
    let class = classify::classify(&head);
    if client.has_certificate {
        proxy.metrics.request(metrics::Request::Refused);
        let status = Status::forbidden(NO_CERTIFICATES);
        return Ok(proxy.refusal_reporter.client_certificate(&status, class.info()));
    }
    let moving = match &class {
        Class::Ordinary { endless: true, .. } => ENDLESS,
        Class::Ordinary { .. } => BULK,
        Class::Session(_) => session::MEMORY,
    };
    let Some(flight) = admit(&proxy, &client, body::request_size(&head), moving).await else {
        proxy.metrics.request(metrics::Request::Refused);
        proxy.notices.give(Notice::ConnectionsExhausted);
        return Ok(body::refused());
    };
    let request = Request::from_parts(head, incoming);
    let response = match class {
        Class::Ordinary { info, endless } => {
            forward::forward(&proxy, &client, request, &flight, info, endless).await
        }
        Class::Session(session) => upgrade::session(&proxy, &client, request, &flight, session).await,
    };
    Ok(body::to_client(response, flight, (&client.meter, requested), moving))
}

/// Memory for a request whose head takes `head` bytes and whose bodies may take `moving`; `None` where there is none.
async fn admit(proxy: &Proxy, client: &Client, head: usize, moving: usize) -> Option<Flight> {
    // Its head is there already, and so is what its client may have sent with it.
    let first = head.saturating_add(WINDOW as usize);
    let flight = proxy.memory.open(&client.connection, first).ok()?;
    flight.wait(head.saturating_add(moving)).await.ok()?;
    Some(flight)
}

/// What is refused whatever it asks.
fn malformed(request: &Request<Incoming>) -> Option<Status> {
    if request.method() == Method::CONNECT {
        return Some(Status::bad_request("podwitness: CONNECT is not a request of the Kubernetes API"));
    }
    let hosts = request.headers().get_all(http::header::HOST).iter().count();
    (hosts > 1).then(|| Status::bad_request("podwitness: the request has more than one Host header"))
}
