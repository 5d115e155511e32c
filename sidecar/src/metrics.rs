//! What the sidecar itself counts; the proxy registers its own.

use std::sync::atomic::AtomicI64;

use podwitness_runtime::metrics::SharedRegistry;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

/// Handles to the metrics; clones count into the same ones.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// 1 while our own probe shows that connections to the API server land here.
    pub interception: Gauge<i64, AtomicI64>,
    /// 1 while the tunnel is open.
    pub tunnel: Gauge<i64, AtomicI64>,
    /// 1 while the netmap stream is open.
    pub control: Gauge<i64, AtomicI64>,
    /// Renewals of the rules that the kernel refused.
    pub rules_failures: Counter,
    /// Times that they were put in place anew, because connections no longer came here.
    pub rules_repaired: Counter,
    /// 1 while a certificate of the cluster's CA is served.
    pub certificate: Gauge<i64, AtomicI64>,
    /// Attempts to get one that failed.
    pub certificate_failures: Counter,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &SharedRegistry) -> Self {
        let metrics = Self::default();
        registry.with(|registry| {
            let gauge = |gauge: &Gauge<i64, AtomicI64>| gauge.clone();
            registry.register(
                "podwitness_interception",
                "1 while connections to the API server are shown to land at the sidecar",
                gauge(&metrics.interception),
            );
            registry.register("podwitness_tunnel", "1 while the tunnel is open", gauge(&metrics.tunnel));
            registry.register(
                "podwitness_control",
                "1 while the netmap stream is open",
                gauge(&metrics.control),
            );
            registry.register(
                "podwitness_rules_failures",
                "Renewals of the network rules that the kernel refused",
                metrics.rules_failures.clone(),
            );
            registry.register(
                "podwitness_rules_repaired",
                "Times that the network rules were put in place anew, because they were removed or connections no longer came here",
                metrics.rules_repaired.clone(),
            );
            registry.register(
                "podwitness_cluster_certificate",
                "1 while a certificate of the cluster's CA is served",
                gauge(&metrics.certificate),
            );
            registry.register(
                "podwitness_cluster_certificate_failures",
                "Attempts to get a certificate of the cluster's CA that failed",
                metrics.certificate_failures.clone(),
            );
        });
        metrics
    }
}
