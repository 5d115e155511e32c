//! Connections to recorders: HTTP/2 with prior knowledge, shared by the uploads to one address.
//!
//! A connection is used once its recorder has answered `HEAD /v2/record` with 200. It carries at most [`MAX_STREAMS`]
//! uploads; one that was not used for [`IDLE`] is closed. Whoever needs a new connection to an address waits while
//! somebody else is opening one.
//!
//! The probe carries our assertion, because a recorder of ours answers nobody who has shown none, and a renewed one is
//! shown by another probe: a recorder forgets a key whose assertion has run out, and sessions last longer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use podwitness_core::{assertion, control::Netmap};
use podwitness_wire::pack;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    body::UploadBody,
    error::UploadError,
    heard::{First, Listening},
};
use crate::{BoxedStream, Dial};

/// Path of recordings.
pub(super) const RECORD: &str = "/v2/record";
/// Path of API events.
pub(super) const EVENT: &str = "/v2/event";
/// Media type of a stream of events, and the response header in which a recorder says that it takes them.
pub(super) const NDJSON: &str = "application/x-ndjson";
const ACCEPT_EVENTS: &str = "podwitness-accept-events";
/// How long dialling may take.
const DIAL: Duration = Duration::from_secs(5);
/// How long the probe may take.
const PROBE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(30);
/// Uploads on one connection; servers allow 100 and more.
const MAX_STREAMS: usize = 32;
/// Bytes of one upload that the HTTP library holds, as they are sent.
const SEND_BUFFER: usize = 256 << 10;

type Assertion = watch::Receiver<Option<Arc<str>>>;
type Driver = http2::Connection<TokioIo<Listening>, UploadBody, TokioExecutor>;

/// All connections.
pub(super) struct Connections {
    dial: Arc<dyn Dial>,
    assertion: Assertion,
    netmap: watch::Receiver<Option<Arc<Netmap>>>,
    /// By address; those without a connection are forgotten when another address is used.
    lanes: Mutex<HashMap<SocketAddr, Arc<Lane>>>,
}

/// The connections to one address, held by whoever chooses or opens one.
type Lane = tokio::sync::Mutex<Vec<Arc<Connection>>>;

/// One connection.
pub(super) struct Connection {
    sender: http2::SendRequest<UploadBody>,
    /// What the recorder is shown.
    assertion: Assertion,
    /// The recorder reads compressed uploads.
    packs: bool,
    /// It takes streams of events.
    takes_events: bool,
    /// Nothing new is to be sent on it.
    spent: AtomicBool,
    /// It was used since the last look.
    used: AtomicBool,
}

impl Connections {
    pub(super) fn new(
        dial: Arc<dyn Dial>,
        assertion: Assertion,
        netmap: watch::Receiver<Option<Arc<Netmap>>>,
    ) -> Self {
        Self { dial, assertion, netmap, lanes: Mutex::default() }
    }

    /// What a recorder at `to` is shown of us, to be asked before it is dialled: the newest assertion, but nothing
    /// outside the tunnel, where others may read along and nobody can tell whose key it is about.
    pub(super) fn shown(&self, to: SocketAddr) -> Assertion {
        let outside = |netmap: &Arc<Netmap>| netmap.recorders.iter().any(|peer| peer.plaintext == Some(to));
        let outside = self.netmap.borrow().as_ref().is_some_and(outside);
        if outside { watch::channel(None).1 } else { self.assertion.clone() }
    }

    /// A connection to a recorder at `to` that takes another upload, and whether it was there already. `hopeless` is
    /// asked before a new one is opened: it knows whether another attempt has failed meanwhile.
    pub(super) async fn get(
        &self,
        to: SocketAddr,
        hopeless: impl FnOnce() -> bool,
    ) -> Result<(Arc<Connection>, bool), UploadError> {
        let lane = self.lane(to);
        let mut connections = lane.lock().await;
        connections.retain(|connection| connection.is_alive());
        if let Some(connection) = connections.iter().find(|connection| connection.has_room()) {
            return Ok((Arc::clone(connection), true));
        }
        if hopeless() {
            return Err(UploadError::Again);
        }
        let connection = self.open(to).await?;
        connections.push(Arc::clone(&connection));
        Ok((connection, false))
    }

    fn lane(&self, to: SocketAddr) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if !lanes.contains_key(&to) {
            lanes.retain(|_, lane| is_used(lane));
        }
        Arc::clone(lanes.entry(to).or_default())
    }

    /// A connection on which nothing was said.
    pub(super) async fn dial(&self, to: SocketAddr) -> Result<BoxedStream, UploadError> {
        let dialled = timeout(DIAL, self.dial.dial(to)).await;
        dialled.map_err(|_| UploadError::Slow("connection"))?.map_err(UploadError::Dial)
    }

    async fn open(&self, to: SocketAddr) -> Result<Arc<Connection>, UploadError> {
        let mut assertion = self.shown(to);
        let (stream, first) = Listening::to(self.dial(to).await?);
        let head = head(to, &mut assertion).map_err(UploadError::Request)?;
        let probed = timeout(PROBE, probe(stream, head)).await.map_err(|_| UploadError::Slow("probe"))?;
        let (sender, driver, answer) = probed.map_err(|error| older(error, &first))?;
        let (spent, used) = (AtomicBool::new(false), AtomicBool::new(true));
        let (packs, takes_events) =
            (lists(&answer, pack::ACCEPT_ENCODING, pack::ENCODING), lists(&answer, ACCEPT_EVENTS, NDJSON));
        let connection =
            Arc::new(Connection { sender, assertion: assertion.clone(), packs, takes_events, spent, used });
        tokio::spawn(drive(driver, Arc::downgrade(&connection), to, assertion));
        Ok(connection)
    }
}

