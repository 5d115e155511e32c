//! Who holds how much, and who goes first.
//!
//! Invariants: `used` is the sum over keys, a key's `used` the sum over its leases, and `idle` has exactly the leases
//! that hold something and are not busy, in the order in which they are revoked.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{QuotaExceeded, QuotaKey, QuotaLimits};

/// Order of revocation within a key: of no use yet, idle since, number.
type Rank = (bool, Instant, u64);

#[derive(Debug, Default)]
pub(super) struct Table {
    used: usize,
    /// Units of idle leases.
    idle: usize,
    next: u64,
    keys: HashMap<QuotaKey, Usage>,
    leases: HashMap<u64, Holder>,
}

/// What one key uses.
#[derive(Debug, Default)]
struct Usage {
    used: usize,
    idle_units: usize,
    leases: usize,
    idle: BTreeSet<Rank>,
}

/// One lease.
#[derive(Debug)]
struct Holder {
    key: QuotaKey,
    held: usize,
    busy: bool,
    protected: bool,
    since: Instant,
    revoked: CancellationToken,
}

impl Holder {
    const fn is_idle(&self) -> bool {
        !self.busy && self.held > 0
    }
}

impl Table {
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    pub(super) fn used_by(&self, key: &QuotaKey) -> usize {
        self.keys.get(key).map_or(0, |usage| usage.used)
    }

    pub(super) fn held(&self, id: u64) -> usize {
        self.leases.get(&id).map_or(0, |holder| holder.held)
    }

    pub(super) fn open(&mut self, key: QuotaKey, revoked: CancellationToken) -> u64 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let usage = self.keys.entry(key.clone()).or_default();
        usage.leases = usage.leases.saturating_add(1);
        let holder = Holder { key, held: 0, busy: false, protected: false, since: Instant::now(), revoked };
        self.leases.insert(id, holder);
        id
    }

    /// How many leases were revoked for it.
    pub(super) fn take(
        &mut self,
        id: u64,
        units: usize,
        limits: QuotaLimits,
    ) -> Result<usize, QuotaExceeded> {
        let Some(holder) = self.leases.get(&id).filter(|holder| !holder.revoked.is_cancelled()) else {
            return Err(QuotaExceeded::Revoked);
        };
        let key = holder.key.clone();
        // What it holds itself is not taken back for it.
        let own = if holder.is_idle() { holder.held } else { 0 };
        let usage = self.keys.get(&key);
        let (used, idle) = usage.map_or((0, 0), |usage| (usage.used, usage.idle_units));
        let over = used.saturating_add(units).saturating_sub(limits.per_key);
        if over > idle.saturating_sub(own) {
            return Err(QuotaExceeded::PerKey);
        }
        let over = self.used.saturating_add(units).saturating_sub(limits.total);
        if over > self.idle.saturating_sub(own) {
            return Err(QuotaExceeded::Total);
        }
        let mut revoked: usize = 0;
        while self.used_by(&key).saturating_add(units) > limits.per_key && self.revoke_of(&key, id) {
            revoked = revoked.saturating_add(1);
        }
        while self.used.saturating_add(units) > limits.total && self.revoke_one(Some(id)) {
            revoked = revoked.saturating_add(1);
        }
        self.change(id, |holder| {
            if holder.held == 0 {
                holder.since = Instant::now();
            }
            holder.held = holder.held.saturating_add(units);
        });
        Ok(revoked)
    }

    pub(super) fn give(&mut self, id: u64, units: usize) {
        self.change(id, |holder| holder.held = holder.held.saturating_sub(units));
    }

    pub(super) fn set_busy(&mut self, id: u64, busy: bool) {
        self.change(id, |holder| {
            if holder.busy && !busy {
                holder.since = Instant::now();
            }
            holder.busy = busy;
        });
    }

    pub(super) fn protect(&mut self, id: u64) {
        self.change(id, |holder| holder.protected = true);
    }

    pub(super) fn close(&mut self, id: u64) {
        self.change(id, |holder| holder.held = 0);
        let Some(holder) = self.leases.remove(&id) else { return };
        let Some(usage) = self.keys.get_mut(&holder.key) else { return };
        usage.leases = usage.leases.saturating_sub(1);
        if usage.leases == 0 {
            self.keys.remove(&holder.key);
        }
    }

    /// Revokes an idle lease of the key that uses most, but not `except`. False where there is none.
    pub(super) fn revoke_one(&mut self, except: Option<u64>) -> bool {
        let first = |usage: &Usage| usage.idle.iter().find(|(.., id)| Some(*id) != except).copied();
        let victims = self.keys.values().filter_map(|usage| Some((usage.used, first(usage)?)));
        let victim = victims
            .min_by_key(|(used, (protected, since, id))| (*protected, std::cmp::Reverse(*used), *since, *id));
        match victim {
            Some((_, (.., id))) => {
                self.revoke(id);
                true
            }
            None => false,
        }
    }

    fn revoke_of(&mut self, key: &QuotaKey, except: u64) -> bool {
        let idle = self.keys.get(key).map(|usage| &usage.idle);
        let victim = idle.and_then(|idle| idle.iter().find(|(.., id)| *id != except).copied());
        match victim {
            Some((.., id)) => {
                self.revoke(id);
                true
            }
            None => false,
        }
    }

    /// Its units count as free at once: its user is told, and ends without waiting for anything.
    fn revoke(&mut self, id: u64) {
        self.change(id, |holder| {
            holder.held = 0;
            holder.revoked.cancel();
        });
    }

    /// Changes a lease, and all sums with it.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Holder)) {
        let Some(holder) = self.leases.get_mut(&id) else { return };
        let Some(usage) = self.keys.get_mut(&holder.key) else { return };
        if holder.is_idle() {
            usage.idle.remove(&(holder.protected, holder.since, id));
            usage.idle_units = usage.idle_units.saturating_sub(holder.held);
            self.idle = self.idle.saturating_sub(holder.held);
        }
        usage.used = usage.used.saturating_sub(holder.held);
        self.used = self.used.saturating_sub(holder.held);
        change(holder);
        usage.used = usage.used.saturating_add(holder.held);
        self.used = self.used.saturating_add(holder.held);
        if holder.is_idle() {
            usage.idle.insert((holder.protected, holder.since, id));
            usage.idle_units = usage.idle_units.saturating_add(holder.held);
            self.idle = self.idle.saturating_add(holder.held);
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let held = |idle: bool| -> usize {
            self.leases.values().filter(|holder| !idle || holder.is_idle()).map(|holder| holder.held).sum()
        };
        assert_eq!((self.used, self.idle), (held(false), held(true)));
        for (key, usage) in &self.keys {
            let own = || self.leases.iter().filter(|(_, holder)| holder.key == *key);
            assert_eq!(usage.leases, own().count());
            assert_eq!(usage.used, own().map(|(_, holder)| holder.held).sum::<usize>());
            let idle = own().filter(|(_, holder)| holder.is_idle());
            let idle: BTreeSet<Rank> =
                idle.map(|(id, holder)| (holder.protected, holder.since, *id)).collect();
            assert_eq!(usage.idle, idle);
        }
        assert!(self.leases.values().all(|holder| self.keys.contains_key(&holder.key)));
    }
}
