//! The pool: who may use which connection, when another is opened, and when one is closed.
//!
//! Bounds: [`PoolLimits`], in all and of one credential. Where there is no place for another connection, the one that has
//! been idle for the longest time is closed for it, whosever it is; a request for which none is idle is answered 503. Idle
//! connections are closed after one to two times [`IDLE`].

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use futures_util::future::poll_fn;
use tokio::time::{Duration, Instant, sleep};

use super::{
    Lane, UpstreamError,
    connect::{Connected, Connector, Http2, OpenGuard, capacity},
    connection::{Connection, Slot},
};
use crate::target::Target;

/// Twice this is less than the 90 s after which an API server ends an idle connection
/// (`k8s.io/apiserver/pkg/server/secure_serving.go`): a request that crosses the end is lost.
const IDLE: Duration = Duration::from_secs(40);
/// Memory that connections of clients may take for each connection to the API server.
const MEMORY: u64 = 64 << 10;
/// Connections in all, however little or much memory there is.
const TOTAL: RangeInclusive<u64> = 128..=4096;
/// Of all of them one credential has this part at most, for each API server and [`Lane`].
const PART: usize = 8;

/// Caps of a pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PoolLimits {
    /// Connections in all.
    pub total: usize,
    /// Connections of one credential to one API server, for each [`Lane`].
    pub per_credential: usize,
}

impl PoolLimits {
    /// Those of a proxy whose connections and requests may take so many bytes.
    #[must_use]
    pub fn of_memory(bytes: u64) -> Self {
        let total = (bytes / MEMORY).clamp(*TOTAL.start(), *TOTAL.end());
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        Self { total, per_credential: total / PART }
    }
}

/// Whom a connection serves.
#[derive(Clone, Eq, Hash, PartialEq)]
pub(super) struct Key {
    pub(super) target: Arc<Target>,
    pub(super) credential: [u8; 32],
    pub(super) lane: Lane,
}

/// All pooled connections.
pub(super) struct Pool {
    entries: Mutex<HashMap<Key, Entry>>,
    connector: Arc<Connector>,
    limits: PoolLimits,
}

/// The connections of one key.
#[derive(Default)]
struct Entry {
    connections: Vec<Arc<Connection>>,
    /// Held by whoever opens a connection; the others wait for what comes of it.
    opening: Arc<tokio::sync::Mutex<Option<Failure>>>,
}

impl Entry {
    fn is_opening(&self) -> bool {
        Arc::strong_count(&self.opening) > 1
    }
}

/// What came of the last attempt, for those who had been waiting for it.
struct Failure {
    at: Instant,
    error: UpstreamError,
}

