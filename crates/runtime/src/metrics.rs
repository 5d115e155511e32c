//! The registry of metrics that a program shares with its rooms. Label by reason or result, never by pod: every label
//! value stays in memory for the life of the process.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::quota::QuotaMetrics;

/// A registry behind a lock, because rooms register their metrics at different times. Clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct SharedRegistry(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    registry: Mutex<Registry>,
    connections: OnceLock<ConnectionMetrics>,
}

/// What all listeners of a program count.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    open: Family<Listener, Gauge>,
    ended: Family<Listener, Counter>,
    refused: Family<Refused, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Listener {
    listener: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Refused {
    listener: &'static str,
    reason: &'static str,
}

impl SharedRegistry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers metrics; names get no prefix of ours, so begin them with `podwitness_`.
    pub fn with<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        // Registration keeps no invariant that a panic elsewhere could have broken half-way.
        register(&mut self.0.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What listeners count, registered when the first one asks.
    #[must_use]
    pub fn connections(&self) -> ConnectionMetrics {
        self.0.connections.get_or_init(|| self.with(ConnectionMetrics::register)).clone()
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// Where a metric cannot be formatted.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        self.with(|registry| text::encode(&mut text, registry))?;
        Ok(text)
    }
}

impl ConnectionMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("podwitness_connections", "Open connections by listener", metrics.open.clone());
        registry.register(
            "podwitness_connections_evicted",
            "Idle connections that were ended to make room for others, by listener",
            metrics.ended.clone(),
        );
        registry.register(
            "podwitness_connections_refused",
            "Connections that were closed at once, by listener and by the cap that was reached: source or total",
            metrics.refused.clone(),
        );
        metrics
    }

    /// What one listener counts.
    #[must_use]
    pub fn listener(&self, listener: &'static str) -> QuotaMetrics {
        let refused = |reason| self.refused.get_or_create(&Refused { listener, reason }).clone();
        QuotaMetrics {
            used: self.open.get_or_create(&Listener { listener }).clone(),
            revoked: self.ended.get_or_create(&Listener { listener }).clone(),
            refused_per_key: refused("source"),
            refused_total: refused("total"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_their_metrics_and_are_told_apart_by_a_label() {
        let registry = SharedRegistry::new();
        registry.connections().listener("admin").used.set(3);
        registry.connections().listener("health").revoked.inc();
        let text = registry.encode().unwrap();
        assert_eq!(text.matches("# TYPE podwitness_connections gauge").count(), 1, "{text}");
        for line in [
            "podwitness_connections{listener=\"admin\"} 3",
            "podwitness_connections_evicted_total{listener=\"health\"} 1",
            "podwitness_connections_refused_total{listener=\"admin\",reason=\"source\"} 0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
