//! A semaphore with a cap on all permits and one for each key, for what is given back without the help of clients.
//!
//! A request that finds no permits waits in line, first within its key and then among all, so that a key that asks for
//! much waits for itself. Where a client decides when something is given back, use [`crate::quota`] instead: it revokes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::quota::{QuotaKey, QuotaLimits};

/// Keys from which on those that are not in use are forgotten.
const MANY: usize = 1024;

/// The permits of all keys.
#[derive(Debug)]
pub struct KeyedSemaphore {
    all: Arc<Semaphore>,
    limits: QuotaLimits,
    keys: Mutex<HashMap<QuotaKey, Weak<Semaphore>>>,
}

/// What one key may take. Clones share it.
#[derive(Clone, Debug)]
pub struct KeyShare {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
    most: usize,
}

/// Permits that are taken until this is dropped.
#[derive(Debug)]
#[must_use = "what is dropped is given back"]
pub struct SharePermit {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl KeyedSemaphore {
    /// Nothing is taken yet.
    #[must_use]
    pub fn new(limits: QuotaLimits) -> Self {
        Self { all: Arc::new(Semaphore::new(limits.total)), limits, keys: Mutex::default() }
    }

    /// The share of `key`.
    #[must_use]
    pub fn of(&self, key: QuotaKey) -> KeyShare {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MANY {
            keys.retain(|_, share| share.strong_count() > 0);
        }
        let slot = keys.entry(key).or_default();
        let own = slot.upgrade().unwrap_or_else(|| Arc::new(Semaphore::new(self.limits.per_key)));
        *slot = Arc::downgrade(&own);
        KeyShare { all: Arc::clone(&self.all), own, most: self.limits.per_key }
    }

    /// Permits that are not taken.
    #[must_use]
    pub fn free(&self) -> usize {
        self.all.available_permits()
    }
}

impl KeyShare {
    /// The same as [`KeyShare::take`] where nothing has to be waited for.
    #[must_use]
    pub fn try_take(&self, permits: usize) -> Option<SharePermit> {
        let permits = u32::try_from(permits.min(self.most)).ok()?;
        let own = Arc::clone(&self.own).try_acquire_many_owned(permits).ok()?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(permits).ok()?;
        Some(SharePermit { _own: own, _all: all })
    }

    /// Waits for `permits`, or for the whole share where it is less. `None` never happens: the semaphore is never closed.
    pub async fn take(&self, permits: usize) -> Option<SharePermit> {
        let permits = u32::try_from(permits.min(self.most)).ok()?;
        // The key's own first: a task that waits for those holds nothing that other keys wait for.
        let own = Arc::clone(&self.own).acquire_many_owned(permits).await.ok()?;
        let all = Arc::clone(&self.all).acquire_many_owned(permits).await.ok()?;
        Some(SharePermit { _own: own, _all: all })
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

    use tokio::time::timeout;

    use super::*;

    fn key(address: [u8; 4]) -> QuotaKey {
        QuotaKey::source(IpAddr::from(address))
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_for_itself_and_others_do_not() {
        let shares = KeyedSemaphore::new(QuotaLimits { total: 100, per_key: 40 });
        let (first, again) = (shares.of(key([10, 0, 0, 1])), shares.of(key([10, 0, 0, 1])));
        let taken = first.take(40).await.unwrap();
        assert!(again.try_take(1).is_none());
        assert!(timeout(Duration::from_secs(60), again.take(1)).await.is_err());
        let other = shares.of(key([10, 0, 0, 2])).take(40).await.unwrap();
        drop(taken);
        assert!(again.take(1000).await.is_some(), "what is more than the share takes the share");
        drop(other);
        assert_eq!(shares.free(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_are_not_in_use_are_forgotten() {
        let shares = KeyedSemaphore::new(QuotaLimits { total: 100, per_key: 40 });
        let _kept = shares.of(key([10, 9, 9, 9]));
        for n in 0..5000_u16 {
            let [high, low] = n.to_be_bytes();
            drop(shares.of(key([10, 0, high, low])));
        }
        assert!(shares.keys.lock().unwrap().len() <= MANY + 1);
    }
}