impl Pool {
    pub(super) fn new(connector: Arc<Connector>, limits: PoolLimits) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), connector, limits })
    }

    /// Takes a slot on a connection of `key`, opening one where all are full.
    pub(super) async fn reserve(self: &Arc<Self>, key: &Key) -> Result<Slot, UpstreamError> {
        let asked = Instant::now();
        let opening = match self.take(key)? {
            Taken::Slot(slot) => return Ok(slot),
            Taken::Opening(opening) => opening,
        };
        let mut last = opening.lock().await;
        if let Some(failure) = last.as_ref().filter(|failure| failure.at >= asked) {
            return Err(failure.error.clone());
        }
        if let Taken::Slot(slot) = self.take(key)? {
            return Ok(slot);
        }
        match self.connector.connect(&key.target, key.lane).await {
            Ok(connected) => Ok(self.admit(key, connected)),
            Err(error) => {
                let error = UpstreamError::Connect(Arc::new(error));
                *last = Some(Failure { at: Instant::now(), error: error.clone() });
                Err(error)
            }
        }
    }

    /// Gives no further request to the connection of `slot`.
    pub(super) fn retire(&self, key: &Key, slot: &Slot) {
        self.remove(key, slot.connection());
    }

    fn take(&self, key: &Key) -> Result<Taken, UpstreamError> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(key) {
            entry.connections.retain(|connection| !connection.is_dead());
            if let Some(slot) = entry.connections.iter().find_map(Connection::reserve) {
                return Ok(Taken::Slot(slot));
            }
            if entry.connections.len() >= self.limits.per_credential {
                return Err(UpstreamError::CredentialFull);
            }
        }
        // Where nothing is connected and nobody waits, nothing is remembered.
        entries.retain(|_, entry| !entry.connections.is_empty() || entry.is_opening());
        // Another one that is being opened has its place already.
        let others = entries.iter().filter(|(other, entry)| *other != key && entry.is_opening()).count();
        let open: usize = entries.values().map(|entry| entry.connections.len()).sum();
        if open.saturating_add(others) >= self.limits.total && !self.evict(&mut entries) {
            return Err(UpstreamError::Full);
        }
        Ok(Taken::Opening(Arc::clone(&entries.entry(key.clone()).or_default().opening)))
    }

    /// Closes the connection that has been idle for the longest time; false where none is idle.
    fn evict(&self, entries: &mut HashMap<Key, Entry>) -> bool {
        let all = entries.values().flat_map(|entry| &entry.connections);
        let idle = all.filter_map(|connection| Some((connection.idle_since()?, connection)));
        let Some(victim) = idle.min_by_key(|(since, _)| *since).map(|(_, victim)| Arc::clone(victim)) else {
            return false;
        };
        victim.retire();
        for entry in entries.values_mut() {
            entry.connections.retain(|connection| !Arc::ptr_eq(connection, &victim));
        }
        self.connector.metrics.upstream_evicted();
        true
    }

    /// Pools a new connection and takes its first slot.
    fn admit(self: &Arc<Self>, key: &Key, connected: Connected) -> Slot {
        let open = OpenGuard::new(&self.connector.metrics);
        let (connection, driver) = match connected {
            Connected::Http1(sender, driver) => {
                let driver: Driver = Box::pin(async move { report(driver.await) });
                (Arc::new(Connection::http1(sender)), driver)
            }
            Connected::Http2(sender, driver) => {
                let limit = Arc::new(AtomicUsize::new(capacity(key.lane, driver.current_max_send_streams())));
                let driver: Driver = Box::pin(drive(driver, Arc::clone(&limit), key.lane));
                (Arc::new(Connection::http2(sender, limit)), driver)
            }
        };
        let mut entries = self.lock();
        let slot = Slot::first(&connection);
        entries.entry(key.clone()).or_default().connections.push(Arc::clone(&connection));
        tokio::spawn(keep(Arc::downgrade(self), key.clone(), Arc::downgrade(&connection), driver, open));
        slot
    }

    fn remove(&self, key: &Key, connection: &Arc<Connection>) {
        connection.retire();
        if let Some(entry) = self.lock().get_mut(key) {
            entry.connections.retain(|other| !Arc::ptr_eq(other, connection));
        }
    }

    /// No step under this lock leaves an entry half changed.
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Taken {
    Slot(Slot),
    Opening(Arc<tokio::sync::Mutex<Option<Failure>>>),
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Drives a connection to its end, unpools it then, or when it was idle for one to two times [`IDLE`]. Without a
/// sender left, a connection ends by itself once its last answer has.
async fn keep(
    pool: Weak<Pool>,
    key: Key,
    connection: Weak<Connection>,
    mut driver: Driver,
    _open: OpenGuard,
) {
    let mut mark = None;
    loop {
        let ended = tokio::select! {
            () = &mut driver => true,
            () = sleep(IDLE) => false,
        };
        let now = connection.upgrade().and_then(|connection| connection.idle_mark());
        if !ended && (now.is_none() || now != mark) {
            mark = now;
            continue;
        }
        if let (Some(pool), Some(connection)) = (pool.upgrade(), connection.upgrade()) {
            pool.remove(&key, &connection);
        }
        if !ended {
            driver.await;
        }
        return;
    }
}

/// Drives an HTTP/2 connection and keeps up with the streams that its peer allows.
async fn drive(mut connection: Http2, limit: Arc<AtomicUsize>, lane: Lane) {
    let ended = poll_fn(|cx| {
        let polled: Poll<hyper::Result<()>> = Pin::new(&mut connection).poll(cx);
        limit.store(capacity(lane, connection.current_max_send_streams()), Ordering::Release);
        polled
    });
    report(ended.await);
}

fn report(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection to the API server ended");
    }
}
