//! Who reaches the limits of one address: by address, for as many as a metric can bear.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Addresses with series of their own; those of all further ones are called `other`.
const MAX_ADDRESSES: usize = 64;

/// Refusals by address. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Limited {
    refused: Family<Labels, Counter>,
    known: Arc<Mutex<HashSet<IpAddr>>>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Labels {
    address: String,
    reason: &'static str,
}

impl Limited {
    pub(super) fn add_to(&self, registry: &mut Registry) {
        registry.register(
            "podwitness_recorder_limited",
            "Requests and connections that were refused because their address has reached a limit, by address (other: above 64 of them) and reason",
            self.refused.clone(),
        );
    }

    /// Counts, and logs an address at its first refusal.
    pub(super) fn note(&self, from: IpAddr, reason: &'static str) {
        let from = from.to_canonical();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_named, is_new) = (known.contains(&from), known.len() < MAX_ADDRESSES);
        if !is_named && is_new {
            known.insert(from);
        }
        drop(known);
        if !is_named && is_new {
            tracing::warn!(%from, reason, "an address has reached a limit; what it sends is refused until it has less");
        }
        let address = if is_named || is_new { from.to_string() } else { "other".to_owned() };
        self.refused.get_or_create(&Labels { address, reason }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_named_and_series_are_bounded() {
        let limited = Limited::default();
        for n in 0..1000_u16 {
            limited.note([10, 0, (n >> 8) as u8, n as u8].into(), "rate");
        }
        limited.note("::ffff:10.0.0.1".parse().unwrap(), "rate");
        let count = |address: &str| {
            let labels = Labels { address: address.to_owned(), reason: "rate" };
            limited.refused.get_or_create(&labels).get()
        };
        assert_eq!((count("10.0.0.1"), count("other")), (2, 1000 - 64));
    }
}
