//! Rules for the pod as its author wrote it. Some make injection impossible; the others hold where injection is
//! required ([`baseline`]).
//!
//! A mark on a packet exempts it from interception, and setting one takes NET_ADMIN or NET_RAW: that nobody but the
//! sidecar has them is the boundary. A pod that already carries the sidecar is checked like any other.

use podwitness_core::{
    inject::{CONTAINER, Credentials, Inject, Profile, TOKEN_AUDIENCE, UID, VOLUME_PREFIX},
    labels,
};
use serde_json::Value;

use super::{
    Settings, baseline,
    pod::{self, flag, items, others, text},
    refusal::{Reason, Refusal},
    resources, windows,
};

/// Applies every rule; gives the items of the namespace's annotation that the pod makes use of.
pub(super) fn pod(pod: &Value, settings: &Settings) -> Result<Vec<String>, Refusal> {
    if items(pod.pointer("/spec"), "containers").is_empty() {
        return Err(Reason::Malformed.because("the pod has no containers"));
    }
    available(settings)?;
    injectable(pod)?;
    reserved(pod)?;
    resources::check(pod)?;
    if settings.inject == Inject::Optional {
        return Ok(Vec::new());
    }
    baseline::pod(pod, &settings.allow)
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
    if let Some(field) = windows::chosen_by(pod) {
        return Err(Reason::Windows.because(format!(
            "the sidecar needs Linux, and this pod is for Windows ({field}): leave it out by the Namespace's annotation {}, \
             or run it in a namespace without the label",
            labels::EXEMPT
        )));
    }
    if flag(pod.pointer("/spec"), "hostNetwork") {
        let message =
            "hostNetwork: interception would act on the node; run the pod in a namespace without the label";
        return Err(Reason::HostNetwork.because(message));
    }
    let namesake = others(pod).find(|container| container.name() == CONTAINER);
    match namesake {
        Some(_) => Err(Reason::Container
            .because("the container name podwitness is the sidecar's; name the container otherwise")),
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
                "volume {name} projects a token of audience {TOKEN_AUDIENCE}, which is the sidecar's: \
                 choose another audience"
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
        return Err(
            Reason::User.because(format!("{who} runs as user {UID}, which is the sidecar's: choose another"))
        );
    }
    Ok(())
}