/// Whether a lane has a connection, or is held by an attempt. For the holder of the map, from which alone it can be had.
fn is_used(lane: &Arc<Lane>) -> bool {
    Arc::strong_count(lane) > 1
        || lane.try_lock().map_or(true, |all| all.iter().any(|connection| connection.is_alive()))
}

impl Connection {
    /// The end that sends requests.
    pub(super) fn sender(&self) -> http2::SendRequest<UploadBody> {
        self.used.store(true, Ordering::Relaxed);
        self.sender.clone()
    }

    /// The newest assertion, where the recorder is shown one.
    pub(super) fn assertion(&self) -> Option<Arc<str>> {
        self.assertion.borrow().clone()
    }

    /// Whether the recorder reads compressed uploads.
    pub(super) const fn packs(&self) -> bool {
        self.packs
    }

    /// Whether the recorder takes streams of events.
    pub(super) const fn takes_events(&self) -> bool {
        self.takes_events
    }

    /// An upload on it failed in a way that says nothing good of the connection.
    pub(super) fn give_up(&self) {
        self.spent.store(true, Ordering::Relaxed);
    }

    fn is_alive(&self) -> bool {
        !self.sender.is_closed() && !self.spent.load(Ordering::Relaxed)
    }

    /// Every upload holds the connection, and so does its lane.
    fn has_room(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) <= MAX_STREAMS
    }
}

/// What a failed probe means. A recorder that speaks HTTP/1.1, or does not know the path, is of version 1; one that
/// refuses, breaks off or says nothing is whatever it was.
fn older(error: UploadError, first: &First) -> UploadError {
    const UNKNOWN: [StatusCode; 3] =
        [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
    match error {
        UploadError::Probe(status) if UNKNOWN.contains(&status) => UploadError::Older,
        UploadError::Http(_) | UploadError::Early if first.is_http1() => UploadError::Older,
        UploadError::Http(_) | UploadError::Early if first.is_end() => UploadError::Mute,
        error => error,
    }
}

/// HTTP/2 on a stream, if a recorder of version 2 is behind it, and what that says of itself.
async fn probe(
    stream: Listening,
    head: Request<UploadBody>,
) -> Result<(http2::SendRequest<UploadBody>, Driver, HeaderMap), UploadError> {
    let (mut sender, mut driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_send_buf_size(SEND_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(UploadError::Http)?;
    let answer = sender.send_request(head);
    let answer = tokio::select! {
        answer = answer => answer.map_err(UploadError::Http)?,
        ended = &mut driver => return Err(ended.err().map_or(UploadError::Early, UploadError::Http)),
    };
    match answer.status() {
        StatusCode::OK => Ok((sender, driver, answer.into_parts().0.headers)),
        status => Err(UploadError::Probe(status)),
    }
}

/// Whether a header lists something.
fn lists(headers: &HeaderMap, name: &str, what: &str) -> bool {
    let items = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    items.into_iter().any(|item| item.trim_ascii() == what.as_bytes())
}

/// The probe, with the newest assertion.
fn head(to: SocketAddr, assertion: &mut Assertion) -> Result<Request<UploadBody>, http::Error> {
    let mut request = Request::head(format!("http://{to}{RECORD}")).body(UploadBody::empty())?;
    if let Some(text) = assertion.borrow_and_update().as_deref() {
        assert_with(&mut request, text)?;
    }
    Ok(request)
}

/// Shows the recorder whose key carries the connection.
pub(super) fn assert_with<B>(request: &mut Request<B>, assertion: &str) -> Result<(), http::Error> {
    let mut value = HeaderValue::from_str(assertion)?;
    value.set_sensitive(true);
    request.headers_mut().insert(assertion::HEADER, value);
    Ok(())
}

/// Keeps a connection going as long as it is used.
async fn drive(mut driver: Driver, connection: Weak<Connection>, to: SocketAddr, mut assertion: Assertion) {
    loop {
        tokio::select! {
            Ok(()) = assertion.changed() => {
                if let Some(connection) = connection.upgrade()
                    && let Ok(head) = head(to, &mut assertion)
                {
                    // The answer says nothing that the next upload would not; the connection is driven on meanwhile.
                    tokio::spawn(timeout(PROBE, connection.sender.clone().send_request(head)));
                }
                continue;
            }
            ended = &mut driver => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection to a recorder ended");
                }
                return;
            }
            () = sleep(IDLE) => {}
        }
        let Some(connection) = connection.upgrade() else { return };
        // The lane and this hold it; any upload would be a third.
        let idle = Arc::strong_count(&connection) <= 2;
        if connection.spent.load(Ordering::Relaxed) && idle {
            return;
        }
        if !connection.used.swap(false, Ordering::Relaxed) && idle {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;

    struct Refusing;

    impl Dial for Refusing {
        fn dial(&self, _: SocketAddr) -> BoxFuture<'static, std::io::Result<BoxedStream>> {
            Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
        }
    }

    #[tokio::test]
    async fn recorders_that_are_gone_are_forgotten() {
        let connections =
            Connections::new(Arc::new(Refusing), watch::channel(None).1, watch::channel(None).1);
        let held = connections.lane(([192, 0, 2, 1], 80).into());
        for port in 1000..2000 {
            let to = SocketAddr::from(([10, 0, 0, 1], port));
            assert!(matches!(connections.get(to, || false).await, Err(UploadError::Dial(_))));
        }
        // The last one, and the one that somebody holds.
        assert_eq!(connections.lanes.lock().unwrap().len(), 2);
        drop(held);
        connections.lane(([192, 0, 2, 2], 80).into());
        assert_eq!(connections.lanes.lock().unwrap().len(), 1);
    }
}
