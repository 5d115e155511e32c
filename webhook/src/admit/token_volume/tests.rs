use podwitness_core::inject::Inject;

use super::*;
use crate::admit::{
    mutate,
    testing::{apply, pod, settings, token_mount, with},
};

/// A volume with every kind of source and with items of every kind of mode.
fn volume(default_mode: u32) -> Value {
    json!({"name": "token", "projected": {"defaultMode": default_mode, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 600, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "./pki//ca.crt"}]}},
        {"configMap": {"name": "scripts", "items": [{"key": "run", "path": "run", "mode": 0o555}]}},
        {"secret": {"name": "keys", "items": [{"key": "key", "path": "key", "mode": 0o400}]}},
        {"downwardAPI": {"items": [
            {"path": "labels", "mode": 0o640, "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}]}},
        {"clusterTrustBundle": {"name": "b", "path": "bundle"}},
        {"podCertificate": {"keyPath": "pod.key", "certificateChainPath": "pod.crt"}},
        {"configMap": {"name": "everything"}},
    ]}})
}

fn modes_in(pod: &Value, volume: &Value, names: [&str; 6]) -> [u32; 6] {
    let modes = modes(pod, volume);
    names.map(|name| modes.of_files.get(name).copied().unwrap_or(modes.default))
}

/// A token, the CA, a script, a key, a key of the trust bundle, and a key that is not named.
const NAMES: [&str; 6] = ["token", "pki/ca.crt", "run", "key", "pod.key", "any"];

fn secured(of_pod: Value, of_container: Value) -> Value {
    with(with(pod(), "/spec/securityContext", of_pod), "/spec/containers/0/securityContext", of_container)
}

#[test]
fn modes_are_those_of_the_volume_and_its_items() {
    assert_eq!(modes_in(&pod(), &volume(0o644), NAMES), [0o644, 0o644, 0o555, 0o400, 0o644, 0o644]);
    assert_eq!(modes_in(&pod(), &volume(0o400), NAMES), [0o400, 0o400, 0o555, 0o400, 0o400, 0o400]);
    let unsaid = json!({"name": "t", "projected": {"sources": []}});
    assert_eq!(modes(&pod(), &unsaid), Modes { default: 0o644, of_files: BTreeMap::new() });
}

#[test]
fn with_a_group_of_the_pod_the_group_reads_and_tokens_are_private() {
    for context in
        [json!({"fsGroup": 2000}), json!({"fsGroup": 0}), json!({"fsGroup": 2000, "runAsUser": 1000})]
    {
        let pod = secured(context, json!(null));
        assert_eq!(modes_in(&pod, &volume(0o644), NAMES), [0o640, 0o644, 0o555, 0o440, 0o640, 0o644]);
        assert_eq!(modes_in(&pod, &volume(0o400), NAMES), [0o640, 0o440, 0o555, 0o440, 0o640, 0o440]);
    }
}

#[test]
fn a_token_of_one_user_is_readable_to_him() {
    let one = secured(json!({"runAsUser": 1000}), json!(null));
    assert_eq!(modes_in(&one, &volume(0o400), NAMES), [0o644, 0o400, 0o555, 0o400, 0o644, 0o400]);
    let other = json!([{"name": "setup", "image": "i", "securityContext": {"runAsUser": 1}}]);
    let two = with(one, "/spec/initContainers", other);
    assert_eq!(modes_in(&two, &volume(0o400), NAMES), [0o400, 0o400, 0o555, 0o400, 0o400, 0o400]);
}

#[test]
fn a_root_without_capabilities_gets_at_what_is_roots() {
    let dropping = |what: &str| json!({"capabilities": {"drop": [what]}});
    let widened = [0o440, 0o440, 0o555, 0o440, 0o440, 0o440];
    let as_given = [0o400, 0o400, 0o555, 0o400, 0o400, 0o400];
    for (of_pod, of_container, expected) in [
        (json!(null), dropping("ALL"), widened),
        (json!(null), dropping("cap_dac_override"), widened),
        (json!(null), dropping("NET_RAW"), as_given),
        (json!({"runAsNonRoot": true}), dropping("ALL"), as_given),
        (
            json!({"runAsNonRoot": true}),
            json!({"runAsNonRoot": false, "capabilities": {"drop": ["ALL"]}}),
            widened,
        ),
        (json!(null), json!({"capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE"]}}), as_given),
    ] {
        let pod = secured(of_pod, of_container);
        assert_eq!(modes_in(&pod, &volume(0o400), NAMES), expected, "{pod}");
    }
    // What others may read and run anyway stays as it is.
    assert_eq!(modes(&secured(json!(null), dropping("ALL")), &volume(0o755)).default, 0o755);
    assert_eq!(modes(&secured(json!(null), dropping("ALL")), &volume(0o644)).default, 0o644);
}

