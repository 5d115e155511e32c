//! Metrics of shipping, read whenever somebody asks.

use podwitness_runtime::metrics::SharedRegistry;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Unit,
};

use super::status::Status;
use crate::bucket::Class;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Debug)]
struct Shipping(Status);

pub(super) fn register(registry: &SharedRegistry, status: &Status) {
    registry.with(|registry| registry.register_collector(Box::new(Shipping(status.clone()))));
}

impl Collector for Shipping {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let backlog = self.0.backlog();
        let waiting = ConstGauge::new(i64::try_from(backlog.bytes).unwrap_or(i64::MAX));
        waiting.encode(encoder.encode_descriptor(
            "podwitness_recorder_bucket_backlog",
            "Bytes on the volume that are not in the bucket yet",
            Some(&Unit::Bytes),
            waiting.metric_type(),
        )?)?;
        let age = ConstGauge::new(backlog.age.as_secs_f64());
        age.encode(encoder.encode_descriptor(
            "podwitness_recorder_bucket_backlog_age",
            "How long the oldest of them have waited",
            Some(&Unit::Seconds),
            age.metric_type(),
        )?)?;
        let shipped = ConstCounter::new(self.0.shipped());
        shipped.encode(encoder.encode_descriptor(
            "podwitness_recorder_bucket_shipped",
            "Bytes put into the bucket, compressed",
            Some(&Unit::Bytes),
            shipped.metric_type(),
        )?)?;
        let failures = Family::<ClassLabel, prometheus_client::metrics::counter::Counter>::default();
        for (class, count) in self.0.failures() {
            failures.get_or_create(&ClassLabel { class: class.as_str() }).inc_by(count);
        }
        failures.encode(encoder.encode_descriptor(
            "podwitness_recorder_bucket_failures",
            "Requests that the bucket did not serve, by what went wrong",
            None,
            failures.metric_type(),
        )?)?;
        let failing = Family::<ClassLabel, Gauge>::default();
        for class in Class::ALL {
            let last = self.0.failing() == Some(class);
            failing.get_or_create(&ClassLabel { class: class.as_str() }).set(i64::from(last));
        }
        failing.encode(encoder.encode_descriptor(
            "podwitness_recorder_bucket_failing",
            "1 for what went wrong with the last request, if it did",
            None,
            failing.metric_type(),
        )?)
    }
}
