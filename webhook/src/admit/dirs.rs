//! The directories that the sidecar keeps for other containers: every mount of the cluster's CA is replaced, because
//! behind the sidecar the API server shows a certificate of the in-pod CA.
//!
//! The volume is recognised by what it projects (ConfigMap `kube-root-ca.crt`), not by its name, so that hand-made
//! ones count like `kube-api-access-*`. In a pod that was injected before, a mount of ours is traced back to the volume
//! it stands for by the sidecar's own mounts. Nobody gains by forging those: whoever writes them could as well have
//! written the pod with that volume.

use podwitness_core::inject::{
    MAX_SERVICE_ACCOUNT_DIRS, MOUNT_SERVICE_ACCOUNT, MOUNT_SOURCE, ROOT_CA_CONFIG_MAP, ServiceAccountDir,
    VOLUME_CA, VOLUME_PREFIX, VOLUME_SERVICE_ACCOUNT,
};
use serde_json::{Value, json};

use super::{
    patch::Patch,
    pod::{self, Container, items, others, text},
    refusal::{Reason, Refusal},
};

/// One mount that is replaced.
#[derive(Clone, Debug)]
pub(super) struct Dir<'a> {
    container: Container<'a>,
    mount: usize,
    value: &'a Value,
    /// The volume of the kubelet for which ours stands in.
    pub(super) original: &'a str,
}

/// All mounts to replace, in the order of their numbers.
pub(super) fn plan(pod: &Value) -> Result<Vec<Dir<'_>>, Refusal> {
    let mut dirs = Vec::new();
    for container in others(pod) {
        for (mount, value) in items(Some(container.value), "volumeMounts").iter().enumerate() {
            let original = original(pod, &container, text(value, "name"))?;
            if holds_root_ca(pod, original) {
                dirs.push(Dir { container, mount, value, original });
            }
        }
    }
    if dirs.len() > MAX_SERVICE_ACCOUNT_DIRS {
        let message = format!(
            "the pod mounts {ROOT_CA_CONFIG_MAP} {} times; at most {MAX_SERVICE_ACCOUNT_DIRS} are kept",
            dirs.len()
        );
        return Err(Reason::Directories.because(message));
    }
    Ok(dirs)
}

impl<'a> Dir<'a> {
    /// Name of the volume that stands in.
    pub(super) fn volume(number: usize) -> String {
        format!("{VOLUME_SERVICE_ACCOUNT}{number}")
    }

    /// Where it is mounted in its container.
    pub(super) fn mount_path(&self) -> &'a str {
        text(self.value, "mountPath")
    }

    /// What the sidecar is told.
    pub(super) fn told(&self, number: usize) -> ServiceAccountDir {
        ServiceAccountDir {
            container: self.container.name().to_owned(),
            source: format!("{MOUNT_SOURCE}{number}"),
            target: format!("{MOUNT_SERVICE_ACCOUNT}{number}"),
        }
    }

    /// Both ends in the sidecar: what the kubelet provides, and what the container will read.
    pub(super) fn sidecar_mounts(&self, number: usize) -> [Value; 2] {
        let ServiceAccountDir { source, target, .. } = self.told(number);
        [
            json!({"name": self.original, "mountPath": source, "readOnly": true}),
            json!({"name": Self::volume(number), "mountPath": target}),
        ]
    }

    /// Points the mount at the volume that stands in; everything else about it stays.
    pub(super) fn replace(&self, number: usize, patch: &mut Patch) {
        let mut mount = self.value.clone();
        if let Some(fields) = mount.as_object_mut() {
            fields.insert("name".to_owned(), Value::from(Self::volume(number)));
            fields.insert("readOnly".to_owned(), Value::from(true));
        }
        if mount != *self.value {
            let index = self.mount.to_string();
            patch.replace(&self.container.path(&["volumeMounts", &index]), mount);
        }
    }
}

/// The volume for which `name` stands, which for every volume but ours is itself.
fn original<'a>(pod: &'a Value, container: &Container<'a>, name: &'a str) -> Result<&'a str, Refusal> {
    if !name.starts_with(VOLUME_PREFIX) || name == VOLUME_CA {
        return Ok(name);
    }
    name.strip_prefix(VOLUME_SERVICE_ACCOUNT)
        .and_then(|number| {
            let source = format!("{MOUNT_SOURCE}{number}");
            let mounts = items(pod::sidecar(pod).map(|sidecar| sidecar.value), "volumeMounts");
            mounts.iter().find(|mount| text(mount, "mountPath") == source)
        })
        .map(|mount| text(mount, "name"))
        .filter(|original| holds_root_ca(pod, original))
        .ok_or_else(|| {
            let message = format!(
                "container {} mounts volume {name}; names that begin with {VOLUME_PREFIX} are the sidecar's",
                container.name()
            );
            Reason::Volume.because(message)
        })
}

/// Whether a volume that is not ours holds the cluster's CA.
fn holds_root_ca(pod: &Value, name: &str) -> bool {
    let is_root_ca = |source: &Value| {
        source.get("configMap").is_some_and(|config_map| text(config_map, "name") == ROOT_CA_CONFIG_MAP)
    };
    pod::volumes(pod)
        .iter()
        .filter(|volume| text(volume, "name") == name && !name.starts_with(VOLUME_PREFIX))
        .any(|volume| is_root_ca(volume) || items(volume.get("projected"), "sources").iter().any(is_root_ca))
}
