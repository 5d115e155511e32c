//! The registry of metrics that a program shares with its rooms. Label by reason or result, never by pod: every label
//! value stays in memory for the life of the process.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{encoding::text, registry::Registry};

/// A registry behind a lock, because rooms register their metrics at different times. Clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct SharedRegistry(Arc<Mutex<Registry>>);

impl SharedRegistry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers metrics; names get no prefix of ours, so begin them with `podwitness_`.
    pub fn with<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        // Registration keeps no invariant that a panic elsewhere could have broken half-way.
        register(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
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
