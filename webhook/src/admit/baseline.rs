//! Pod Security *baseline*, held by an allow-list where injection is required: what is not known to be harmless is
//! refused, because it would let a container past the sidecar or at the recordings.
//!
//! Source: `k8s.io/pod-security-admission/policy`, a check for each of its checks of level baseline, in their latest
//! versions. It differs from them in that
//! * volumes of the node pass where they are read-only and hold time zones or CA certificates,
//! * volumes of other types than those known not to reach the node are refused,
//! * `procMount` stays masked in user namespaces, too,
//! * processes of a pod stay apart (`shareProcessNamespace`),
//! * the Namespace widens it by name ([`podwitness_core::allow`]).
//!
//! `manifests/policies` says the same in CEL, for what comes after this webhook.

mod container;
mod volumes;

use std::collections::BTreeSet;

use podwitness_core::{
    allow::{Allow, Allowance},
    labels,
};
use serde_json::Value;

use super::{
    pod::{Container, flag, items, others, text},
    refusal::{Reason, Refusal},
};

/// Cap on violations that a message names.
const MAX_NAMED: usize = 8;
/// Labels that say what a pod is.
const NAMING: [&str; 4] = ["app.kubernetes.io/name", "app", "k8s-app", "name"];
/// Prefix of annotations that give a container an AppArmor profile, before there was a field.
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
/// Kernel parameters of the pod's own namespaces (`check_sysctls.go`).
const SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Holds a new pod to the baseline; gives the items of the annotation that it makes use of.
///
/// # Errors
/// With every field that is beyond it.
pub(super) fn pod(pod: &Value, allow: &Allow) -> Result<Vec<String>, Refusal> {
    let mut findings = Findings::new(pod, allow);
    namespaces(pod, &mut findings);
    context(pod, &mut findings);
    annotations(pod, &mut findings);
    volumes::check(pod, &mut findings);
    others(pod).for_each(|container| container::check(&container, &mut findings));
    findings.result()
}

/// Holds debug containers that are added to a pod to the baseline.
///
/// # Errors
/// With every field that is beyond it.
pub(super) fn debug(pod: &Value, added: &[Container<'_>], allow: &Allow) -> Result<(), Refusal> {
    let mut findings = Findings::new(pod, allow);
    for container in added {
        container::check(container, &mut findings);
        volumes::check_mounts(pod, container, &mut findings);
    }
    findings.result().map(drop)
}

/// Violations, and what the namespace accepts of them.
struct Findings<'a> {
    allow: &'a Allow,
    /// How the pod is left out.
    exempt: String,
    violations: Vec<Violation>,
    used: BTreeSet<String>,
}

/// One field that is beyond the baseline.
struct Violation {
    reason: Reason,
    /// Its path, such as `spec.containers[0].ports[1].hostPort`.
    field: String,
    problem: String,
    /// What would accept it.
    item: Option<Allowance>,
}

impl<'a> Findings<'a> {
    fn new(pod: &Value, allow: &'a Allow) -> Self {
        Self { allow, exempt: exempt(pod), violations: Vec::new(), used: BTreeSet::new() }
    }

    /// A violation that nothing accepts.
    fn refuse(&mut self, reason: Reason, field: impl Into<String>, problem: impl Into<String>) {
        let (field, problem) = (field.into(), problem.into());
        self.violations.push(Violation { reason, field, problem, item: None });
    }

    /// A violation, unless the namespace accepts it by `item`. Without one nothing does.
    fn refuse_unless(
        &mut self,
        item: Option<Allowance>,
        reason: Reason,
        field: impl Into<String>,
        problem: impl Into<String>,
    ) {
        match item.as_ref().and_then(|item| self.allow.accepts(item)) {
            Some(accepted) => {
                self.used.insert(accepted.to_string());
            }
            None => {
                let (field, problem) = (field.into(), problem.into());
                self.violations.push(Violation { reason, field, problem, item });
            }
        }
    }

    fn result(self) -> Result<Vec<String>, Refusal> {
        let Some(first) = self.violations.first() else { return Ok(self.used.into_iter().collect()) };
        let named = self.violations.iter().take(MAX_NAMED);
        let mut said: Vec<String> = named.map(|it| format!("{}: {}", it.field, it.problem)).collect();
        if self.violations.len() > MAX_NAMED {
            said.push(format!("and {} more", self.violations.len().saturating_sub(MAX_NAMED)));
        }
        let items: BTreeSet<String> =
            self.violations.iter().filter_map(|it| it.item.as_ref()).map(Allowance::to_string).collect();
        let mut way_out = String::new();
        if !items.is_empty() {
            let items: Vec<String> = items.into_iter().collect();
            way_out =
                format!("; the Namespace's annotation {} accepts it by {}", labels::ALLOW, items.join(", "));
        }
        if self.violations.iter().any(|it| it.item.is_none()) {
            way_out.push_str(&format!(
                "; change what has no such item, or run the pod unrecorded: {}",
                self.exempt
            ));
        }
        Err(first.reason.because(format!(
            "{} (where recording is required, pods keep to Pod Security baseline{way_out})",
            said.join("; ")
        )))
    }
}

/// What leaves a pod out: the annotation, with the label by which charts name a program.
fn exempt(pod: &Value) -> String {
    let labels = pod.pointer("/metadata/labels");
    let named = NAMING.iter().find_map(|key| Some((key, labels?.get(key)?.as_str()?)));
    let term = named.map_or_else(|| "LABEL=VALUE".to_owned(), |(key, value)| format!("{key}={value}"));
    format!("{}={term} on the Namespace", labels::EXEMPT)
}

/// Namespaces that the pod would share with the node or among its containers. `hostNetwork` is refused before.
fn namespaces(pod: &Value, findings: &mut Findings<'_>) {
    let spec = pod.pointer("/spec");
    for namespace in ["hostPID", "hostIPC"] {
        if flag(spec, namespace) {
            let problem = "pods keep to their own namespaces";
            findings.refuse(Reason::HostNamespace, format!("spec.{namespace}"), problem);
        }
    }
    if flag(spec, "shareProcessNamespace") {
        let problem =
            "other containers could reach into the sidecar (kubectl debug: --share-processes=false)";
        findings.refuse(Reason::SharedProcesses, "spec.shareProcessNamespace", problem);
    }
}

/// The security context that containers inherit.
fn context(pod: &Value, findings: &mut Findings<'_>) {
    let context = pod.pointer("/spec/securityContext");
    container::profiles(context, "spec.securityContext", findings);
    for (index, sysctl) in items(context, "sysctls").iter().enumerate() {
        let name = text(sysctl, "name");
        if !SYSCTLS.contains(&name) {
            let item = Allowance::parse(&format!("sysctl:{name}"));
            let field = format!("spec.securityContext.sysctls[{index}].name");
            findings.refuse_unless(item, Reason::Sysctl, field, format!("{name} is not a safe parameter"));
        }
    }
}

/// AppArmor profiles as annotations, which API servers still copy into the field.
fn annotations(pod: &Value, findings: &mut Findings<'_>) {
    let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    for (key, value) in annotations.into_iter().flatten() {
        let profile = value.as_str().unwrap_or_default();
        let is_known =
            profile.is_empty() || profile == "runtime/default" || profile.starts_with("localhost/");
        if key.starts_with(APPARMOR_ANNOTATION) && !is_known {
            let item = (profile == "unconfined").then_some(Allowance::AppArmor);
            let field = format!("metadata.annotations[{key}]");
            findings.refuse_unless(item, Reason::AppArmor, field, format!("profile {profile:?}"));
        }
    }
}

#[cfg(test)]
mod tests;
