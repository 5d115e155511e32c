//! What is counted of sessions, once each, when they are over. Labels are kinds and outcomes, never names.

use std::sync::Arc;

use podwitness_core::outcome::{End, Outcome};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

use crate::journal::Budgets;

/// What became of what had been recorded.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub(crate) enum Shipped {
    /// All of it is acknowledged.
    Complete,
    /// The rest of it was given up.
    Lost,
    /// The session never started.
    Nothing,
    /// No grant asks for it after all.
    Unwanted,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByOutcome {
    outcome: &'static str,
    end: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByShipped {
    result: Shipped,
}

/// The counters of all sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    live: Gauge,
    ended: Family<ByOutcome, Counter>,
    output: Counter,
    lost: Counter,
    shipped: Family<ByShipped, Counter>,
    broken: Counter,
    unacknowledged: Counter,
}

/// What one session is counted in.
#[derive(Clone, Debug)]
pub(crate) struct Ledger(Arc<Counters>);

impl Counters {
    pub(super) fn register(registry: &mut Registry, budgets: &Budgets) -> Self {
        let counters = Self::default();
        let Self { live, ended, output, lost, shipped, broken, unacknowledged } = counters.clone();
        let registry = registry.sub_registry_with_prefix("podwitness_session");
        registry.register("live", "Recorded sessions under way", live);
        registry.register("ended", "Sessions that were to be recorded, by outcome and end", ended);
        registry.register("output_bytes", "Output that was shown in recorded sessions", output);
        registry.register("lost_bytes", "Output that was shown and is not recorded", lost);
        registry.register("recordings", "Recordings by what became of them", shipped);
        registry.register("broken_uploads", "Uploads that broke off", broken);
        registry.register(
            "unacknowledged_bytes",
            "Bytes of recordings that went to recorders of version 1, which acknowledge nothing",
            unacknowledged,
        );
        budgets.incidents.register(registry);
        registry.register_collector(Box::new(Held(budgets.clone())));
        counters
    }

    /// A session was refused: it could not be recorded.
    pub(super) fn refused(&self) {
        self.count(Outcome::Refused, End::Never);
    }

    fn count(&self, outcome: Outcome, end: End) {
        let labels = ByOutcome { outcome: outcome.as_str(), end: end.as_str() };
        self.ended.get_or_create(&labels).inc();
    }

    pub(super) fn ledger(&self) -> Ledger {
        Ledger(Arc::new(self.clone()))
    }
}

impl Ledger {
    /// A session started.
    pub(super) fn started(&self) {
        self.0.live.inc();
    }

    /// It is over.
    pub(super) fn ended(&self) {
        self.0.live.dec();
    }

    /// It was refused after all.
    pub(super) fn refused(&self) {
        self.0.refused();
    }

    /// It is known what became of it, with so much output shown, and so much of it not recorded.
    pub(super) fn closed(&self, end: End, outcome: Outcome, output: u64, lost: u64) {
        self.0.count(outcome, end);
        self.0.output.inc_by(output);
        self.0.lost.inc_by(lost);
    }

    /// A recording was shipped, or not.
    pub(crate) fn shipped(&self, result: Shipped) {
        self.0.shipped.get_or_create(&ByShipped { result }).inc();
    }

    /// So much of a recording went to a recorder that acknowledges nothing.
    pub(crate) fn unacknowledged(&self, bytes: u64) {
        self.0.unacknowledged.inc_by(bytes);
    }

    /// An upload broke off.
    pub(crate) fn part_lost(&self) {
        self.0.broken.inc();
    }
}

/// What journals hold now.
#[derive(Debug)]
struct Held(Budgets);

impl Collector for Held {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauges = [
            ("memory_bytes", "Memory that recordings hold", &self.0.memory),
            ("spool_bytes", "Disk that recordings hold", &self.0.disk),
        ];
        for (name, help, budget) in gauges {
            let gauge = ConstGauge::new(budget.used());
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
