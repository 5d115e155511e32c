//! What goes wrong with recordings that wait: counted, and told to people.

use podwitness_core::control::Notice;
use prometheus_client::{metrics::counter::Counter, registry::Registry};

use crate::notices::Notices;

/// Takes what goes wrong. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Incidents {
    notices: Option<Notices>,
    tampered: Counter,
    full: Counter,
    too_many: Counter,
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
        registry.register(
            "full_shares",
            "Recordings and journals of events that used up their share of spool or memory and have gaps",
            self.full.clone(),
        );
        registry.register(
            "over_cap",
            "Sessions that were not recorded, or refused, because too many recordings were open or waiting",
            self.too_many.clone(),
        );
    }

    /// So many bytes of the lines of a recording are not what was put into the spool.
    pub(super) fn tampered(&self, session: &str, bytes: u64) {
        tracing::warn!(session, bytes, "what waited in the spool was changed or removed by somebody else");
        self.tampered.inc();
        self.give(Notice::SpoolTampered);
    }

    /// A journal has used up its share, and something is left out of it.
    pub(super) fn full(&self) {
        tracing::warn!(
            "a recording has used up its share of the spool; what comes is left out until a recorder takes it"
        );
        self.full.inc();
        self.give(Notice::SpoolShareFull);
    }

    /// A recording finds no place among those that are open or wait.
    pub(crate) fn too_many(&self) {
        self.too_many.inc();
        self.give(Notice::TooManyRecordings);
    }

    /// API events find no room. They are counted where they come from.
    pub(crate) fn events_dropped(&self) {
        self.give(Notice::EventsDropped);
    }

    /// How many there were of that.
    #[cfg(test)]
    pub(super) fn count_full(&self) -> u64 {
        self.full.get()
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

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_goes_wrong_is_counted_each_time_and_said_once_in_a_while() {
        let (to, mut heard) = mpsc::channel(8);
        let incidents = Incidents::new(Notices::new(to));
        for _ in 0..3 {
            incidents.tampered("01J", 7);
            incidents.full();
            incidents.too_many();
            incidents.events_dropped();
        }
        assert_eq!(
            [&incidents.tampered, &incidents.full, &incidents.too_many].map(|counter| counter.get()),
            [3; 3]
        );
        drop(incidents);
        let mut all = Vec::new();
        while let Some(notice) = heard.recv().await {
            all.push(notice);
        }
        let expected =
            [Notice::SpoolTampered, Notice::SpoolShareFull, Notice::TooManyRecordings, Notice::EventsDropped];
        assert_eq!(all, expected);
    }
}
