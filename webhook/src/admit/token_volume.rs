//! What a kubelet makes of a volume with the cluster's CA: which permissions its files have, and what it has to make for
//! other mounts within it. The sidecar makes the same of the one that stands in.
//!
//! Sources: `pkg/volume/projected/projected.go` and `pkg/volume/configmap/configmap.go` (modes), `pkg/volume/volume_linux.go`
//! (`changeFilePermission`: what `fsGroup` does), `pkg/volume/util/nested_volumes.go` (mount points).
//!
//! The sidecar reads the same sources by a volume of its own, which every user may read: it is not root, so that it could
//! not read files of mode 0400. It may not give files away either. They are its user's, and of the group that the
//! kubelet would give: root, or that of `fsGroup`, which directories hand on. So what only an owner may read is widened as
//! far as a container would not get at it otherwise:
//! * A token is its user's alone (0600) where all containers run as one user. Here it is readable to all that mount it,
//!   who are this user.
//! * A root without DAC_OVERRIDE is no more than an owner. Here its group, root, may do what the owner may.

use std::collections::BTreeMap;

use podwitness_core::inject::{MOUNT_CA, ServiceAccountDir};
use serde_json::{Map, Value, json};

use super::{
    pod::{items, others, text},
    quantity::memory_text,
};

/// Modes in the volume from which the sidecar reads.
const READABLE: u32 = 0o444;
/// What `fsGroup` lets the group do with files of a read-only volume.
const GROUP_READS: u32 = 0o440;
/// A token, a bundle or a key where the kubelet knows whose it is.
const PRIVATE: u32 = 0o600;
const MIB: u64 = 1 << 20;
/// Room for each source: two generations of a ConfigMap (1 MiB), whose files take whole pages.
const ROOM_OF_SOURCE: u64 = 8 * MIB;
/// Room for directories and links.
const ROOM: u64 = 4 * MIB;

/// Permission bits of a volume's files.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Modes {
    /// Of those that are not named.
    pub(super) default: u32,
    /// By path in the volume.
    pub(super) of_files: BTreeMap<String, u32>,
}

/// The modes that the kubelet would give to the files of `volume`, as far as it can be told without their names.
pub(super) fn modes(pod: &Value, volume: &Value) -> Modes {
    let definition = volume.get("projected").or_else(|| volume.get("configMap"));
    let given =
        |object: &Value, field: &str| object.get(field)?.as_u64().and_then(|mode| u32::try_from(mode).ok());
    let default =
        definition.and_then(|it| given(it, "defaultMode")).unwrap_or(ServiceAccountDir::DEFAULT_MODE);
    let fs_group = fs_group(pod);
    let private = match (fs_group, runs_as_one_user(pod)) {
        (true, _) => PRIVATE,
        (false, true) => PRIVATE | READABLE,
        (false, false) => default,
    };
    let mut of_files = BTreeMap::new();
    for source in sources(volume) {
        for (kind, source) in source.as_object().into_iter().flatten() {
            for field in private_paths(kind) {
                of_files.insert(clean(text(source, field)), private);
            }
            for item in items(Some(source), "items") {
                of_files.insert(clean(text(item, "path")), given(item, "mode").unwrap_or(default));
            }
        }
    }
    of_files.remove("");
    let plain_root = !fs_group && others(pod).any(|container| is_plain_root(pod, container.value));
    let completed = |mode: u32| {
        let group = if fs_group { GROUP_READS } else { 0 };
        let of_owner = if plain_root { (mode & 0o500) >> 3 } else { 0 };
        (mode | group | of_owner) & 0o777
    };
    let default = completed(default);
    of_files.values_mut().for_each(|mode| *mode = completed(*mode));
    of_files.retain(|_, mode| *mode != default);
    Modes { default, of_files }
}

/// The sources of `volume` as the sidecar projects them, and what the files made of them may take.
pub(super) fn source(volume: &Value) -> (Value, String) {
    let sources: Vec<Value> = sources(volume).into_iter().map(without_modes).collect();
    let count = u64::try_from(sources.len()).unwrap_or(u64::MAX);
    let limit = memory_text(count.saturating_mul(ROOM_OF_SOURCE).saturating_add(ROOM));
    (json!({"defaultMode": READABLE, "sources": sources}), limit)
}

