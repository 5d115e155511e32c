//! The whole of injection as one pure function.

use json_patch::PatchOperation;
use podwitness_core::{
    inject::{CONTAINER, Inject},
    labels,
};
use serde_json::{Value, json};

use super::{
    Settings, bundle, capabilities, check, container, dirs,
    patch::{Patch, path},
    pod::{self, items, others, text},
    refusal::Refusal,
    resources, tuning, volume_lists, volumes,
};

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What has to change in `pod` so that it is witnessed; nothing where it already is.
///
/// Idempotent by structure: what is there is compared with what should be, and only differences are patched, so that
/// drift is repaired and a second pass changes nothing.
///
/// # Errors
/// Where the pod cannot be injected, or may not run where injection is required.
pub fn mutate(pod: &Value, settings: &Settings) -> Result<Vec<PatchOperation>, Refusal> {
    let allowed = check::pod(pod, settings)?;
    let tuning = tuning::of(pod, settings)?;
    let dirs = dirs::plan(pod)?;
    let resources = resources::of(pod, &tuning, settings)?;
    let sidecar = container::sidecar(pod, settings, &tuning, resources, &dirs);
    let volumes = volumes::all(settings, &dirs);
    let mut patch = Patch::default();
    annotate(pod, &status(settings, &sidecar, &allowed), &volumes, &mut patch);
    dirs.replace(&mut patch);
    if settings.inject == Inject::Required {
        others(pod).for_each(|container| capabilities::drop_net_raw(&container, &mut patch));
    }
    others(pod).for_each(|container| bundle::mount(&container, &mut patch));
    volumes::place(pod, &volumes, &mut patch)?;
    add_pull_secrets(pod, settings, &mut patch);
    // Last: every other operation names init containers by the positions they had.
    container::place(pod, &sidecar, &mut patch);
    Ok(patch.0)
}

fn add_pull_secrets(pod: &Value, settings: &Settings, patch: &mut Patch) {
    let present = items(pod.pointer("/spec"), "imagePullSecrets");
    let mut exists = pod.pointer("/spec/imagePullSecrets").is_some_and(Value::is_array);
    for name in &settings.pull_secrets {
        if !present.iter().any(|secret| text(secret, "name") == name) {
            patch.append(&path(["spec", "imagePullSecrets"]), &mut exists, json!({"name": name}));
        }
    }
}

/// What kubectl, people, and programs that look at all volumes read.
fn annotate(pod: &Value, status: &str, volumes: &[Value], patch: &mut Patch) {
    let first = items(pod.pointer("/spec"), "containers").first().map(|container| text(container, "name"));
    let mut wanted = vec![(labels::STATUS, status.to_owned())];
    // Who names the sidecar as default would find that nobody may enter it.
    if pod::annotation(pod, DEFAULT_CONTAINER).is_none_or(|set| set == CONTAINER) {
        wanted.push((DEFAULT_CONTAINER, first.unwrap_or_default().to_owned()));
    }
    wanted.extend(volume_lists::of(pod, volumes));
    if !pod.pointer("/metadata/annotations").is_some_and(Value::is_object) {
        patch.add(&path(["metadata", "annotations"]), json!({}));
    }
    for (key, value) in wanted {
        if pod::annotation(pod, key) != Some(&value) {
            patch.add(&path(["metadata", "annotations", key]), Value::from(value));
        }
    }
}

/// JSON with what people look for first in front. `allowed` are the items of [`labels::ALLOW`] without which the pod
/// would have been refused.
fn status(settings: &Settings, sidecar: &Value, allowed: &[String]) -> String {
    let mut fields = vec![
        ("inject", json!(settings.inject)),
        ("version", json!(settings.version)),
        ("profile", json!(settings.profile)),
        ("credentials", json!(settings.credentials)),
    ];
    fields.extend((!allowed.is_empty()).then(|| ("allowed", json!(allowed))));
    fields.push(("configHash", json!(digest(sidecar))));
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    format!("{{{}}}", fields.join(", "))
}

/// Sixteen hexadecimal digits that change with the sidecar's definition.
fn digest(sidecar: &Value) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, sidecar.to_string().as_bytes());
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod meshes;
#[cfg(test)]
mod tests;
