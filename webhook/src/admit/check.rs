//! Rules for the pod as its author wrote it. Some make injection impossible; the others hold where injection is
//! required, because they would let a container past the sidecar.
//!
//! A mark on a packet exempts it from interception, and setting one takes NET_ADMIN or NET_RAW: that nobody but the
//! sidecar has them is the boundary. A pod that already carries the sidecar is checked like any other.

use podwitness_core::inject::{CONTAINER, Credentials, Inject, Profile, TOKEN_AUDIENCE, UID, VOLUME_PREFIX};
use serde_json::Value;

use super::{
    Settings, capabilities,
    pod::{self, Container, flag, items, others, text},
    refusal::{Reason, Refusal},
};

/// Capabilities with which a container could mark packets, read the sidecar's memory or change its rules.
const FORBIDDEN: [&str; 6] = ["ALL", "BPF", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"];

/// Applies every rule.
pub(super) fn pod(pod: &Value, settings: &Settings) -> Result<(), Refusal> {
    if items(pod.pointer("/spec"), "containers").is_empty() {
        return Err(Reason::Malformed.because("the pod has no containers"));
    }
    available(settings)?;
    injectable(pod)?;
    reserved(pod)?;
    if settings.inject == Inject::Required { contained(pod) } else { Ok(()) }
}

fn available(settings: &Settings) -> Result<(), Refusal> {
    if settings.profile == Profile::Restricted {
        return Err(
            Reason::Unavailable.because("profile restricted is not available in this version; use interface")
        );
    }
    if settings.credentials == Credentials::Sealed {
        let message = "credentials sealed are not available in this version; use passthrough";
        return Err(Reason::Unavailable.because(message));
    }
    Ok(())
}

/// What no sidecar can be put into.
fn injectable(pod: &Value) -> Result<(), Refusal> {
    if pod.pointer("/spec/os/name").and_then(Value::as_str) == Some("windows") {
        return Err(Reason::Windows.because("the sidecar needs Linux; this pod is for Windows"));
    }
    if flag(pod.pointer("/spec"), "hostNetwork") {
        let message =
            "hostNetwork: interception would act on the node; run the pod in a namespace without the label";
        return Err(Reason::HostNetwork.because(message));
    }
    let namesake = others(pod).find(|container| container.name() == CONTAINER);
    match namesake {
        Some(_) => {
            Err(Reason::Container.because("the container name podwitness is reserved for the sidecar"))
        }
        None => Ok(()),
    }
}

/// Names and identities that are the sidecar's alone.
fn reserved(pod: &Value) -> Result<(), Refusal> {
    runs_as_sidecar(pod.pointer("/spec/securityContext"), "the pod")?;
    for container in others(pod) {
        runs_as_sidecar(container.value.get("securityContext"), container.name())?;
    }
    for volume in pod::volumes(pod) {
        // What bears a name of ours is repaired or refused by name.
        let ours = text(volume, "name").starts_with(VOLUME_PREFIX);
        if !ours && audiences(volume).any(|audience| audience == TOKEN_AUDIENCE) {
            let name = text(volume, "name");
            let message = format!(
                "volume {name} projects a token of audience {TOKEN_AUDIENCE}, which is the sidecar's"
            );
            return Err(Reason::Audience.because(message));
        }
    }
    Ok(())
}

fn audiences(volume: &Value) -> impl Iterator<Item = &str> {
    items(volume.get("projected"), "sources")
        .iter()
        .filter_map(|source| source.get("serviceAccountToken"))
        .map(|token| text(token, "audience"))
}

fn runs_as_sidecar(context: Option<&Value>, who: &str) -> Result<(), Refusal> {
    let user = context.and_then(|context| context.get("runAsUser")).and_then(Value::as_u64);
    if user == Some(u64::from(UID)) {
        return Err(Reason::User.because(format!("{who} runs as user {UID}, which is the sidecar's")));
    }
    Ok(())
}

/// What would let a container past the sidecar.
fn contained(pod: &Value) -> Result<(), Refusal> {
    let spec = pod.pointer("/spec");
    for namespace in ["hostPID", "hostIPC"] {
        if flag(spec, namespace) {
            let message =
                format!("{namespace}: where recording is required, pods keep to their own namespaces");
            return Err(Reason::HostNamespace.because(message));
        }
    }
    if flag(spec, "shareProcessNamespace") {
        let message = "shareProcessNamespace: other containers could reach into the sidecar \
                       (kubectl debug: --share-processes=false)";
        return Err(Reason::SharedProcesses.because(message));
    }
    others(pod).try_for_each(|container| container_contained(&container))
}

fn container_contained(container: &Container<'_>) -> Result<(), Refusal> {
    let (name, context) = (container.name(), container.value.get("securityContext"));
    if flag(context, "privileged") {
        let message = format!("container {name} is privileged: it could undo interception");
        return Err(Reason::Privileged.because(message));
    }
    let added = items(context.and_then(|context| context.get("capabilities")), "add");
    match added.iter().filter_map(Value::as_str).find(|capability| is_forbidden(capability)) {
        Some(capability) => {
            let message = format!(
                "container {name} adds capability {capability}, with which it could undo interception"
            );
            Err(Reason::Capability.because(message))
        }
        None => Ok(()),
    }
}

fn is_forbidden(capability: &str) -> bool {
    FORBIDDEN.contains(&capabilities::normalised(capability).as_str())
}
