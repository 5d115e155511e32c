//! Connections to recorders: HTTP/2 with prior knowledge, shared by the uploads to one address.
//!
//! A connection is used once its recorder has answered `HEAD /v2/record` with 200. It carries at most [`MAX_STREAMS`]
//! uploads; one that was not used for [`IDLE`] is closed. Whoever needs a new connection to an address waits while
//! somebody else is opening one.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, StatusCode};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{sleep, timeout};

use super::{body::UploadBody, v2::UploadError};
use crate::{BoxedStream, Dial};

/// Path of recordings.
pub(super) const RECORD: &str = "/v2/record";
/// How long dialling may take.
const DIAL: Duration = Duration::from_secs(5);
/// How long the probe may take.
const PROBE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(30);
/// Uploads on one connection; servers allow 100 and more.
const MAX_STREAMS: usize = 32;
/// Bytes of one upload that the HTTP library holds.
const SEND_BUFFER: usize = 256 << 10;

type Driver = http2::Connection<TokioIo<BoxedStream>, UploadBody, TokioExecutor>;

/// All connections.
pub(super) struct Connections {
    dial: Arc<dyn Dial>,
    /// By address; as many as netmaps have named.
    lanes: Mutex<HashMap<SocketAddr, Arc<Lane>>>,
}

/// The connections to one address, held by whoever chooses or opens one.
type Lane = tokio::sync::Mutex<Vec<Arc<Connection>>>;

/// One connection.
pub(super) struct Connection {
    sender: http2::SendRequest<UploadBody>,
    /// Nothing new is to be sent on it.
    spent: AtomicBool,
    /// It was used since the last look.
    used: AtomicBool,
}

impl Connections {
    pub(super) fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial, lanes: Mutex::default() }
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
        Arc::clone(lanes.entry(to).or_default())
    }

    async fn open(&self, to: SocketAddr) -> Result<Arc<Connection>, UploadError> {
        let stream = timeout(DIAL, self.dial.dial(to))
            .await
            .map_err(|_| UploadError::Slow("connection"))?
            .map_err(UploadError::Dial)?;
        let probed = timeout(PROBE, probe(stream, to)).await.map_err(|_| UploadError::Slow("probe"))?;
        let (sender, driver) = probed?;
        let connection =
            Arc::new(Connection { sender, spent: AtomicBool::new(false), used: AtomicBool::new(true) });
        tokio::spawn(drive(driver, Arc::downgrade(&connection)));
        Ok(connection)
    }
}

impl Connection {
    /// The end that sends requests.
    pub(super) fn sender(&self) -> http2::SendRequest<UploadBody> {
        self.used.store(true, Ordering::Relaxed);
        self.sender.clone()
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

/// HTTP/2 on a stream, and whether a recorder of version 2 is behind it.
async fn probe(
    stream: BoxedStream,
    to: SocketAddr,
) -> Result<(http2::SendRequest<UploadBody>, Driver), UploadError> {
    let (mut sender, mut driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_send_buf_size(SEND_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(UploadError::Http)?;
    let head = Request::head(format!("http://{to}{RECORD}")).body(UploadBody::empty());
    let answer = sender.send_request(head.map_err(UploadError::Request)?);
    let answer = tokio::select! {
        answer = answer => answer.map_err(UploadError::Http)?,
        ended = &mut driver => return Err(ended.err().map_or(UploadError::Early, UploadError::Http)),
    };
    match answer.status() {
        StatusCode::OK => Ok((sender, driver)),
        status => Err(UploadError::Probe(status)),
    }
}

/// Keeps a connection going as long as it is used.
async fn drive(mut driver: Driver, connection: Weak<Connection>) {
    loop {
        tokio::select! {
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
