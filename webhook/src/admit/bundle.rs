//! The bundle with which every container of a pod can verify what its sidecar serves: the pod's own CA, and the cluster's.
//! It is mounted in each of them at one path, also where there is no token, so that a kubeconfig can be told of it.

use podwitness_core::inject::{MOUNT_CA, VOLUME_CA};
use serde_json::{Value, json};

use super::{
    patch::Patch,
    pod::{Container, items, text},
};

/// Mounts the bundle in a container, or repairs the mount. A container that has something of its own at that path keeps
/// it.
pub(super) fn mount(container: &Container<'_>, patch: &mut Patch) {
    let wanted = json!({"name": VOLUME_CA, "mountPath": MOUNT_CA, "readOnly": true});
    let mounts = items(Some(container.value), "volumeMounts");
    let mut is_there = false;
    for (index, present) in mounts.iter().enumerate() {
        let is_ours = text(present, "name") == VOLUME_CA;
        is_there |= is_ours || text(present, "mountPath") == MOUNT_CA;
        if is_ours && *present != wanted {
            patch.replace(&container.path(&["volumeMounts", &index.to_string()]), wanted.clone());
        }
    }
    if !is_there {
        let mut exists = container.value.get("volumeMounts").is_some_and(Value::is_array);
        patch.append(&container.path(&["volumeMounts"]), &mut exists, wanted);
    }
}
