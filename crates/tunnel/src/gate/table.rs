//! The peers of a gate and how long each stays. Knows no device and no clock but the times it is given.

use std::{collections::HashMap, net::Ipv6Addr, time::Duration};

use tokio::time::Instant;

use super::{GateSizes, ProvisionalLimits};
use crate::{PublicKey, key::address};

/// A peer that has sent no data gives way in a full table after this long: several round trips.
const UNPROVEN_GRACE: Duration = Duration::from_secs(1);
/// One that has sent data but was not admitted: time for a connection and a request.
const PROVEN_GRACE: Duration = Duration::from_secs(3);

/// What a peer may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// Nothing but send its assertion.
    Provisional,
    /// Record.
    Admitted {
        /// Until then.
        until: Instant,
    },
}

/// A peer that cannot be admitted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AdmitError {
    /// It is not there, or not any more.
    #[error("no such peer is connected; its time to send an assertion may be over")]
    Unknown,
    /// There are too many.
    #[error("this recorder has as many peers as it may have")]
    Full,
}

pub(super) struct Table {
    limits: ProvisionalLimits,
    provisional: HashMap<PublicKey, Provisional>,
    admitted: HashMap<PublicKey, Admitted>,
    addresses: HashMap<Ipv6Addr, PublicKey>,
}

struct Provisional {
    since: Instant,
    /// Whether data came in its session: only then does it hold the key for certain.
    proven: bool,
}

struct Admitted {
    until: Instant,
    heard: Instant,
}

/// The table is full of peers that cannot give way yet.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Full;

// === impl Table ===

impl Table {
    pub(super) fn new(limits: ProvisionalLimits) -> Self {
        Self { limits, provisional: HashMap::new(), admitted: HashMap::new(), addresses: HashMap::new() }
    }

    pub(super) fn sizes(&self) -> GateSizes {
        GateSizes { provisional: self.provisional.len(), admitted: self.admitted.len() }
    }

    /// Whether half of the provisional places are taken.
    pub(super) fn is_crowded(&self) -> bool {
        self.provisional.len() * 2 >= self.limits.max
    }

    pub(super) fn find(&self, address: Ipv6Addr) -> Option<(PublicKey, Admission)> {
        let key = *self.addresses.get(&address)?;
        let admission = self
            .admitted
            .get(&key)
            .map_or(Admission::Provisional, |peer| Admission::Admitted { until: peer.until });
        Some((key, admission))
    }

    /// Adds an unknown key provisionally; the peer that gives way, if one has to.
    pub(super) fn add(&mut self, key: PublicKey, now: Instant) -> Result<Option<PublicKey>, Full> {
        let gone = if self.provisional.len() >= self.limits.max {
            Some(self.that_gives_way(now).ok_or(Full)?)
        } else {
            None
        };
        if let Some(gone) = &gone {
            self.remove(gone);
        }
        self.provisional.insert(key, Provisional { since: now, proven: false });
        self.addresses.insert(address(&key), key);
        Ok(gone)
    }

    /// Notes that something came in the session of the peer.
    pub(super) fn heard(&mut self, key: &PublicKey, now: Instant) {
        if let Some(peer) = self.admitted.get_mut(key) {
            peer.heard = now;
        } else if let Some(peer) = self.provisional.get_mut(key) {
            peer.proven = true;
        }
    }

    pub(super) fn admit(&mut self, key: &PublicKey, until: Instant, now: Instant) -> Result<(), AdmitError> {
        if let Some(peer) = self.admitted.get_mut(key) {
            peer.until = until;
            return Ok(());
        }
        if !self.provisional.contains_key(key) {
            return Err(AdmitError::Unknown);
        }
        if self.admitted.len() >= self.limits.max_admitted {
            return Err(AdmitError::Full);
        }
        self.provisional.remove(key);
        self.admitted.insert(*key, Admitted { until, heard: now });
        Ok(())
    }

    /// Removes the peers whose time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<PublicKey> {
        let (ttl, idle) = (self.limits.ttl, self.limits.idle);
        let unwanted = self.provisional.iter().filter(|(_, peer)| age(peer.since, now) >= ttl);
        let over = self.admitted.iter().filter(|(_, peer)| now >= peer.until || age(peer.heard, now) >= idle);
        let gone: Vec<_> = unwanted.map(|(key, _)| *key).chain(over.map(|(key, _)| *key)).collect();
        for key in &gone {
            self.remove(key);
        }
        gone
    }

    fn remove(&mut self, key: &PublicKey) {
        self.provisional.remove(key);
        self.admitted.remove(key);
        self.addresses.remove(&address(key));
    }

    /// Of the peers past their grace, the oldest that is unproven, else the oldest.
    fn that_gives_way(&self, now: Instant) -> Option<PublicKey> {
        self.provisional
            .iter()
            .filter(|(_, peer)| {
                age(peer.since, now) >= if peer.proven { PROVEN_GRACE } else { UNPROVEN_GRACE }
            })
            .min_by_key(|(_, peer)| (peer.proven, peer.since))
            .map(|(key, _)| *key)
    }
}

fn age(since: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(since)
}

#[cfg(test)]
mod tests;
