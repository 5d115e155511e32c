//! The sidecar's volumes.

use podwitness_core::inject::{
    MOUNT_TUN, ROOT_CA_CONFIG_MAP, TOKEN_AUDIENCE, VOLUME_CA, VOLUME_IDENTITY, VOLUME_PREFIX,
    VOLUME_SERVICE_ACCOUNT, VOLUME_SOURCE, VOLUME_SPOOL, VOLUME_STATE, VOLUME_TUN,
};
use serde_json::{Value, json};

use super::{
    Settings,
    dirs::Dirs,
    patch::{Patch, path},
    pod::{self, text},
    quantity::memory_text,
    refusal::{Reason, Refusal},
};

/// Brings the pod's volumes to what they should be: ours are added, repaired or removed, no other is touched.
///
/// Without a sidecar in the pod nothing under our names can be ours, and the pod is refused.
pub(super) fn place(pod: &Value, wanted: &[Value], patch: &mut Patch) -> Result<(), Refusal> {
    let present = pod::volumes(pod);
    let injected = pod::sidecar(pod).is_some();
    let mut gone = Vec::new();
    for (index, volume) in present.iter().enumerate() {
        let name = text(volume, "name");
        if !name.starts_with(VOLUME_PREFIX) {
            continue;
        }
        let at = path(["spec", "volumes", &index.to_string()]);
        match wanted.iter().find(|wanted| injected && text(wanted, "name") == name) {
            Some(wanted) if wanted == volume => {}
            Some(wanted) => patch.replace(&at, wanted.clone()),
            None if injected && may_go(name) => gone.push(at),
            None => {
                let message = format!(
                    "volume {name}: names that begin with {VOLUME_PREFIX} are the sidecar's: choose another"
                );
                return Err(Reason::Volume.because(message));
            }
        }
    }
    // From the end, so that earlier positions stay.
    gone.iter().rev().for_each(|at| patch.remove(at));
    let mut exists = pod.pointer("/spec/volumes").is_some_and(Value::is_array);
    for volume in wanted {
        if !present.iter().any(|present| text(present, "name") == text(volume, "name")) {
            patch.append(&path(["spec", "volumes"]), &mut exists, volume.clone());
        }
    }
    Ok(())
}

/// Whether a pod that was injected with other settings, or other containers, has a volume of ours that it does not need.
fn may_go(name: &str) -> bool {
    name == VOLUME_TUN || name.starts_with(VOLUME_SERVICE_ACCOUNT) || name.starts_with(VOLUME_SOURCE)
}

/// Every volume of ours, spelled out as the API server would complete it.
pub(super) fn all(settings: &Settings, dirs: &Dirs<'_>) -> Vec<Value> {
    let fixed = [
        identity(),
        json!({"name": VOLUME_STATE, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
        json!({"name": VOLUME_SPOOL, "emptyDir": {"sizeLimit": memory_text(settings.spool_size)}}),
        json!({"name": VOLUME_CA, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
    ];
    let tun = settings
        .node_tun
        .then(|| json!({"name": VOLUME_TUN, "hostPath": {"path": MOUNT_TUN, "type": "DirectoryOrCreate"}}));
    fixed.into_iter().chain(tun).chain(dirs.volumes()).collect()
}

/// The token with which the pod enrols, and the cluster's CA for pods that mount none.
fn identity() -> Value {
    json!({"name": VOLUME_IDENTITY, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"audience": TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": "token"}},
        {"configMap": {"name": ROOT_CA_CONFIG_MAP, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]}})
}
