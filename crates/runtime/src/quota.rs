//! A resource that many share, such as connections or bytes: a cap on all of it, a cap for each key, and an order in
//! which it is taken back.
//!
//! Each user of the resource has a [`QuotaLease`]. A lease is busy while its work does not depend on the other side, and
//! idle otherwise. Where a cap is reached, idle leases are revoked until there is room: of the same key where it is
//! the key's cap, else of the key that uses most. Among those, leases that have not been of use yet
//! ([`QuotaLease::protect`]) go first, then the one that is idle for the longest time. Where too little of it is idle, the
//! request is refused and nothing is revoked.
//!
//! So a key cannot keep others out by holding what it has, and a key that asks without end takes it from itself.

mod table;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use table::Table;

/// Caps of a resource, in its units.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QuotaLimits {
    /// Units of all keys together.
    pub total: usize,
    /// Units of one key.
    pub per_key: usize,
}

/// To whom units are counted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum QuotaKey {
    /// An address from which connections come.
    Source(IpAddr),
    /// A name that was proven, such as the uid of a pod.
    Name(Arc<str>),
}

/// Why units are refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum QuotaExceeded {
    /// The key has its share, and too little of it is idle.
    #[error("the sender has reached its share")]
    PerKey,
    /// All of the resource is in use.
    #[error("everything is in use")]
    Total,
    /// The lease was revoked to make room for another.
    #[error("the memory or connection was given to another sender")]
    Revoked,
}

/// What a quota counts. The default counts without being shown.
#[derive(Clone, Debug, Default)]
pub struct QuotaMetrics {
    /// Units in use.
    pub used: Gauge,
    /// Leases that were revoked.
    pub revoked: Counter,
    /// Requests refused because of the key's share.
    pub refused_per_key: Counter,
    /// Requests refused because all is in use.
    pub refused_total: Counter,
}

/// A shared resource. Clones are the same resource.
#[derive(Clone, Debug)]
pub struct Quota {
    limits: QuotaLimits,
    table: Arc<Mutex<Table>>,
    exhausted: Arc<Notify>,
    metrics: QuotaMetrics,
}

/// Units that one user of a quota holds, until it is dropped.
#[derive(Debug)]
#[must_use = "what is dropped is given back"]
pub struct QuotaLease {
    quota: Quota,
    id: u64,
}

impl QuotaKey {
    /// The key of a source address. An IPv4 address is the same in both of its forms, and all of a machine's loopback
    /// addresses are one, because a process that has one of them has all.
    #[must_use]
    pub fn source(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Source(Ipv4Addr::LOCALHOST.into()),
            address => Self::Source(address),
        }
    }
}

impl Quota {
    /// Nothing is in use yet.
    #[must_use]
    pub fn new(limits: QuotaLimits, metrics: QuotaMetrics) -> Self {
        Self { limits, table: Arc::default(), exhausted: Arc::default(), metrics }
    }

    /// A lease of `key` that holds nothing yet and is idle. `revoked` is cancelled when it is revoked.
    pub fn open(&self, key: QuotaKey, revoked: CancellationToken) -> QuotaLease {
        let id = self.lock().open(key, revoked);
        QuotaLease { quota: self.clone(), id }
    }

    /// Units that `key` can still take without a revocation.
    #[must_use]
    pub fn free(&self, key: &QuotaKey) -> usize {
        let table = self.lock();
        let of_key = self.limits.per_key.saturating_sub(table.used_by(key));
        of_key.min(self.limits.total.saturating_sub(table.used()))
    }

    /// Units in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.lock().used()
    }

    /// Revokes one idle lease, for want of something that no cap counts; false where none is idle.
    pub fn shed(&self) -> bool {
        let mut table = self.lock();
        let shed = table.revoke_one(None);
        self.show(&table, usize::from(shed));
        shed
    }

    /// Completes once a cap was reached, so that a lease was revoked or units were refused: at once, where that happened
    /// since it completed last. For one at a time who waits.
    pub async fn exhausted(&self) {
        self.exhausted.notified().await;
    }

    fn show(&self, table: &Table, revoked: usize) {
        if revoked > 0 {
            self.exhausted.notify_one();
        }
        self.metrics.revoked.inc_by(revoked as u64);
        self.metrics.used.set(i64::try_from(table.used()).unwrap_or(i64::MAX));
    }

    /// Each call of the table leaves it whole, so that a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QuotaLease {
    /// Takes `units` more.
    ///
    /// # Errors
    /// Where a cap is reached and too little is idle, or this lease was revoked.
    pub fn take(&self, units: usize) -> Result<(), QuotaExceeded> {
        let mut table = self.quota.lock();
        let taken = table.take(self.id, units, self.quota.limits);
        let refused = match taken {
            Ok(revoked) => {
                self.quota.show(&table, revoked);
                return Ok(());
            }
            Err(refused) => refused,
        };
        match refused {
            QuotaExceeded::PerKey => self.quota.metrics.refused_per_key.inc(),
            QuotaExceeded::Total => self.quota.metrics.refused_total.inc(),
            QuotaExceeded::Revoked => return Err(refused),
        };
        self.quota.exhausted.notify_one();
        Err(refused)
    }

    /// Gives `units` back.
    pub fn give(&self, units: usize) {
        let mut table = self.quota.lock();
        table.give(self.id, units);
        self.quota.show(&table, 0);
    }

    /// Holds exactly `units` from now on.
    ///
    /// # Errors
    /// As [`QuotaLease::take`], where that is more than before; it then holds what it held.
    pub fn resize(&self, units: usize) -> Result<(), QuotaExceeded> {
        let held = self.held();
        match units.checked_sub(held) {
            Some(0) => Ok(()),
            Some(more) => self.take(more),
            None => {
                self.give(held.saturating_sub(units));
                Ok(())
            }
        }
    }

    /// Units that it holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.quota.lock().held(self.id)
    }

    /// BusyGuard leases are not revoked. One that is no longer busy is idle from now on.
    pub fn set_busy(&self, busy: bool) {
        self.quota.lock().set_busy(self.id, busy);
    }

    /// It has been of use: leases that have not are revoked before it.
    pub fn protect(&self) {
        self.quota.lock().protect(self.id);
    }
}

impl Drop for QuotaLease {
    fn drop(&mut self) {
        let mut table = self.quota.lock();
        table.close(self.id);
        self.quota.show(&table, 0);
    }
}

#[cfg(test)]
mod tests;
