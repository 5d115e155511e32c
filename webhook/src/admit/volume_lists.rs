//! Annotations that list volumes for programs which look at all volumes of a pod: the sidecar's are added to what is
//! there, so that a pod is moved and backed up as it would be without them.
//!
//! Both programs split the value at its commas and compare what lies between as it is
//! (`cluster-autoscaler/utils/drain/drain.go`, `velero/pkg/util/podvolume/pod_volume.go`). So names of others are kept as
//! they were written, and no blank is put between ours.

use podwitness_core::inject::VOLUME_PREFIX;
use serde_json::Value;

use super::pod::{self, text};

/// Volumes on the node that do not keep the cluster autoscaler from removing it: of type `hostPath`, or `emptyDir` that
/// is not in memory. Unsent recordings in the spool are uploaded while the pod ends.
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// Volumes that Velero does not copy where it copies all: it never copies `hostPath`, `secret`, `configMap`,
/// `projected` and `downwardAPI`. Ours hold keys, tokens, and recordings that belong to a recorder.
const BACKUP_EXCLUDES: &str = "backup.velero.io/backup-volumes-excludes";

/// The values that the annotations of `pod` have with `ours`, the sidecar's volumes.
pub(super) fn of(pod: &Value, ours: &[Value]) -> [(&'static str, String); 2] {
    [(SAFE_TO_EVICT, is_local as fn(&Value) -> bool), (BACKUP_EXCLUDES, is_copied)].map(|(key, counts)| {
        let names = ours.iter().filter(|volume| counts(volume)).map(|volume| text(volume, "name"));
        (key, merged(pod::annotation(pod, key).unwrap_or_default(), names))
    })
}

fn is_local(volume: &Value) -> bool {
    let on_disk = |dir: &Value| text(dir, "medium") != "Memory";
    volume.get("hostPath").is_some() || volume.get("emptyDir").is_some_and(on_disk)
}

fn is_copied(volume: &Value) -> bool {
    volume.get("emptyDir").is_some()
}

/// What is there, without names of ours from an earlier pass, and then `ours`.
fn merged<'a>(present: &'a str, ours: impl Iterator<Item = &'a str>) -> String {
    let others = present.split(',').filter(|name| !name.is_empty() && !name.starts_with(VOLUME_PREFIX));
    others.chain(ours).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use podwitness_core::inject::Inject;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::admit::{
        Settings, mutate,
        testing::{apply, pod, settings, token_mount, with},
    };

    fn injected(pod: Value) -> Value {
        let patch = mutate(&pod, &settings(Inject::Required)).unwrap();
        apply(pod, &patch)
    }

    fn annotated(key: &str, value: &str) -> Value {
        with(pod(), "/metadata/annotations", json!({key: value}))
    }

    fn listed<'a>(pod: &'a Value, key: &str) -> Vec<&'a str> {
        pod::annotation(pod, key).unwrap().split(',').collect()
    }

    /// As the cluster autoscaler decides: `HasBlockingLocalStorage`.
    fn blocks(pod: &Value) -> bool {
        let safe = listed(pod, SAFE_TO_EVICT);
        pod::volumes(pod).iter().any(|volume| {
            let local = volume.get("hostPath").is_some()
                || volume.get("emptyDir").is_some_and(|dir| dir.get("medium") != Some(&json!("Memory")));
            local && !safe.contains(&text(volume, "name"))
        })
    }

    /// As Velero decides where it copies all volumes: `GetVolumesByPod`.
    fn copied(pod: &Value) -> Vec<&str> {
        let excluded = listed(pod, BACKUP_EXCLUDES);
        let skipped = ["hostPath", "secret", "configMap", "projected", "downwardAPI"];
        pod::volumes(pod)
            .iter()
            .filter(|volume| skipped.iter().all(|kind| volume.get(kind).is_none()))
            .map(|volume| text(volume, "name"))
            .filter(|name| !excluded.contains(name))
            .collect()
    }

    fn with_volume(mut pod: Value, volume: Value) -> Value {
        pod["spec"]["volumes"].as_array_mut().unwrap().push(volume);
        pod
    }

    #[test]
    fn the_sidecars_volumes_neither_hold_a_node_nor_are_backed_up() {
        let after = injected(pod());
        assert!(!blocks(&after), "{after}");
        assert_eq!(copied(&after), Vec::<&str>::new());
    }

    #[test]
    fn the_pods_own_volumes_count_as_before() {
        let scratch = json!({"name": "scratch", "emptyDir": {}});
        let after = injected(with_volume(pod(), scratch.clone()));
        assert!(blocks(&after));
        assert_eq!(copied(&after), ["scratch"]);
        let excused = with_volume(annotated(SAFE_TO_EVICT, "scratch"), scratch.clone());
        assert!(!blocks(&injected(excused)));
        let excluded = with_volume(annotated(BACKUP_EXCLUDES, "scratch,other"), scratch);
        let after = injected(excluded);
        assert_eq!(copied(&after), Vec::<&str>::new());
        assert_eq!(listed(&after, BACKUP_EXCLUDES)[..2], ["scratch", "other"]);
    }

    #[test]
    fn where_every_kernel_has_wireguard_there_is_no_volume_of_the_node() {
        let without = Settings { node_tun: false, ..settings(Inject::Required) };
        for before in [pod(), injected(pod())] {
            let patch = mutate(&before, &without).unwrap();
            let after = apply(before, &patch);
            assert!(!after.to_string().contains("/dev/net"), "{after}");
            assert!(!blocks(&after));
            assert_eq!(mutate(&after, &without), Ok(vec![]));
        }
    }

    #[test]
    fn names_of_ours_that_are_no_longer_there_go() {
        let mut fewer = injected(pod());
        fewer["spec"]["containers"][0]["volumeMounts"] = json!([]);
        assert!(
            listed(&injected(fewer.clone()), BACKUP_EXCLUDES).len() < listed(&fewer, BACKUP_EXCLUDES).len()
        );
        fewer["spec"]["containers"][0]["volumeMounts"] = json!([token_mount()]);
        let after = injected(fewer);
        assert_eq!(after["metadata"]["annotations"], injected(pod())["metadata"]["annotations"]);
    }

    proptest! {
        #[test]
        fn what_others_wrote_stays_and_a_second_pass_changes_nothing(written in "[a-z, -]{0,24}") {
            let ours = json!([{"name": "podwitness-spool", "emptyDir": {}}]);
            let ours = ours.as_array().unwrap();
            let [(_, once), _] = of(&annotated(SAFE_TO_EVICT, &written), ours);
            let kept: Vec<&str> = written.split(',').filter(|name| !name.is_empty()).collect();
            prop_assert!(once.split(',').filter(|name| *name != "podwitness-spool").eq(kept));
            let [(_, twice), _] = of(&annotated(SAFE_TO_EVICT, &once), ours);
            prop_assert_eq!(once, twice);
        }
    }
}
