//! The directories that the sidecar keeps for other containers: every volume with the cluster's CA is replaced where it is
//! mounted, because behind the sidecar the API server shows a certificate of the in-pod CA.
//!
//! The volume is recognised by what it projects (ConfigMap `kube-root-ca.crt`), not by its name, so that hand-made
//! ones count like `kube-api-access-*`. One directory stands for one volume, however often that is mounted. In a pod that
//! was injected before, a mount of ours is traced back to the volume it stands for by what the sidecar was told. To
//! forge that gains nothing: its author could as well have written the pod with that volume.
//!
//! This is so with a certificate of the cluster's CA (`trust: cluster`), too, although clients trust it by the volume as it
//! was. Such a certificate lives for a day and a pod for longer, and the in-pod CA serves whenever there is none: while the
//! control plane is away, the signer is off, or after the option is taken back. What the kubelet mounted cannot change
//! then, and admission cannot know it before.

use podwitness_core::inject::{
    ENV_SERVICE_ACCOUNTS, MAX_SERVICE_ACCOUNT_DIRS, MOUNT_SERVICE_ACCOUNT, MOUNT_SOURCE, ROOT_CA_CONFIG_MAP,
    ServiceAccountDir, VOLUME_CA, VOLUME_PREFIX, VOLUME_SERVICE_ACCOUNT, VOLUME_SOURCE,
};
use serde_json::{Value, json};

use super::{
    patch::Patch,
    pod::{self, Container, items, others, text},
    refusal::{Reason, Refusal},
    token_volume,
};

/// Cap on what the sidecar is told of its directories, in bytes: a variable of a process ends at 128 KiB (`execve(2)`).
const MAX_TOLD: usize = 96 << 10;

/// All volumes to replace, in the order of their numbers, and where they are mounted.
#[derive(Debug, Default)]
pub(super) struct Dirs<'a> {
    volumes: Vec<Replaced<'a>>,
    mounts: Vec<Mount<'a>>,
}

/// A volume of the kubelet for which one of ours stands in.
#[derive(Debug)]
struct Replaced<'a> {
    volume: &'a Value,
    told: ServiceAccountDir,
}

/// One mount of such a volume.
#[derive(Debug)]
struct Mount<'a> {
    container: Container<'a>,
    index: usize,
    value: &'a Value,
    /// Number of the volume.
    number: usize,
}

/// Finds everything to replace.
pub(super) fn plan(pod: &Value) -> Result<Dirs<'_>, Refusal> {
    let mut dirs = Dirs::default();
    for container in others(pod) {
        for (index, value) in items(Some(container.value), "volumeMounts").iter().enumerate() {
            if let Some(volume) = replaced(pod, &container, text(value, "name"))? {
                let number = dirs.number(pod, volume, container.name());
                dirs.mounts.push(Mount { container, index, value, number });
            }
        }
    }
    dirs.name_mount_points();
    if dirs.volumes.len() > MAX_SERVICE_ACCOUNT_DIRS {
        let message = format!(
            "the pod mounts {} volumes with {ROOT_CA_CONFIG_MAP}; at most {MAX_SERVICE_ACCOUNT_DIRS} are kept: mount \
             fewer",
            dirs.volumes.len()
        );
        return Err(Reason::Directories.because(message));
    }
    if json!(dirs.told()).to_string().len() > MAX_TOLD {
        let message = format!(
            "volumes with {ROOT_CA_CONFIG_MAP} give so many files permissions of their own that the sidecar cannot be \
             told: use defaultMode, or another volume for files beside the token"
        );
        return Err(Reason::Directories.because(message));
    }
    Ok(dirs)
}

impl<'a> Dirs<'a> {
    /// The number of the directory for a volume, which is made for the first mount of it.
    fn number(&mut self, pod: &Value, volume: &'a Value, container: &str) -> usize {
        let name = text(volume, "name");
        if let Some(number) = self.volumes.iter().position(|known| text(known.volume, "name") == name) {
            return number;
        }
        let number = self.volumes.len();
        let (source, target) =
            (format!("{MOUNT_SOURCE}{number}"), format!("{MOUNT_SERVICE_ACCOUNT}{number}"));
        let modes = token_volume::modes(pod, volume);
        let told = ServiceAccountDir {
            volume: name.to_owned(),
            default_mode: modes.default,
            modes: modes.of_files,
            ..ServiceAccountDir::new(container, source, target)
        };
        self.volumes.push(Replaced { volume, told });
        number
    }

