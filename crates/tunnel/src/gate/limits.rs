//! The bounds of a gate.

use std::time::Duration;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Times a second, in the long run.
    pub per_second: f64,
    /// Times at once.
    pub burst: f64,
}

/// The bounds of a gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProvisionalLimits {
    /// Provisional peers at once.
    pub max: usize,
    /// How long a peer may remain provisional.
    pub ttl: Duration,
    /// Unknown keys from one source: an IPv4 address, or a /64 of IPv6. A node's pods may share one.
    pub per_source: Rate,
    /// Unknown keys from all sources.
    pub total: Rate,
    /// Sources whose rate is kept apart; those beyond share one.
    pub max_sources: usize,
    /// Admitted peers at once.
    pub max_admitted: usize,
    /// How long an admitted peer may be silent.
    pub idle: Duration,
}

impl Default for ProvisionalLimits {
    fn default() -> Self {
        Self {
            max: 1024,
            ttl: Duration::from_secs(10),
            per_source: Rate { per_second: 20.0, burst: 256.0 },
            total: Rate { per_second: 500.0, burst: 1000.0 },
            max_sources: 4096,
            max_admitted: 20_000,
            idle: Duration::from_secs(15 * 60),
        }
    }
}
