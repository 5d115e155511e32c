//! Connections within a quota: counted from the moment they are accepted, before a byte of them is read.
//!
//! A connection is idle until its server says that it is busy, and idle connections are what a [`ConnectionLimiter`] ends where
//! a cap is reached, in the order of [`crate::quota`]. Once it is known whose a connection is, its place can be
//! counted to that name instead of its source address ([`ConnectionHandle::authenticate`]).

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::SharedRegistry,
    quota::{Quota, QuotaExceeded, QuotaKey, QuotaLease, QuotaLimits, QuotaMetrics},
};

/// Admits connections to a listener. Clones count together.
#[derive(Clone, Debug)]
pub struct ConnectionLimiter {
    quota: Quota,
    hook: Option<RefusalHook>,
}

/// Told of each source whose connection is refused. It is called where connections are accepted, and must not block.
#[derive(Clone)]
pub struct RefusalHook(Arc<dyn Fn(IpAddr) + Send + Sync>);

impl RefusalHook {
    /// Calls `tell`.
    #[must_use]
    pub fn new(tell: impl Fn(IpAddr) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for RefusalHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefusalHook")
    }
}

/// A connection that was admitted. Clones are the same connection.
#[derive(Clone, Debug)]
pub struct ConnectionHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slot: Mutex<Slot>,
    /// Since when it is idle; `None` while it is busy.
    idle: watch::Sender<Option<Instant>>,
    revoked: CancellationToken,
}

#[derive(Debug)]
struct Slot {
    lease: QuotaLease,
    /// Of memory, once it holds some.
    memory: Option<QuotaLease>,
    key: QuotaKey,
    busy: usize,
    protected: bool,
    authenticated: bool,
}

/// Keeps a connection busy until it is dropped.
#[derive(Debug)]
#[must_use = "the connection is idle once this is dropped"]
pub struct BusyGuard(ConnectionHandle);

impl ConnectionLimiter {
    /// Admits connections to the listener of this name, by their source address.
    #[must_use]
    pub fn new(listener: &'static str, limits: QuotaLimits, registry: &SharedRegistry) -> Self {
        Self::with(limits, registry.connections().listener(listener))
    }

    /// The same, counting into `metrics`.
    #[must_use]
    pub fn with(limits: QuotaLimits, metrics: QuotaMetrics) -> Self {
        Self { quota: Quota::new(limits, metrics), hook: None }
    }

    /// The same, which tells `hook` of sources whose connections it refuses.
    #[must_use]
    pub fn telling(self, hook: RefusalHook) -> Self {
        Self { hook: Some(hook), ..self }
    }

    /// Admits a connection from `source`; others of the same or of a greedier source may be ended for it.
    ///
    /// # Errors
    /// Where a cap is reached and every connection that could be ended is busy.
    pub fn open(&self, source: IpAddr) -> Result<ConnectionHandle, QuotaExceeded> {
        let (revoked, key) = (CancellationToken::new(), QuotaKey::source(source));
        let lease = self.quota.open(key.clone(), revoked.clone());
        if let Err(exceeded) = lease.take(1) {
            self.hook.iter().for_each(|hook| (hook.0)(source));
            return Err(exceeded);
        }
        let slot =
            Mutex::new(Slot { lease, memory: None, key, busy: 0, protected: false, authenticated: false });
        let idle = watch::Sender::new(Some(Instant::now()));
        Ok(ConnectionHandle(Arc::new(Inner { slot, idle, revoked })))
    }

    /// Ends an idle connection, for want of something that is not counted here, such as descriptors. False where none
    /// is idle.
    #[must_use]
    pub fn shed(&self) -> bool {
        self.quota.shed()
    }

    /// Completes once a connection was ended for another or refused: at once, where that happened since it completed
    /// last. For one at a time who waits.
    pub async fn exhausted(&self) {
        self.quota.exhausted().await;
    }

    /// Connections that are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.quota.used()
    }
}

impl ConnectionHandle {
    /// One that no listener counts, for streams that are no connections of the network.
    #[must_use]
    pub fn uncounted() -> Self {
        let limits = QuotaLimits { total: 1, per_key: 1 };
        let quota = Quota::new(limits, QuotaMetrics::default());
        let (revoked, key) = (CancellationToken::new(), QuotaKey::Name("".into()));
        let lease = quota.open(key.clone(), revoked.clone());
        let slot =
            Mutex::new(Slot { lease, memory: None, key, busy: 0, protected: false, authenticated: false });
        Self(Arc::new(Inner { slot, idle: watch::Sender::new(Some(Instant::now())), revoked }))
    }

    /// It does something for its client, and is not ended meanwhile.
    pub fn busy(&self) -> BusyGuard {
        let mut slot = self.lock();
        slot.busy = slot.busy.saturating_add(1);
        if slot.busy == 1 {
            slot.set_busy(true);
            self.0.idle.send_replace(None);
        }
        drop(slot);
        BusyGuard(self.clone())
    }

    /// It has brought something of use: connections that have not are ended before it.
    pub fn protect(&self) {
        let mut slot = self.lock();
        slot.protected = true;
        slot.lease.protect();
    }

    /// Counts it to `key` in `quota` from now on, and no longer to where it was counted before.
    ///
    /// # Errors
    /// Where a cap of `quota` is reached and all there is busy; it then stays where it is.
    pub fn authenticate(&self, quota: &Quota, key: QuotaKey) -> Result<(), QuotaExceeded> {
        let mut slot = self.lock();
        if slot.authenticated && slot.key == key {
            return Ok(());
        }
        let lease = quota.open(key.clone(), self.0.revoked.clone());
        lease.take(1)?;
        if slot.protected {
            lease.protect();
        }
        lease.set_busy(slot.busy > 0);
        (slot.lease, slot.key, slot.authenticated) = (lease, key, true);
        Ok(())
    }

    /// Holds exactly `bytes` of `memory` under `key`, until it ends or this is called again. They are idle while the
    /// connection is, and it ends where they are given to another.
    ///
    /// # Errors
    /// Where a cap of `memory` is reached and too little is idle; it then holds what it held.
    pub fn hold(&self, memory: &Quota, key: &QuotaKey, bytes: usize) -> Result<(), QuotaExceeded> {
        let mut slot = self.lock();
        let is_busy = slot.busy > 0;
        let lease = slot.memory.get_or_insert_with(|| {
            let lease = memory.open(key.clone(), self.0.revoked.clone());
            lease.set_busy(is_busy);
            lease
        });
        lease.resize(bytes)
    }

    /// What is cancelled when its place, or memory of it, is given to another.
    #[must_use]
    pub fn revocation(&self) -> CancellationToken {
        self.0.revoked.clone()
    }

    /// Whether it was counted to a name.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.lock().authenticated
    }

    /// Completes when its place was given to another.
    pub async fn revoked(&self) {
        self.0.revoked.cancelled().await;
    }

    /// Completes once it has been idle for `time` without a break.
    pub async fn idle_for(&self, time: Duration) {
        let mut idle = self.0.idle.subscribe();
        loop {
            let since = *idle.borrow_and_update();
            let due = async {
                match since {
                    Some(since) => sleep_until(since + time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // The sender lives as long as this does.
                _ = idle.changed() => {}
                () = due => return,
            }
        }
    }

    /// Each change leaves it whole, so that a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn set_busy(&self, busy: bool) {
        self.lease.set_busy(busy);
        self.memory.iter().for_each(|memory| memory.set_busy(busy));
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        slot.busy = slot.busy.saturating_sub(1);
        if slot.busy == 0 {
            slot.set_busy(false);
            self.0.0.idle.send_replace(Some(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests;
