//! The sidecar as a container. Every field that the API server would fill in is spelled out, so that a pod which comes
//! back from it compares equal and is not patched again.

use podwitness_core::inject::{
    CONTAINER, EnvSource, EnvVar, MOUNT_CA, MOUNT_IDENTITY, MOUNT_SPOOL, MOUNT_STATE, MOUNT_TUN,
    MOUNT_WIREGUARD, PROBE_PORT, SERVICE_ACCOUNT_DIR, SidecarEnv, UID, VOLUME_CA, VOLUME_IDENTITY,
    VOLUME_SPOOL, VOLUME_STATE, VOLUME_TUN,
};
use serde_json::{Map, Value, json};

use super::{
    Settings,
    dirs::Dir,
    patch::{Patch, path},
    pod::{self, items, text},
    resources,
    tuning::Tuning,
};

/// The sidecar of this pod.
pub(super) fn sidecar(pod: &Value, settings: &Settings, tuning: &Tuning, dirs: &[Dir<'_>]) -> Value {
    json!({
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "env": env(settings, tuning, dirs),
        "resources": resources::of(pod, tuning),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsGroup": UID,
            "runAsNonRoot": true,
            "runAsUser": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        // The next container starts when this one has: rules in place, directories written, interception proven.
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": PROBE_PORT, "scheme": "HTTP"},
            "failureThreshold": 120, "periodSeconds": 1, "successThreshold": 1, "timeoutSeconds": 3,
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(dirs),
    })
}

fn env(settings: &Settings, tuning: &Tuning, dirs: &[Dir<'_>]) -> Vec<Value> {
    let told = SidecarEnv {
        control: settings.control.clone(),
        control_ca: settings.control_ca.clone(),
        until_netmap: settings.until_netmap,
        inject: settings.inject,
        profile: settings.profile,
        credentials: settings.credentials,
        service_accounts: dirs.iter().enumerate().map(|(number, dir)| dir.told(number)).collect(),
        log_level: tuning.log_level.clone(),
        // The kubelet evicts a pod whose volume is above its limit, so that half of it is used.
        spool_limit: settings.spool_size / 2,
        api_server: settings.api_server.clone(),
        trust: settings.trust,
    };
    told.to_env().into_iter().map(variable).collect()
}

fn variable(EnvVar { name, value }: EnvVar) -> Value {
    match value {
        EnvSource::Literal(value) => json!({"name": name, "value": value}),
        EnvSource::Field(field) => {
            json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": field}}})
        }
    }
}

fn mounts(dirs: &[Dir<'_>]) -> Vec<Value> {
    // Something has to be at the default path: the ServiceAccount plugin, which runs once more after us, mounts a
    // token into every container that has nothing there (plugin/pkg/admission/serviceaccount/admission.go).
    let token = dirs.iter().find(|dir| dir.mount_path() == SERVICE_ACCOUNT_DIR).map(|dir| dir.original);
    let fixed = [
        json!({"name": VOLUME_IDENTITY, "mountPath": MOUNT_IDENTITY, "readOnly": true}),
        json!({"name": VOLUME_STATE, "mountPath": MOUNT_STATE}),
        json!({"name": VOLUME_STATE, "mountPath": MOUNT_WIREGUARD}),
        json!({"name": VOLUME_SPOOL, "mountPath": MOUNT_SPOOL}),
        json!({"name": VOLUME_TUN, "mountPath": MOUNT_TUN, "readOnly": true}),
        json!({"name": token.unwrap_or(VOLUME_IDENTITY), "mountPath": SERVICE_ACCOUNT_DIR, "readOnly": true}),
        json!({"name": VOLUME_CA, "mountPath": MOUNT_CA}),
    ];
    let kept = dirs.iter().enumerate().flat_map(|(number, dir)| dir.sidecar_mounts(number));
    fixed.into_iter().chain(kept).collect()
}

/// Puts the sidecar first among the init containers, or repairs it, or leaves it alone where nothing differs.
pub(super) fn place(pod: &Value, wanted: &Value, patch: &mut Patch) {
    let list = path(["spec", "initContainers"]);
    let first = path(["spec", "initContainers", "0"]);
    match pod::sidecar(pod) {
        Some(present) if present.index == 0 => {
            if !same(present.value, wanted) {
                patch.replace(&first, wanted.clone());
            }
        }
        Some(present) => {
            patch.remove(&present.path(&[]));
            patch.add(&first, wanted.clone());
        }
        None if items(pod.pointer("/spec"), "initContainers").is_empty() => {
            patch.add(&list, json!([wanted]));
        }
        None => patch.add(&first, wanted.clone()),
    }
}

/// Newer API servers fill in a `resizePolicy` that older ones refuse; its default makes no difference.
fn same(present: &Value, wanted: &Value) -> bool {
    let policies = items(Some(present), "resizePolicy");
    let is_default = policies.iter().all(|policy| text(policy, "restartPolicy") == "NotRequired");
    let (Some(present), Some(wanted)) = (present.as_object(), wanted.as_object()) else { return false };
    let rest = |object: &Map<String, Value>| object.keys().filter(|key| *key != "resizePolicy").count();
    is_default
        && rest(present) == rest(wanted)
        && wanted.iter().all(|(key, value)| present.get(key) == Some(value))
}
