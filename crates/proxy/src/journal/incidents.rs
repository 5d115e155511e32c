//! What goes wrong with recordings that wait: counted, and told to people.

use podwitness_core::control::Notice;
use prometheus_client::{metrics::counter::Counter, registry::Registry};

use crate::notices::Notices;

/// Takes what goes wrong. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Incidents {
    notices: Option<Notices>,
    tampered: Counter,
}

impl Incidents {
    pub(crate) fn new(notices: Notices) -> Self {
        Self { notices: Some(notices), ..Self::default() }
    }

    /// Registers the counters among those of sessions.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tampered",
            "Stretches of waiting recordings that were changed or removed in the spool",
            self.tampered.clone(),
        );
    }

    /// So many bytes of the lines of a recording are not what was put into the spool.
    pub(super) fn tampered(&self, session: &str, bytes: u64) {
        tracing::warn!(session, bytes, "what waited in the spool was changed or removed by somebody else");
        self.tampered.inc();
        self.give(Notice::SpoolTampered);
    }

    /// How often that was so.
    #[cfg(test)]
    pub(super) fn count_tampered(&self) -> u64 {
        self.tampered.get()
    }

    fn give(&self, notice: Notice) {
        if let Some(notices) = &self.notices {
            notices.give(notice);
        }
    }
}
