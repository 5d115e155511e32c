//! Label and annotation keys, the user interface of injection. Nothing a pod author can write switches recording off.

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
/// Namespace label: `read` lets pods of the namespace read metrics, where NetworkPolicies are enforced.
pub const METRICS: &str = "podwitness.dev/metrics";
/// Prefix of Namespace label keys that give a namespace a grant tag: `tag.podwitness.dev/x` is `tag:x`.
pub const TAG_PREFIX: &str = "tag.podwitness.dev/";
/// Namespace in which the control plane runs by default.
pub const SYSTEM_NAMESPACE: &str = "podwitness-system";