#[test]
fn the_sidecar_reads_every_source_and_no_mode_keeps_it_from_that() {
    let (source, limit) = source(&volume(0o400));
    assert_eq!(source["defaultMode"], 0o444);
    assert_eq!(source["sources"].as_array().unwrap().len(), 8);
    assert!(!source.to_string().contains("\"mode\""), "{source}");
    assert_eq!(source["sources"][0], volume(0)["projected"]["sources"][0]);
    assert_eq!(limit, "68Mi");
    let plain = json!({"name": "ca", "configMap": {"name": "kube-root-ca.crt", "defaultMode": 0o400, "optional": true}});
    let (source, limit) = super::source(&plain);
    let expected = json!([{"configMap": {"name": "kube-root-ca.crt", "optional": true}}]);
    assert_eq!((&source["sources"], limit.as_str()), (&expected, "12Mi"));
    assert_eq!(modes(&pod(), &plain).default, 0o400);
}

#[test]
fn what_a_container_mounts_within_a_volume_has_a_place() {
    let mount = |path: &str| json!({"name": "x", "mountPath": path});
    let paths = ["/t", "/t/b/c", "/t/b", "/t//a/", "/table", "/t/bc", "/other"];
    let container = json!({"volumeMounts": paths.map(mount)});
    assert_eq!(mount_points(&container, "/t/"), ["a", "b", "bc"]);
    assert_eq!(mount_points(&container, "/other"), Vec::<String>::new());
    let paths = ["/t", "/t/../../x", "/t/../y", "/t/a/../z"];
    let outside = json!({"volumeMounts": paths.map(mount)});
    assert_eq!(mount_points(&outside, "/t"), ["z"]);
}

#[test]
fn a_volume_above_the_path_of_the_bundle_has_a_place_for_it_at_every_pass() {
    let mount = json!({"name": "kube-api-access-abcde", "mountPath": "/var/run", "readOnly": true});
    let before = with(pod(), "/spec/containers/0/volumeMounts", json!([mount]));
    assert_eq!(mount_points(&before["spec"]["containers"][0], "/var/run"), ["podwitness/ca"]);
    let patch = mutate(&before, &settings(Inject::Required)).unwrap();
    let after = apply(before, &patch);
    assert_eq!(mount_points(&after["spec"]["containers"][0], "/var/run"), ["podwitness/ca"]);
    assert_eq!(mutate(&after, &settings(Inject::Required)), Ok(vec![]));
}

#[test]
fn containers_share_the_directory_of_a_volume() {
    let mut two = pod();
    let other = json!({"name": "other", "image": "i", "volumeMounts": [
        token_mount(), {"name": "data", "mountPath": format!("{}/extra", text(&token_mount(), "mountPath"))}]});
    two["spec"]["containers"].as_array_mut().unwrap().push(other);
    two["spec"]["volumes"].as_array_mut().unwrap().push(json!({"name": "data", "emptyDir": {}}));
    let patch = mutate(&two, &settings(Inject::Required)).unwrap();
    let after = apply(two, &patch);
    for container in after["spec"]["containers"].as_array().unwrap() {
        assert_eq!(container["volumeMounts"][0]["name"], "podwitness-serviceaccount-0");
    }
    let env = after["spec"]["initContainers"][0]["env"].as_array().unwrap();
    let told = env.iter().find(|variable| variable["name"] == "PODWITNESS_SERVICE_ACCOUNTS").unwrap();
    let told: Vec<ServiceAccountDir> = serde_json::from_str(told["value"].as_str().unwrap()).unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].volume.as_str(), &told[0].mount_points),
        ("kube-api-access-abcde", &vec!["extra".to_owned()])
    );
}
