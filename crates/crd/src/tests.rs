use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

#[test]
fn manifests_are_those_of_the_types() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/crds/podwitness.dev.yaml");
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == manifests().unwrap(),
        "{path} has drifted: cargo run -p podwitness-crd > manifests/crds/podwitness.dev.yaml"
    );
}

#[test]
fn every_rule_found_its_place_in_the_schema() {
    let messages = |definition: Value| {
        let mut found = BTreeSet::new();
        collect(&definition, &mut found);
        found
    };
    let grant = messages(serde_json::to_value(Grant::crd()).unwrap());
    let says = |list: &BTreeSet<String>, word: &str| list.iter().any(|message| message.contains(word));
    for word in [
        "src",
        "dst",
        "serviceaccount:",
        "pod:",
        "enforceRecorder",
        "tag:NAME",
        "verbs",
        "resources",
        "maskFlags",
        "* stands alone",
        "with a name",
        "namespace:NAME",
        "tag.podwitness.dev/NAME",
        "without a prefix",
    ] {
        assert!(says(&grant, word), "no rule of Grant speaks of {word}: {grant:?}");
    }
    assert_eq!(grant.len(), 14);
    let recorder = messages(serde_json::to_value(Recorder::crd()).unwrap());
    for word in [
        "belong together",
        "set plaintext: true if",
        "goes with an address",
        "runs elsewhere: leave storage",
        "tag:NAME",
        "no grant",
        "at most 52",
        "replicas: 1",
        "tailnet is immutable",
        "emptyDir and volumeClaimTemplate",
        "kmsKey",
        "ack: volume",
        "installation itself",
        "configMap or secret",
    ] {
        assert!(says(&recorder, word), "no rule of Recorder speaks of {word}: {recorder:?}");
    }
    for field in ["publicKey", "endpoint", "address"] {
        assert!(recorder.iter().any(|message| message.starts_with(&format!("{field} is "))), "{recorder:?}");
    }
    assert_eq!(recorder.len(), 18);
}

#[test]
fn every_list_has_a_cap_so_that_the_cost_of_rules_is_bounded() {
    for definition in [Grant::crd(), Recorder::crd()] {
        let mut uncapped = Vec::new();
        lists(&serde_json::to_value(&definition).unwrap(), "", &mut uncapped);
        assert!(uncapped.is_empty(), "{uncapped:?}");
    }
}

#[test]
fn a_grant_says_what_the_contract_says() {
    let yaml = "
apiVersion: podwitness.dev/v1alpha1
kind: Grant
metadata: {name: prod}
spec:
  src: [group:sre]
  dst: [namespace:shop]
  app:
    tailscale.com/cap/kubernetes:
    - recorder: [tag:podwitness]
      enforceRecorder: true
      lead: 65536
";
    let grant: Grant = serde_yaml_ng::from_str(yaml).unwrap();
    let named = grant.named();
    assert_eq!(named.name, "prod");
    assert!(named.spec.enforces());
    assert_eq!(named.spec.app.kubernetes[0].lead, Some(65536));
    let back = serde_json::to_value(&grant).unwrap();
    assert_eq!(back["spec"]["app"]["tailscale.com/cap/kubernetes"][0]["recorder"][0], "tag:podwitness");
}

#[test]
fn a_recorder_without_tags_has_the_tag_of_the_shipped_grant() {
    let recorder: Recorder = serde_yaml_ng::from_str(
        "{apiVersion: podwitness.dev/v1alpha1, kind: Recorder, metadata: {name: r}, spec: {}}",
    )
    .unwrap();
    assert_eq!(recorder.spec.tags, [DEFAULT_TAG]);
}

/// A manifest of `tailscale.com/v1alpha1`, whose apiVersion alone was changed, with every field there is.
const REFERENCE: &str = "
apiVersion: podwitness.dev/v1alpha1
kind: Recorder
metadata: {name: recorder}
spec:
  enableUI: true
  replicas: 2
  tags: [tag:k8s]
  tailnet: corp
  storage: {s3: {endpoint: s3.us-east-1.amazonaws.com, bucket: recordings, credentials: {secret: {name: s3-auth}}}}
  statefulSet:
    labels: {a: b}
    annotations: {a: b}
    pod:
      labels: {a: b}
      annotations: {a: b}
      affinity: {nodeAffinity: {x: y}}
      securityContext: {runAsUser: 1000}
      imagePullSecrets: [{name: registry}]
      nodeSelector: {a: b}
      tolerations: [{operator: Exists}]
      serviceAccount: {name: writer, annotations: {a: b}}
      container:
        env: [{name: A, value: b}]
        image: tailscale/tsrecorder:v1.80.0
        imagePullPolicy: Always
        resources: {limits: {memory: 1Gi}}
        securityContext: {privileged: false}
";

#[test]
fn every_field_of_the_reference_is_kept_under_its_name() {
    let written: Value = serde_yaml_ng::from_str(REFERENCE).unwrap();
    let recorder: Recorder = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(&recorder.spec).unwrap(), written["spec"]);
    let definition = serde_json::to_value(Recorder::crd()).unwrap();
    known(&written["spec"], &definition.pointer(SPEC).unwrap().clone(), "spec");
}

const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";

/// The schema knows what is written, so that the API server does not drop it.
fn known(value: &Value, schema: &Value, path: &str) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                let of_child =
                    schema["properties"].get(key).unwrap_or_else(|| &schema["additionalProperties"]);
                known(child, of_child, &format!("{path}.{key}"));
            }
        }
        Value::Array(list) => list.iter().for_each(|child| known(child, &schema["items"], path)),
        _ => assert!(schema["type"].is_string(), "the schema does not know {path}: {schema}"),
    }
}

#[test]
fn a_recorder_has_the_defaults_of_the_reference() {
    let spec = RecorderSpec::default();
    assert_eq!((spec.enable_ui, spec.replicas), (false, 1));
    let definition = serde_json::to_value(Recorder::crd()).unwrap();
    let of = |field: &str| definition.pointer(SPEC).unwrap()["properties"][field]["default"].clone();
    assert_eq!((of("enableUI"), of("replicas")), (Value::from(false), Value::from(1)));
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    for rule in value["x-kubernetes-validations"].as_array().into_iter().flatten() {
        found.insert(rule["message"].as_str().unwrap().to_owned());
    }
    children(value).for_each(|(_, child)| collect(child, found));
}

fn lists(value: &Value, path: &str, uncapped: &mut Vec<String>) {
    if value["type"] == "array" && value.get("maxItems").is_none() {
        uncapped.push(path.to_owned());
    }
    children(value).for_each(|(key, child)| lists(child, &format!("{path}/{key}"), uncapped));
}

fn children(value: &Value) -> Box<dyn Iterator<Item = (String, &Value)> + '_> {
    match value {
        Value::Object(map) => Box::new(map.iter().map(|(key, child)| (key.clone(), child))),
        Value::Array(list) => Box::new(list.iter().enumerate().map(|(i, child)| (i.to_string(), child))),
        _ => Box::new(std::iter::empty()),
    }
}