/// Directories within a mount at `path` on which the container mounts something else, relative to it. Those within one
/// of them are of that mount. The bundle of the sidecar is mounted in every container.
pub(super) fn mount_points(container: &Value, path: &str) -> Vec<String> {
    let within = format!("/{}/", clean(path));
    let mounts = items(Some(container), "volumeMounts").iter();
    let paths = mounts.map(|mount| text(mount, "mountPath")).chain([MOUNT_CA]);
    let paths = paths.map(|path| format!("/{}", clean(path)));
    let mut nested: Vec<String> =
        paths.filter_map(|path| path.strip_prefix(&within).map(ToOwned::to_owned)).collect();
    nested.sort();
    let mut kept: Vec<String> = Vec::new();
    for path in nested {
        if !kept.iter().any(|outer| path == *outer || path.starts_with(&format!("{outer}/"))) {
            kept.push(path);
        }
    }
    kept
}

/// What a volume projects; one of a ConfigMap is like a projection of it alone.
fn sources(volume: &Value) -> Vec<Value> {
    match volume.get("configMap") {
        Some(config_map) => {
            let mut config_map = config_map.clone();
            if let Some(fields) = config_map.as_object_mut() {
                fields.remove("defaultMode");
            }
            vec![json!({"configMap": config_map})]
        }
        None => items(volume.get("projected"), "sources").to_vec(),
    }
}

fn without_modes(mut source: Value) -> Value {
    for kind in source.as_object_mut().into_iter().flat_map(Map::values_mut) {
        for item in kind.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(fields) = item.as_object_mut() {
                fields.remove("mode");
            }
        }
    }
    source
}

/// Fields of a source with the paths of files that are private where the kubelet knows whose they are.
const fn private_paths(kind: &str) -> &'static [&'static str] {
    match kind.as_bytes() {
        b"serviceAccountToken" | b"clusterTrustBundle" => &["path"],
        b"podCertificate" => &["credentialBundlePath", "keyPath", "certificateChainPath"],
        _ => &[],
    }
}

fn fs_group(pod: &Value) -> bool {
    pod.pointer("/spec/securityContext/fsGroup").is_some_and(Value::is_i64)
}

/// Whether all containers say that they run as the same user (`FsUserFrom` of `pkg/volume/util`).
fn runs_as_one_user(pod: &Value) -> bool {
    let mut users = others(pod).map(|container| user(pod, container.value));
    let first = users.next().flatten();
    first.is_some() && users.all(|user| user == first)
}

/// Whether a container may run as a root that is held to permissions.
fn is_plain_root(pod: &Value, container: &Value) -> bool {
    let lists = |list: &str, wanted: &[&str]| {
        let names = items(container.pointer("/securityContext/capabilities"), list).iter();
        let mut names = names.filter_map(Value::as_str).map(str::to_uppercase);
        names.any(|name| wanted.contains(&name.strip_prefix("CAP_").unwrap_or(&name)))
    };
    let may_be_root = match user(pod, container) {
        Some(user) => user == 0,
        None => effective(pod, container, "runAsNonRoot").and_then(Value::as_bool) != Some(true),
    };
    may_be_root
        && lists("drop", &["ALL", "DAC_OVERRIDE"])
        && !lists("add", &["ALL", "DAC_OVERRIDE", "DAC_READ_SEARCH"])
}

fn user(pod: &Value, container: &Value) -> Option<i64> {
    effective(pod, container, "runAsUser").and_then(Value::as_i64)
}

/// A field of the container's security context, or else of the pod's.
fn effective<'a>(pod: &'a Value, container: &'a Value, field: &str) -> Option<&'a Value> {
    let contexts = [container.get("securityContext"), pod.pointer("/spec/securityContext")];
    contexts.into_iter().find_map(|context| context?.get(field).filter(|value| !value.is_null()))
}

/// A path as the kubelet cleans it (`path.Clean` of Go, below the root), without a slash in front.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests;
