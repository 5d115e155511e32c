//! Label and annotation keys, the user interface of injection. Nothing a pod author can write switches recording off.
//!
//! [`KEYS`] lists every key that has an effect on a Namespace or a Pod; [`key_mistake`] finds those that have none.

mod mistake;

pub use mistake::{KeyMistake, key_mistake, looks_like_ours};

/// Domain under which every key of ours stands.
pub const DOMAIN: &str = "podwitness.dev";
/// Namespace label: `required` or `optional`; its presence asks for injection.
pub const INJECT: &str = "podwitness.dev/inject";
/// Namespace label: `interface` or `restricted`.
pub const PROFILE: &str = "podwitness.dev/profile";
/// Namespace label: `sealed` or `passthrough`.
pub const CREDENTIALS: &str = "podwitness.dev/credentials";
/// Namespace annotation: label selector of pods that are left out.
pub const EXEMPT: &str = "podwitness.dev/exempt";
/// Namespace annotation: what is accepted beyond Pod Security *baseline* where recording is required ([`crate::allow`]).
pub const ALLOW: &str = "podwitness.dev/allow";
/// Namespace annotation: RFC 3339 time until which sidecars splice raw.
pub const BYPASS_UNTIL: &str = "podwitness.dev/bypass-until";
/// Namespace annotation: `cluster` or `pod`, whose certificates its sidecars serve ([`crate::trust`]).
pub const TRUST: &str = "podwitness.dev/trust";
/// Pod or Namespace annotation: log level of the sidecar (`error` … `trace`).
pub const LOG_LEVEL: &str = "podwitness.dev/log-level";
/// Pod or Namespace annotation: CPU request of the sidecar (a Kubernetes quantity).
pub const CPU_REQUEST: &str = "podwitness.dev/cpu-request";
/// Pod or Namespace annotation: CPU limit of the sidecar, at least 100m, or `none`.
pub const CPU_LIMIT: &str = "podwitness.dev/cpu-limit";
/// Pod or Namespace annotation: memory request of the sidecar.
pub const MEMORY_REQUEST: &str = "podwitness.dev/memory-request";
/// Pod or Namespace annotation: memory limit of the sidecar, at least 64Mi.
pub const MEMORY_LIMIT: &str = "podwitness.dev/memory-limit";
/// Pod annotation written by admission: JSON for people and upgrades, never trusted.
pub const STATUS: &str = "podwitness.dev/status";
/// Pod label in the system namespace: name of the `Recorder` whose replica the pod is.
pub const RECORDER: &str = "podwitness.dev/recorder";
/// Pod label in the system namespace: what acknowledgements of the replica survive.
pub const ACK: &str = "podwitness.dev/ack";
/// Namespace label: `read` lets pods of the namespace read metrics, where NetworkPolicies are enforced.
pub const METRICS: &str = "podwitness.dev/metrics";
/// Prefix of Namespace label keys that give a namespace a grant tag: `tag.podwitness.dev/x` is `tag:x`.
pub const TAG_PREFIX: &str = "tag.podwitness.dev/";
/// Namespace in which the control plane runs by default.
pub const SYSTEM_NAMESPACE: &str = "podwitness-system";

/// Object whose metadata has a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holder {
    /// A Namespace.
    Namespace,
    /// A Pod, or the template of one.
    Pod,
    /// What makes pods from a template, such as a Deployment; no key of ours has an effect there.
    Workload,
}

/// Field of the metadata in which a key stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field {
    /// `metadata.labels`.
    Label,
    /// `metadata.annotations`.
    Annotation,
}

/// A key that has an effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KnownKey {
    /// The key.
    pub key: &'static str,
    /// Where in the metadata it stands.
    pub field: Field,
    /// On which objects.
    pub holders: &'static [Holder],
}

/// Every key; [`TAG`] stands for those that begin with [`TAG_PREFIX`].
pub const KEYS: [KnownKey; 17] = [
    KnownKey::label(INJECT, &[Holder::Namespace]),
    KnownKey::label(PROFILE, &[Holder::Namespace]),
    KnownKey::label(CREDENTIALS, &[Holder::Namespace]),
    KnownKey::label(METRICS, &[Holder::Namespace]),
    KnownKey::label(RECORDER, &[Holder::Pod]),
    KnownKey::label(ACK, &[Holder::Pod]),
    KnownKey::annotation(EXEMPT, &[Holder::Namespace]),
    KnownKey::annotation(ALLOW, &[Holder::Namespace]),
    KnownKey::annotation(BYPASS_UNTIL, &[Holder::Namespace]),
    KnownKey::annotation(TRUST, &[Holder::Namespace]),
    KnownKey::annotation(STATUS, &[Holder::Pod]),
    KnownKey::annotation(LOG_LEVEL, &[Holder::Pod, Holder::Namespace]),
    KnownKey::annotation(CPU_REQUEST, &[Holder::Pod, Holder::Namespace]),
    KnownKey::annotation(CPU_LIMIT, &[Holder::Pod, Holder::Namespace]),
    KnownKey::annotation(MEMORY_REQUEST, &[Holder::Pod, Holder::Namespace]),
    KnownKey::annotation(MEMORY_LIMIT, &[Holder::Pod, Holder::Namespace]),
    TAG,
];

/// Stands for all keys that begin with [`TAG_PREFIX`].
pub const TAG: KnownKey = KnownKey::label("tag.podwitness.dev/NAME", &[Holder::Namespace]);

impl KnownKey {
    const fn label(key: &'static str, holders: &'static [Holder]) -> Self {
        Self { key, field: Field::Label, holders }
    }

    const fn annotation(key: &'static str, holders: &'static [Holder]) -> Self {
        Self { key, field: Field::Annotation, holders }
    }
}

impl Holder {
    /// The kind, for messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Workload => "workload",
        }
    }
}

impl Field {
    /// The word for messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Annotation => "annotation",
        }
    }

    /// The field of `metadata`.
    #[must_use]
    pub const fn in_metadata(self) -> &'static str {
        match self {
            Self::Label => "labels",
            Self::Annotation => "annotations",
        }
    }
}
