//! The sidecar as a container. Every field that the API server would fill in is spelled out, so that a pod which comes
//! back from it compares equal and is not patched again.

use podwitness_core::inject::{
    CONTAINER, EnvSource, EnvVar, GRACE_PERIOD, MAX_DECLARED_PORTS, MOUNT_CA, MOUNT_IDENTITY, MOUNT_SPOOL,
    MOUNT_STATE, MOUNT_TUN, MOUNT_WIREGUARD, SERVICE_ACCOUNT_DIR, SidecarEnv, UID, VOLUME_CA,
    VOLUME_IDENTITY, VOLUME_SPOOL, VOLUME_STATE, VOLUME_TUN,
};
use serde_json::{Map, Value, json};

use super::{
    Settings,
    dirs::Dirs,
    ephemeral_storage,
    patch::{Patch, path},
    pod::{self, items, text},
    ports,
    tuning::Tuning,
};

/// The sidecar of this pod.
pub(super) fn sidecar(
    pod: &Value,
    settings: &Settings,
    tuning: &Tuning,
    mut resources: Value,
    dirs: &Dirs<'_>,
) -> Value {
    ephemeral_storage::add(pod, spool_limit(settings), &mut resources);
    let ports = ports::of(pod);
    json!({
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "env": env(pod, settings, tuning, dirs),
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            // Files of the kubelet are of root's group, and so are those that stand in for them.
            "runAsGroup": if dirs.is_empty() { UID } else { 0 },
            "runAsNonRoot": true,
            "runAsUser": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        // The next container starts when this one has: rules in place, directories written, interception proven.
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": ports.probe, "scheme": "HTTP"},
            "failureThreshold": 120, "periodSeconds": 1, "successThreshold": 1, "timeoutSeconds": 3,
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(settings, dirs),
    })
}

fn env(pod: &Value, settings: &Settings, tuning: &Tuning, dirs: &Dirs<'_>) -> Vec<Value> {
    let told = SidecarEnv {
        control: settings.control.clone(),
        control_ca: settings.control_ca.clone(),
        until_netmap: settings.until_netmap,
        inject: settings.inject,
        profile: settings.profile,
        credentials: settings.credentials,
        service_accounts: dirs.told(),
        log_level: tuning.log_level.clone(),
        spool_limit: spool_limit(settings),
        api_server: settings.api_server.clone(),
        ports: ports::of(pod),
        declared_ports: ports::declared(pod).into_keys().take(MAX_DECLARED_PORTS).collect(),
        grace_period: grace_period(pod),
        trust: settings.trust,
    };
    told.to_env().into_iter().map(variable).collect()
}

/// Bytes of the spool that are used: half, because the kubelet evicts a pod whose volume is above its limit.
const fn spool_limit(settings: &Settings) -> u64 {
    settings.spool_size / 2
}

fn grace_period(pod: &Value) -> u32 {
    let seconds = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
    seconds.map_or(GRACE_PERIOD, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX))
}

fn variable(EnvVar { name, value }: EnvVar) -> Value {
    match value {
        EnvSource::Literal(value) => json!({"name": name, "value": value}),
        EnvSource::Field(field) => {
            json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": field}}})
        }
    }
}

fn mounts(settings: &Settings, dirs: &Dirs<'_>) -> Vec<Value> {
    let fixed = [
        json!({"name": VOLUME_IDENTITY, "mountPath": MOUNT_IDENTITY, "readOnly": true}),
        json!({"name": VOLUME_STATE, "mountPath": MOUNT_STATE}),
        json!({"name": VOLUME_STATE, "mountPath": MOUNT_WIREGUARD}),
        json!({"name": VOLUME_SPOOL, "mountPath": MOUNT_SPOOL}),
        json!({"name": VOLUME_CA, "mountPath": MOUNT_CA}),
    ];
    let tun = json!({"name": VOLUME_TUN, "mountPath": MOUNT_TUN, "readOnly": true});
    // Something has to be at the default path: the ServiceAccount plugin, which runs once more after us, mounts a
    // token into every container that has nothing there (plugin/pkg/admission/serviceaccount/admission.go).
    let token = json!({"name": VOLUME_IDENTITY, "mountPath": SERVICE_ACCOUNT_DIR, "readOnly": true});
    let fixed = fixed.into_iter().chain(settings.node_tun.then_some(tun)).chain([token]);
    fixed.chain(dirs.sidecar_mounts()).collect()
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
