//! Whole recorders and what is made of them: `tests/recorders/NAME.in.yaml` and `NAME.out.yaml`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p podwitness-webhook golden` writes the latter anew; read the difference.

use std::{fs, path::Path};

use serde::Deserialize as _;

use super::*;

fn settings() -> Settings {
    Settings {
        namespace: "podwitness-system".into(),
        image: "podwitness.dev/recorder:dev".into(),
        eviction_percent: 10,
    }
}

fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn recorder(value: Value) -> Recorder {
    serde_json::from_value(value).unwrap()
}

fn check(name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorders");
    let before = read(&dir.join(format!("{name}.in.yaml"))).remove(0);
    let made: Vec<Value> =
        desired(&recorder(before), &settings()).into_iter().map(|object| object.body).collect();
    let written: Vec<String> = made.iter().map(|body| serde_yaml_ng::to_string(body).unwrap()).collect();
    let written = written.join("---\n");
    let path = dir.join(format!("{name}.out.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &written).unwrap();
    }
    assert!(made == read(&path), "{name} came out as\n{written}");
}

#[test]
fn golden_recorders_come_out_as_written() {
    for name in ["shipped", "claim", "bucket", "identity", "reference"] {
        check(name);
    }
}

fn spec(spec: &Value) -> Recorder {
    recorder(json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder",
        "metadata": {"name": "r", "uid": "u"}, "spec": spec}))
}

#[test]
fn every_object_is_the_recorder_s_and_found_by_our_label() {
    let bucket = json!({"replicas": 2, "storage": {"s3": {"endpoint": "e", "bucket": "b"}}});
    let objects = desired(&spec(&bucket), &settings());
    assert_eq!(objects.len(), 5);
    for Object { kind, name, body } in objects {
        let metadata = &body["metadata"];
        assert_eq!(
            (metadata["name"].as_str(), metadata["namespace"].as_str()),
            (Some(name.as_str()), Some("podwitness-system"))
        );
        assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], MANAGER, "{kind}");
        let owner = &metadata["ownerReferences"][0];
        assert_eq!((&owner["uid"], &owner["controller"]), (&json!("u"), &json!(true)));
        assert_eq!(body["kind"], kind.to_string());
    }
}

#[test]
fn a_selector_never_changes_with_what_a_recorder_adds() {
    let of = |spec_json: Value| {
        let objects = desired(&spec(&spec_json), &settings());
        objects.last().unwrap().body["spec"]["selector"].clone()
    };
    let plain = of(json!({"enableUI": true}));
    let labels =
        json!({"enableUI": true, "statefulSet": {"pod": {"labels": {"a": "b"}}, "labels": {"c": "d"}}});
    assert_eq!(plain, of(labels));
}

#[test]
fn whatever_a_recorder_adds_the_tunnel_has_its_capability_and_recordings_their_port() {
    let context =
        json!({"capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}, "readOnlyRootFilesystem": false});
    let pod = json!({"securityContext": {"sysctls": []}, "container": {"securityContext": context}});
    let objects = desired(&spec(&json!({"enableUI": true, "statefulSet": {"pod": pod}})), &settings());
    let pod = &objects.last().unwrap().body["spec"]["template"]["spec"];
    let [ingest, view] = pod["containers"].as_array().unwrap().as_slice() else { panic!("{pod}") };
    assert_eq!(ingest["securityContext"]["capabilities"]["add"], json!(["NET_RAW", "NET_ADMIN"]));
    assert_eq!(view["securityContext"]["capabilities"]["add"], json!(["NET_RAW"]));
    assert_eq!(view["securityContext"]["readOnlyRootFilesystem"], false);
    assert_eq!(pod["securityContext"]["sysctls"][0]["name"], "net.ipv4.ip_unprivileged_port_start");
}
