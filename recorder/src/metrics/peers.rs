//! Metrics of the tunnel's gate, read from it whenever metrics are.

use std::fmt;

use podwitness_runtime::metrics::SharedRegistry;
use podwitness_tunnel::{Gate, GateCounts};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Registers the metrics of a gate.
pub fn register(registry: &SharedRegistry, gate: Gate) {
    registry.with(|registry| registry.register_collector(Box::new(Peers(gate))));
}

struct Peers(Gate);

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peers").field(&self.0.sizes()).finish()
    }
}

impl Collector for Peers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sizes = self.0.sizes();
        let help = "Peers that the recorder holds: live ones, and those that have yet to show an assertion";
        let mut peers =
            encoder.encode_descriptor("podwitness_recorder_peers", help, None, MetricType::Gauge)?;
        for (state, count) in [("admitted", sizes.admitted), ("provisional", sizes.provisional)] {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(peers.encode_family(&[("state", state)])?)?;
        }
        let GateCounts { limited, overrun, full, forged, .. } = self.0.counts();
        let help = "Handshakes of unknown keys that were not taken, by reason";
        let name = "podwitness_recorder_handshakes_refused";
        let mut refused = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (reason, count) in
            [("limited", limited), ("overrun", overrun), ("full", full), ("forged", forged)]
        {
            ConstCounter::new(count).encode(refused.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}
