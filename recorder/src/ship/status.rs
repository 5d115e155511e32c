//! How shipping stands: what waits, for how long, what went wrong last; and the gate that all wait at while the bucket
//! fails, so that a bucket that is down or throttles is asked by one at a time, less and less often.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::{Instant, sleep_until},
};

use crate::bucket::{BucketError, Class};

/// First pause after a failure, and the longest; each is between half of it and all of it.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// How long something may wait before the recorder counts as degraded.
const LATE: Duration = Duration::from_secs(60);

/// Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    gate: Mutex<Gate>,
    /// Held by whoever asks a bucket that failed.
    probe: Arc<AsyncMutex<()>>,
    waiting: Mutex<Waiting>,
    shipped: AtomicU64,
    failures: Mutex<HashMap<Class, u64>>,
}

#[derive(Debug, Default)]
struct Gate {
    failures: u32,
    until: Option<Instant>,
    last: Option<Class>,
    /// What the log has said of it, and what to change.
    reason: String,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// Of each upload that lasts: since when something waits, and how many bytes.
    live: HashMap<u64, (Instant, u64)>,
    /// Of everything else, by the last look.
    resting: Option<(Instant, u64)>,
}

/// Everything that is not in the bucket yet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backlog {
    /// Bytes on the volume only.
    pub bytes: u64,
    /// How long the oldest of them have waited.
    pub age: Duration,
}

/// What of one upload waits. Nothing, once this is dropped.
#[derive(Debug)]
pub(super) struct Waits {
    status: Status,
    id: u64,
}

impl Status {
    /// Whether the last request failed, and how.
    #[must_use]
    pub fn failing(&self) -> Option<Class> {
        self.gate().last
    }

