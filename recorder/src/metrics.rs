//! Metrics of ingest. Labels are outcomes and reasons, and addresses of a few that have reached their limits.

mod limited;
pub mod peers;

use std::{net::IpAddr, sync::Arc, time::Duration};

use podwitness_core::control::Taking;
use podwitness_runtime::{
    connection::RefusalHook,
    metrics::{ConnectionMetrics, SharedRegistry},
    quota::QuotaMetrics,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::store::{SpaceReport, Store, meta::Outcome};
use limited::Limited;

/// Handles of all metrics; clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    open: Gauge,
    sessions: Family<OutcomeLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    bytes: Counter,
    commits: Histogram,
    events: Counter,
    event_bytes: Counter,
    event_commits: Histogram,
    state: Family<StateLabel, Gauge>,
    connections: ConnectionMetrics,
    memory: Family<MemoryLabel, Gauge>,
    evicted: Counter,
    limited: Limited,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct MemoryLabel {
    holds: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReasonLabel {
    reason: &'static str,
}

/// Counts a session as open until it is dropped.
#[derive(Debug)]
#[must_use = "the session counts as open while this lives"]
pub(crate) struct Open(Gauge);

impl Metrics {
    /// Registers all metrics, the free space of `store` among them.
    #[must_use]
    pub fn register(registry: &SharedRegistry, store: &Arc<Store>) -> Self {
        let metrics = Self {
            open: Gauge::default(),
            sessions: Family::default(),
            refused: Family::default(),
            bytes: Counter::default(),
            commits: Histogram::new(exponential_buckets(0.0005, 2.0, 15)),
            events: Counter::default(),
            event_bytes: Counter::default(),
            event_commits: Histogram::new(exponential_buckets(0.0005, 2.0, 15)),
            state: Family::default(),
            connections: registry.connections(),
            memory: Family::default(),
            evicted: Counter::default(),
            limited: Limited::default(),
        };
        metrics.state(Taking::Accepting);
        registry.with(|registry| {
            metrics.add_to(registry);
            registry.register(
                "podwitness_recorder_state",
                "1 for what the recorder takes: accepting, degraded (accepting, but see its log), limiting (refusing pods or namespaces that have more than their share) or refusing",
                metrics.state.clone(),
            );
            registry.register_collector(Box::new(FreeSpace(Arc::clone(store))));
            registry.register_collector(Box::new(Quarantined(Arc::clone(store))));
        });
        metrics
    }

    fn add_to(&self, registry: &mut Registry) {
        registry.register("podwitness_recorder_sessions_open", "Uploads that last", self.open.clone());
        registry.register(
            "podwitness_recorder_sessions",
            "Uploads that ended, by outcome",
            self.sessions.clone(),
        );
        registry.register(
            "podwitness_recorder_refused",
            "Requests and connections that were not served, by reason",
            self.refused.clone(),
        );
        self.limited.add_to(registry);
        registry.register_with_unit(
            "podwitness_recorder_memory",
            "Memory by what it holds: unfinished lines and frames, HTTP/2 windows, descriptions of sessions",
            Unit::Bytes,
            self.memory.clone(),
        );
        registry.register(
            "podwitness_recorder_unfinished_evicted",
            "Uploads that were ended because others needed the memory of their unfinished lines",
            self.evicted.clone(),
        );
        registry.register_with_unit(
            "podwitness_recorder_stored",
            "Bytes of recordings made durable",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register_with_unit(
            "podwitness_recorder_commit",
            "Time from the begin of a commit until its bytes are durable",
            Unit::Seconds,
            self.commits.clone(),
        );
        registry.register("podwitness_recorder_events", "API events made durable", self.events.clone());
        registry.register_with_unit(
            "podwitness_recorder_events_stored",
            "Bytes of API events made durable, before compression",
            Unit::Bytes,
            self.event_bytes.clone(),
        );
        registry.register_with_unit(
            "podwitness_recorder_events_commit",
            "Time from the begin of a commit of API events until they are durable",
            Unit::Seconds,
            self.event_commits.clone(),
        );
    }

    /// What the listener of this name counts.
    pub(crate) fn listener(&self, name: &'static str) -> QuotaMetrics {
        self.connections.listener(name)
    }

    /// Memory of lines and frames that are not whole.
    pub(crate) fn unfinished(&self) -> QuotaMetrics {
        QuotaMetrics { revoked: self.evicted.clone(), ..self.memory("unfinished") }
    }

    /// Memory of HTTP/2 windows.
    pub(crate) fn windows(&self) -> QuotaMetrics {
        self.memory("windows")
    }

    /// Memory of what sessions are described by.
    pub(crate) fn described(&self) -> QuotaMetrics {
        self.memory("described")
    }

    fn memory(&self, holds: &'static str) -> QuotaMetrics {
        QuotaMetrics {
            used: self.memory.get_or_create(&MemoryLabel { holds }).clone(),
            ..QuotaMetrics::default()
        }
    }

    /// A session begins.
    pub(crate) fn open(&self) -> Open {
        self.open.inc();
        Open(self.open.clone())
    }

    /// A session ended.
    pub(crate) fn ended(&self, outcome: Outcome) {
        self.sessions.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
    }

    /// Something was not served.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A sender has reached one of its limits.
    pub(crate) fn limited(&self, from: IpAddr, reason: &'static str) {
        self.refused(reason);
        self.limited.note(from, reason);
    }

    /// The same of connections that are refused when they are accepted.
    pub(crate) fn limited_connections(&self) -> RefusalHook {
        let metrics = self.clone();
        RefusalHook::new(move |from| metrics.limited(from, "connections"))
    }

    /// Bytes became durable.
    pub(crate) fn committed(&self, bytes: u64, took: Duration) {
        self.bytes.inc_by(bytes);
        self.commits.observe(took.as_secs_f64());
    }

    /// What the recorder takes.
    pub(crate) fn state(&self, state: Taking) {
        for one in Taking::ALL {
            let label = StateLabel { state: one.as_str() };
            self.state.get_or_create(&label).set(i64::from(one == state));
        }
    }

    /// Events became durable.
    pub(crate) fn events_stored(&self, events: u64, bytes: u64, took: Duration) {
        self.events.inc_by(events);
        self.event_bytes.inc_by(bytes);
        self.event_commits.observe(took.as_secs_f64());
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// How many files were moved aside.
#[derive(Debug)]
struct Quarantined(Arc<Store>);

impl Collector for Quarantined {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let count = ConstCounter::new(self.0.quarantine().count());
        count.encode(encoder.encode_descriptor(
            "podwitness_recorder_quarantined",
            "Files that cannot be read and were moved aside",
            None,
            count.metric_type(),
        )?)
    }
}

/// Asks how the volume stands whenever metrics are read.
#[derive(Debug)]
struct FreeSpace(Arc<Store>);

impl Collector for FreeSpace {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let SpaceReport { free, left, stored, above_share } = self.0.space().report();
        let bytes = Some(&Unit::Bytes);
        let above_share = u64::try_from(above_share).unwrap_or(u64::MAX);
        for (name, help, unit, value) in [
            ("volume_free", "Bytes free on the file system of recordings", bytes, free),
            ("volume_left", "Bytes that may be written until everything is refused", bytes, left),
            ("volume_used", "Bytes of everything that lies on the volume of recordings", bytes, stored),
            (
                "owners_above_share",
                "Namespaces and pods that are refused because they have more than their share",
                None,
                above_share,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let name = format!("podwitness_recorder_{name}");
            let descriptor = encoder.encode_descriptor(&name, help, unit, gauge.metric_type())?;
            gauge.encode(descriptor)?;
        }
        Ok(())
    }
}
