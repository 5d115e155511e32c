//! Metrics of the control plane. Labels are roles, outcomes and reasons, never pods.

use podwitness_runtime::{metrics::SharedRegistry, quota::QuotaMetrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::{certificates::CertificateError, refusal::Refusal, registry::Claimed, role::Role};

/// The metrics. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    enrolments: Family<Enrolment, Counter>,
    refusals: Family<Refused, Counter>,
    certificates: Family<Certified, Counter>,
    /// Connections that have shown a token, as those of a listener of their own.
    pub pods: QuotaMetrics,
    /// Open netmap streams.
    pub streams: Gauge,
    /// Enrolled pods.
    pub enrolled: Gauge,
    /// Generation of what is published.
    pub generation: Gauge,
    /// 1 while something is held back because the netmap would shrink by accident.
    pub held: Gauge,
    /// Recorder replicas that can take recordings.
    pub replicas: Gauge,
    /// Namespaces that require recording and accept more than Pod Security baseline.
    pub widened: Gauge,
    /// Addresses at which the API server is known to be reached.
    pub api_servers: Gauge,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Enrolment {
    role: &'static str,
    key: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Refused {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Certified {
    outcome: &'static str,
}

impl Metrics {
    /// Registers all of them.
    #[must_use]
    pub fn register(registry: &SharedRegistry) -> Self {
        let metrics = Self { pods: registry.connections().listener("control-pods"), ..Self::default() };
        registry.with(|registry| {
            let Self { enrolments, refusals, streams, enrolled, generation, held, replicas, .. } =
                metrics.clone();
            let Self { widened, api_servers, certificates, .. } = metrics.clone();
            registry.register(
                "podwitness_control_certificates",
                "Certificates of the cluster's CA that sidecars asked for, by outcome",
                certificates,
            );
            registry.register(
                "podwitness_control_enrolments",
                "Enrolments by role and kind of key",
                enrolments,
            );
            registry.register("podwitness_control_refusals", "Refused requests by reason", refusals);
            registry.register("podwitness_control_streams", "Open netmap streams", streams);
            registry.register("podwitness_control_enrolled_pods", "Pods with a tunnel key", enrolled);
            registry.register(
                "podwitness_control_generation",
                "Generation of the published netmap",
                generation,
            );
            registry.register("podwitness_control_held", "1 while the netmap is kept from shrinking", held);
            registry.register(
                "podwitness_control_recorder_replicas",
                "Replicas that take recordings",
                replicas,
            );
            registry.register(
                "podwitness_control_widened_namespaces",
                "Namespaces that require recording and accept more than Pod Security baseline",
                widened,
            );
            registry.register(
                "podwitness_control_api_server_addresses",
                "Addresses at which the API server is known to be reached",
                api_servers,
            );
        });
        metrics
    }

    /// A pod was enrolled.
    pub fn enrolment(&self, role: &Role, claimed: Claimed) {
        self.enrolments.get_or_create(&Enrolment { role: role.label(), key: claimed.label() }).inc();
    }

    /// A sidecar asked for a certificate of the cluster's CA.
    pub fn certificate(&self, error: Option<&CertificateError>) {
        let outcome = error.map_or("issued", CertificateError::label);
        self.certificates.get_or_create(&Certified { outcome }).inc();
    }

    /// A request was refused.
    pub fn refusal(&self, refusal: &Refusal) {
        self.refusals.get_or_create(&Refused { reason: refusal.label() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_counted_by_role_and_reason() {
        let registry = SharedRegistry::new();
        let metrics = Metrics::register(&registry);
        metrics.enrolment(&Role::Sidecar, Claimed::First);
        metrics.refusal(&Refusal::NotFound);
        metrics.certificate(None);
        metrics.certificate(Some(&CertificateError::NoSigner));
        let text = registry.encode().unwrap();
        assert!(
            text.contains("podwitness_control_enrolments_total{role=\"sidecar\",key=\"first\"} 1"),
            "{text}"
        );
        for outcome in ["issued", "no-signer"] {
            let line = format!("podwitness_control_certificates_total{{outcome=\"{outcome}\"}} 1");
            assert!(text.contains(&line), "{text}");
        }
        assert!(text.contains("podwitness_control_refusals_total{reason=\"bad-request\"} 1"), "{text}");
    }
}
