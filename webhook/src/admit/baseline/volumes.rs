//! What volumes a pod may have.

use podwitness_core::{
    allow::{Allowance, is_at_or_below, normal_path},
    inject::VOLUME_PREFIX,
};
use serde_json::Value;

use super::{
    super::{
        pod::{self, Container, debug, items, others, text},
        refusal::Reason,
    },
    Findings,
};

/// Types that reach no file or disk of the node. It is the list of Pod Security *restricted*
/// (`check_restrictedVolumes.go`) and `nfs`; the other types of *baseline* name disks, which may be the node's.
const TYPES: [&str; 10] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "nfs",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Public files of the node: time zones and CA certificates, at the paths that distributions use.
const HARMLESS: [&str; 12] = [
    "/etc/ca-certificates",
    "/etc/localtime",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/timezone",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/var/lib/ca-certificates",
];

/// Applies the rules for volumes. Names of ours are looked at elsewhere: what bears one is repaired, or refused.
pub(super) fn check(pod: &Value, findings: &mut Findings<'_>) {
    for (index, volume) in pod::volumes(pod).iter().enumerate() {
        let name = text(volume, "name");
        if name.starts_with(VOLUME_PREFIX) {
            continue;
        }
        let sources = volume.as_object().into_iter().flatten();
        for (kind, source) in sources.filter(|(key, source)| *key != "name" && !source.is_null()) {
            let field = format!("spec.volumes[{index}].{kind}");
            if kind == "hostPath" {
                let writable = creates(source) || is_mounted_writable(pod, name);
                of_node(source, writable, format!("{field}.path"), findings);
            } else if !TYPES.contains(&kind.as_str()) {
                let item = Allowance::parse(&format!("volume:{kind}"));
                let problem = format!("volume {name} is of a type that may reach disks of the node");
                findings.refuse_unless(item, Reason::VolumeType, field, problem);
            }
        }
    }
}

/// Applies the rules for volumes of the node to the mounts of one container.
pub(super) fn check_mounts(pod: &Value, container: &Container<'_>, findings: &mut Findings<'_>) {
    for (index, mount) in items(Some(container.value), "volumeMounts").iter().enumerate() {
        let volume = pod::volumes(pod).iter().find(|volume| text(volume, "name") == text(mount, "name"));
        if let Some(source) = volume.and_then(|volume| volume.get("hostPath")) {
            let field = format!("{}.volumeMounts[{index}]", container.field());
            of_node(source, !is_read_only(mount), field, findings);
        }
    }
}

fn of_node(source: &Value, writable: bool, field: String, findings: &mut Findings<'_>) {
    let path = text(source, "path");
    let Some(path) = normal_path(path) else {
        findings.refuse(Reason::HostPath, field, format!("{path:?} is no plain absolute path below /"));
        return;
    };
    if !writable && HARMLESS.iter().any(|harmless| is_at_or_below(path, harmless)) {
        return;
    }
    let item = Allowance::parse(&format!("hostPath:{path}{}", if writable { ":rw" } else { "" }));
    let how = if writable { "of the node, not mounted read-only" } else { "of the node" };
    findings.refuse_unless(item, Reason::HostPath, field, format!("{path} {how}"));
}

/// Whether the kubelet makes the file or directory where it is missing.
fn creates(source: &Value) -> bool {
    text(source, "type").ends_with("OrCreate")
}

fn is_mounted_writable(pod: &Value, volume: &str) -> bool {
    let containers = others(pod).chain(debug(pod));
    let mut mounts = containers.flat_map(|container| items(Some(container.value), "volumeMounts"));
    mounts.any(|mount| text(mount, "name") == volume && !is_read_only(mount))
}

fn is_read_only(mount: &Value) -> bool {
    super::flag(Some(mount), "readOnly")
}