    /// Whether shipping is as it should be.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.failing().is_none() && self.backlog().age < LATE
    }

    /// What waits.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let waiting = self.waiting();
        let all = || waiting.live.values().chain(&waiting.resting).filter(|(_, bytes)| *bytes > 0);
        Backlog {
            bytes: all().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add),
            age: all().map(|(since, _)| since.elapsed()).max().unwrap_or_default(),
        }
    }

    /// Bytes put into the bucket, as they are stored.
    #[must_use]
    pub fn shipped(&self) -> u64 {
        self.0.shipped.load(Ordering::Relaxed)
    }

    /// Failures so far, of each class.
    #[must_use]
    pub fn failures(&self) -> Vec<(Class, u64)> {
        let failures = self.0.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.iter().map(|(class, count)| (*class, *count)).collect()
    }

    /// Waits until the bucket may be asked. While it fails one at a time may: whoever holds what this gives, until it has
    /// said what came of it.
    pub(super) async fn open(&self) -> Option<OwnedMutexGuard<()>> {
        loop {
            if let Some(until) = self.closed() {
                sleep_until(until).await;
                continue;
            }
            self.failing()?;
            let probe = Arc::clone(&self.0.probe).lock_owned().await;
            if self.closed().is_none() {
                return Some(probe);
            }
        }
    }

    /// Until when nobody may ask.
    fn closed(&self) -> Option<Instant> {
        self.gate().until.filter(|until| *until > Instant::now())
    }

    /// So many bytes are in the bucket now.
    pub(super) fn shipped_bytes(&self, bytes: u64) {
        self.0.shipped.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A request was served.
    pub(crate) fn succeeded(&self) {
        let last = std::mem::take(&mut *self.gate()).last;
        if last.is_some() {
            tracing::info!("the bucket takes recordings again");
        }
    }

    /// A request failed. Those that failed while the gate was closed already do not close it for longer.
    pub(crate) fn failed(&self, error: &BucketError) {
        let class = error.class();
        let counted = &mut *self.0.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *counted.entry(class).or_default() += 1;
        if class == Class::Conflict {
            // Of one object, not of the bucket.
            tracing::warn!(%error, "a recording cannot be shipped");
            return;
        }
        let mut gate = self.gate();
        let reason = error.reason();
        if gate.reason != reason {
            tracing::warn!(%error, class = class.as_str(), "the bucket does not take recordings; they wait on the volume");
        }
        (gate.last, gate.reason) = (Some(class), reason);
        let now = Instant::now();
        if gate.until.is_none_or(|until| until <= now) {
            let most = FIRST.saturating_mul(1 << gate.failures.min(10)).min(LONGEST);
            gate.failures = gate.failures.saturating_add(1);
            gate.until = Some(now + most / 2 + most.mul_f64(random() / 2.0));
        }
    }

    /// Counts what waits of one upload.
    pub(super) fn waits(&self) -> Waits {
        let mut waiting = self.waiting();
        waiting.next = waiting.next.wrapping_add(1);
        Waits { status: self.clone(), id: waiting.next }
    }

    /// What a look at the volume found to wait.
    pub(super) fn found(&self, bytes: u64, age: Duration) {
        let since = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
        self.waiting().resting = Some((since, bytes));
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.0.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waits {
    /// Some were shipped, and so many, which came later, still wait.
    pub(super) fn left(&self, bytes: u64) {
        self.bytes(0);
        self.bytes(bytes);
    }

    /// So many bytes wait; since when is kept while any do.
    pub(super) fn bytes(&self, bytes: u64) {
        let mut waiting = self.status.waiting();
        if bytes == 0 {
            waiting.live.remove(&self.id);
        } else {
            waiting.live.entry(self.id).or_insert_with(|| (Instant::now(), 0)).1 = bytes;
        }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.bytes(0);
    }
}

/// Between 0 and 1, so that recorders that share a bucket do not ask at the same time.
fn random() -> f64 {
    let random = ulid::Ulid::new().random();
    f64::from((random & 0xffff) as u16) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_gate_opens_later_and_later_and_at_once_after_a_success() {
        let status = Status::default();
        let error = BucketError::test(Class::Throttled);
        let mut before = Duration::ZERO;
        for round in 0..12 {
            status.failed(&error);
            // Others that failed beside it change nothing.
            status.failed(&error);
            let begun = Instant::now();
            drop(status.open().await);
            let waited = begun.elapsed();
            assert!(
                waited >= FIRST / 2 && waited <= LONGEST + Duration::from_millis(1),
                "{round}: {waited:?}"
            );
            before = before.max(waited);
        }
        assert!(before >= LONGEST / 2);
        assert_eq!((status.failing(), status.is_well()), (Some(Class::Throttled), false));
        assert_eq!(status.failures(), [(Class::Throttled, 24)]);
        status.succeeded();
        status.shipped_bytes(7);
        let begun = Instant::now();
        assert!(status.open().await.is_none());
        assert_eq!((begun.elapsed(), status.failing(), status.shipped()), (Duration::ZERO, None, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn one_asks_a_bucket_that_fails_and_the_others_hear_of_it() {
        let status = Status::default();
        let error = BucketError::test(Class::Unreachable);
        status.failed(&error);
        let first = status.open().await;
        assert!(first.is_some());
        let others = [(); 2].map(|()| {
            let status = status.clone();
            tokio::spawn(async move { drop(status.open().await) })
        });
        // It takes long to say that it still fails.
        tokio::time::sleep(LONGEST * 2).await;
        assert!(others.iter().all(|other| !other.is_finished()));
        status.failed(&error);
        drop(first);
        assert!(status.closed().is_some());
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(others.iter().all(|other| !other.is_finished()));
        status.succeeded();
        assert!(status.open().await.is_none());
        for other in others {
            other.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_backlog_is_as_old_as_its_oldest_byte() {
        let status = Status::default();
        assert_eq!(status.backlog(), Backlog::default());
        let (one, two) = (status.waits(), status.waits());
        one.bytes(10);
        tokio::time::advance(Duration::from_secs(5)).await;
        two.bytes(1);
        one.bytes(20);
        assert_eq!(status.backlog(), Backlog { bytes: 21, age: Duration::from_secs(5) });
        // What goes on for ever is not old.
        one.left(20);
        assert_eq!(status.backlog(), Backlog { bytes: 21, age: Duration::ZERO });
        status.found(100, Duration::from_secs(70));
        assert_eq!(status.backlog(), Backlog { bytes: 121, age: Duration::from_secs(70) });
        assert!(!status.is_well());
        drop((one, two));
        status.found(0, Duration::ZERO);
        assert_eq!(status.backlog(), Backlog::default());
    }
}