    /// Tells the sidecar what containers mount within its directories.
    fn name_mount_points(&mut self) {
        for mount in &self.mounts {
            let within = token_volume::mount_points(mount.container.value, text(mount.value, "mountPath"));
            if let Some(replaced) = self.volumes.get_mut(mount.number) {
                replaced.told.mount_points.extend(within);
            }
        }
        for replaced in &mut self.volumes {
            replaced.told.mount_points.sort();
            replaced.told.mount_points.dedup();
        }
    }

    /// Whether there is nothing to replace.
    pub(super) fn is_empty(&self) -> bool {
        self.volumes.is_empty()
    }

    /// What the sidecar is told, in the order of the numbers.
    pub(super) fn told(&self) -> Vec<ServiceAccountDir> {
        self.volumes.iter().map(|replaced| replaced.told.clone()).collect()
    }

    /// Volumes: what the sidecar reads, and what stands in.
    pub(super) fn volumes(&self) -> impl Iterator<Item = Value> {
        self.volumes.iter().enumerate().flat_map(|(number, replaced)| {
            let (source, limit) = token_volume::source(replaced.volume);
            let stand_in = json!({"medium": "Memory", "sizeLimit": limit});
            [
                json!({"name": format!("{VOLUME_SOURCE}{number}"), "projected": source}),
                json!({"name": format!("{VOLUME_SERVICE_ACCOUNT}{number}"), "emptyDir": stand_in}),
            ]
        })
    }

    /// Both ends of each in the sidecar: what the kubelet provides, and what containers will read.
    pub(super) fn sidecar_mounts(&self) -> impl Iterator<Item = Value> {
        self.volumes.iter().enumerate().flat_map(|(number, Replaced { told, .. })| {
            [
                json!({"name": format!("{VOLUME_SOURCE}{number}"), "mountPath": told.source, "readOnly": true}),
                json!({"name": format!("{VOLUME_SERVICE_ACCOUNT}{number}"), "mountPath": told.target}),
            ]
        })
    }

    /// Points each mount at the volume that stands in; everything else about it stays.
    pub(super) fn replace(&self, patch: &mut Patch) {
        for Mount { container, index, value, number } in &self.mounts {
            let mut mount = (*value).clone();
            if let Some(fields) = mount.as_object_mut() {
                fields.insert("name".to_owned(), format!("{VOLUME_SERVICE_ACCOUNT}{number}").into());
                fields.insert("readOnly".to_owned(), Value::from(true));
            }
            if mount != **value {
                patch.replace(&container.path(&["volumeMounts", &index.to_string()]), mount);
            }
        }
    }
}

/// The volume with the cluster's CA that is mounted by this name, or for which the one of this name stands; `None` where
/// it is any other volume.
fn replaced<'a>(pod: &'a Value, container: &Container<'_>, name: &str) -> Result<Option<&'a Value>, Refusal> {
    if !name.starts_with(VOLUME_PREFIX) || name == VOLUME_CA {
        return Ok(with_root_ca(pod, name));
    }
    let number = name.strip_prefix(VOLUME_SERVICE_ACCOUNT).and_then(|number| number.parse().ok());
    let original = number.and_then(|number| stood_for(pod, number)).and_then(|name| with_root_ca(pod, &name));
    original.map(Some).ok_or_else(|| {
        let message = format!(
            "container {} mounts volume {name}; names that begin with {VOLUME_PREFIX} are the sidecar's: choose another",
            container.name()
        );
        Reason::Volume.because(message)
    })
}

/// The volume for which the directory of this number stands, as the sidecar of the pod was told; one of an older version
/// mounts it.
fn stood_for(pod: &Value, number: usize) -> Option<String> {
    let sidecar = pod::sidecar(pod)?.value;
    let mut variables = items(Some(sidecar), "env").iter();
    let told = variables.find(|variable| text(variable, "name") == ENV_SERVICE_ACCOUNTS)?;
    let told: Vec<ServiceAccountDir> = serde_json::from_str(text(told, "value")).ok()?;
    let dir = told.into_iter().nth(number)?;
    if !dir.volume.is_empty() {
        return Some(dir.volume);
    }
    let mount =
        items(Some(sidecar), "volumeMounts").iter().find(|mount| text(mount, "mountPath") == dir.source)?;
    Some(text(mount, "name").to_owned())
}

/// A volume that is not ours and holds the cluster's CA.
fn with_root_ca<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    let is_root_ca = |source: &Value| {
        source.get("configMap").is_some_and(|config_map| text(config_map, "name") == ROOT_CA_CONFIG_MAP)
    };
    pod::volumes(pod)
        .iter()
        .find(|volume| text(volume, "name") == name && !name.starts_with(VOLUME_PREFIX))
        .filter(|volume| {
            is_root_ca(volume) || items(volume.get("projected"), "sources").iter().any(is_root_ca)
        })
}

#[cfg(test)]
mod tests;
