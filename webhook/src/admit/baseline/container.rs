//! What one container may have.

use podwitness_core::allow::{Allowance, PRIVILEGED};
use serde_json::Value;

use super::{
    super::{
        pod::{Container, List, flag, items, text},
        refusal::Reason,
    },
    Findings,
};

/// What every container runtime gives anyway (`check_capabilities_baseline.go`). NET_RAW is taken away again.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// `check_seLinuxOptions.go`.
const SELINUX_TYPES: [&str; 5] =
    ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
/// `check_hostProbesAndhostLifecycle.go`.
const PROBES: [&str; 5] =
    ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];

/// Applies every rule for containers.
pub(super) fn check(container: &Container<'_>, findings: &mut Findings<'_>) {
    let context = container.value.get("securityContext");
    let at = format!("{}.securityContext", container.field());
    if flag(context, "privileged") {
        let problem = format!("container {} is privileged: it could undo interception", container.name());
        let item = ends(container).then(|| wanted(container, PRIVILEGED)).flatten();
        findings.refuse_unless(item, Reason::Privileged, format!("{at}.privileged"), problem);
    }
    capabilities(container, context, &at, findings);
    profiles(context, &at, findings);
    proc_mount(context, &at, findings);
    host_ports(container, findings);
    probes(container, findings);
}

fn capabilities(container: &Container<'_>, context: Option<&Value>, at: &str, findings: &mut Findings<'_>) {
    let added = items(context.and_then(|context| context.get("capabilities")), "add");
    for (index, capability) in added.iter().enumerate() {
        let name = capability.as_str().unwrap_or_default();
        if CAPABILITIES.contains(&name) {
            continue;
        }
        let problem = format!("container {} adds capability {name}", container.name());
        let field = format!("{at}.capabilities.add[{index}]");
        findings.refuse_unless(wanted(container, name), Reason::Capability, field, problem);
    }
}

/// What would accept a capability, or that a container is privileged: an init container that ends before others start may be meant by its image.
fn wanted(container: &Container<'_>, capability: &str) -> Option<Allowance> {
    if ends(container) {
        let image = text(container.value, "image");
        return Allowance::parse(&format!("init:{capability}:{image}"));
    }
    Allowance::parse(&format!("capability:{capability}"))
}

/// Whether it ends before others start.
fn ends(container: &Container<'_>) -> bool {
    container.list == List::Init && text(container.value, "restartPolicy") != "Always"
}

/// Seccomp, AppArmor, SELinux and the node's processes on Windows, for a pod or a container whose security context is
/// at the path `at`.
pub(super) fn profiles(context: Option<&Value>, at: &str, findings: &mut Findings<'_>) {
    let Some(context) = context else { return };
    profile(context, "seccompProfile", (Reason::Seccomp, Allowance::Seccomp), at, findings);
    profile(context, "appArmorProfile", (Reason::AppArmor, Allowance::AppArmor), at, findings);
    if let Some(options) = context.get("seLinuxOptions").filter(|options| options.is_object()) {
        let kind = text(options, "type");
        if !SELINUX_TYPES.contains(&kind) {
            let item = Allowance::parse(&format!("selinux:{kind}"));
            let field = format!("{at}.seLinuxOptions.type");
            findings.refuse_unless(item, Reason::SeLinux, field, format!("SELinux type {kind}"));
        }
        for name in ["user", "role"] {
            if !text(options, name).is_empty() {
                let problem = format!("an SELinux {name} of its own");
                findings.refuse(Reason::SeLinux, format!("{at}.seLinuxOptions.{name}"), problem);
            }
        }
    }
    if flag(context.get("windowsOptions"), "hostProcess") {
        let field = format!("{at}.windowsOptions.hostProcess");
        findings.refuse(Reason::HostProcess, field, "a process of the node");
    }
}

fn profile(
    context: &Value,
    name: &str,
    (reason, unconfined): (Reason, Allowance),
    at: &str,
    findings: &mut Findings<'_>,
) {
    let Some(profile) = context.get(name).filter(|profile| profile.is_object()) else { return };
    let kind = text(profile, "type");
    if !matches!(kind, "RuntimeDefault" | "Localhost") {
        let item = (kind == "Unconfined").then_some(unconfined);
        findings.refuse_unless(item, reason, format!("{at}.{name}.type"), format!("profile {kind:?}"));
    }
}

fn proc_mount(context: Option<&Value>, at: &str, findings: &mut Findings<'_>) {
    let Some(kind) = context.and_then(|context| context.get("procMount")).and_then(Value::as_str) else {
        return;
    };
    if kind != "Default" {
        let item = (kind == "Unmasked").then_some(Allowance::ProcMount);
        findings.refuse_unless(item, Reason::ProcMount, format!("{at}.procMount"), format!("{kind} /proc"));
    }
}

fn host_ports(container: &Container<'_>, findings: &mut Findings<'_>) {
    for (index, port) in items(Some(container.value), "ports").iter().enumerate() {
        let number = port.get("hostPort").and_then(Value::as_i64).unwrap_or_default();
        if number != 0 {
            let item = Allowance::parse(&format!("hostPort:{number}"));
            let field = format!("{}.ports[{index}].hostPort", container.field());
            findings.refuse_unless(item, Reason::HostPort, field, format!("port {number} of the node"));
        }
    }
}

/// Requests that the kubelet makes to another host than the pod.
fn probes(container: &Container<'_>, findings: &mut Findings<'_>) {
    for probe in PROBES {
        for action in ["httpGet", "tcpSocket"] {
            let pointer = format!("{probe}/{action}/host");
            let host = container.value.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
            if !host.is_empty() {
                let item = Allowance::parse(&format!("probeHost:{host}"));
                let field = format!("{}{}", container.field(), pointer.replace('/', "."));
                let problem = format!("the kubelet would ask {host}");
                findings.refuse_unless(item, Reason::ProbeHost, field, problem);
            }
        }
    }
}
