//! Memory of one request, from its head to the end of its answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use podwitness_runtime::quota::{QuotaExceeded, QuotaLease};
use tokio::time::{Instant, sleep};

use super::{AGAIN, Memory, PATIENCE, STALL};

/// What a request holds. Clones are the same request.
#[derive(Clone, Debug)]
pub(crate) struct Flight(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    memory: Weak<Memory>,
    number: u64,
    lease: QuotaLease,
    waits: Mutex<Waits>,
}

/// Since when the request waits for its client.
#[derive(Debug, Default)]
struct Waits {
    /// For more of its body.
    to_send: Option<Instant>,
    /// For what was given of its answer to be taken.
    to_read: Option<Instant>,
    idle: bool,
}

impl Flight {
    pub(super) fn new(memory: &Arc<Memory>, number: u64, lease: QuotaLease) -> Self {
        let memory = Arc::downgrade(memory);
        Self(Arc::new(Shared { memory, number, lease, waits: Mutex::default() }))
    }

    pub(super) fn weak(&self) -> Weak<Shared> {
        Arc::downgrade(&self.0)
    }

    /// Holds exactly `bytes`.
    ///
    /// # Errors
    /// Where there is no room.
    pub(crate) fn resize(&self, bytes: usize) -> Result<(), QuotaExceeded> {
        let resize = || self.0.lease.resize(bytes);
        match self.0.memory.upgrade() {
            Some(memory) => memory.with_stalled(resize),
            None => resize(),
        }
    }

    /// Holds exactly `bytes`, once there is room.
    ///
    /// # Errors
    /// Where there is none for [`PATIENCE`].
    pub(crate) async fn wait(&self, bytes: usize) -> Result<(), QuotaExceeded> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.resize(bytes) {
                Err(QuotaExceeded::PerKey | QuotaExceeded::Total) if Instant::now() < deadline => {
                    sleep(AGAIN).await;
                }
                settled => return settled,
            }
        }
    }

    /// Whether it waits for the client to send more.
    pub(crate) fn waits_to_send(&self, waits: bool) {
        self.0.change(|all| all.to_send = waits.then(|| all.to_send.unwrap_or_else(Instant::now)));
    }

    /// Whether it waits for the client to read what it was given.
    pub(crate) fn waits_to_read(&self, waits: bool) {
        self.0.change(|all| all.to_read = waits.then(Instant::now));
    }
}

impl Shared {
    /// Its memory is idle if it has waited for long.
    pub(super) fn note_stall(&self, now: Instant) {
        let mut waits = self.lock();
        let long = |since: Option<Instant>| since.is_some_and(|since| now.duration_since(since) >= STALL);
        if !waits.idle && (long(waits.to_send) || long(waits.to_read)) {
            waits.idle = true;
            self.lease.set_busy(false);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Waits)) {
        let mut waits = self.lock();
        change(&mut waits);
        if waits.idle && waits.to_send.is_none() && waits.to_read.is_none() {
            waits.idle = false;
            self.lease.set_busy(true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.upgrade() {
            memory.forget(self.number);
        }
    }
}
