//! Metrics of admission.

use std::time::Duration;

use podwitness_runtime::metrics::SharedRegistry;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};

use super::decide::Verdict;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Labels {
    decision: &'static str,
    reason: &'static str,
}

/// Counts verdicts and measures how long they took.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    reviews: Family<Labels, Counter>,
    malformed: Counter,
    duration: Histogram,
}

impl Metrics {
    pub(super) fn register(registry: &SharedRegistry) -> Self {
        let buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];
        let metrics = Self {
            reviews: Family::default(),
            malformed: Counter::default(),
            duration: Histogram::new(buckets),
        };
        registry.with(|registry| {
            let help = "Pods and namespaces by what became of them, and why";
            registry.register("podwitness_admission_reviews", help, metrics.reviews.clone());
            let help = "Requests that were no reviews";
            registry.register("podwitness_admission_malformed_requests", help, metrics.malformed.clone());
            let help = "Time from the body of a review to its answer, in seconds";
            registry.register("podwitness_admission_duration_seconds", help, metrics.duration.clone());
        });
        metrics
    }

    pub(super) fn judged(&self, verdict: &Verdict, took: Duration) {
        let labels = Labels { decision: verdict.as_str(), reason: verdict.reason() };
        self.reviews.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn malformed(&self) {
        self.malformed.inc();
    }
}
