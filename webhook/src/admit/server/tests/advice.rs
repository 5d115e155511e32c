//! What only warns: keys and values without effect, grants without effect, pods that are older than the label.

use podwitness_core::labels::{Field, Holder, KEYS};

use super::*;

/// A review of any object; `resource` as `GROUP/RESOURCE`.
fn of_object(resource: &str, old: Option<&Value>, new: &Value) -> Value {
    let (group, resource) = resource.split_once('/').unwrap();
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u1", "name": "x", "namespace": "shop",
        "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
        "kind": {"group": group, "version": "v1", "kind": "X"},
        "resource": {"group": group, "version": "v1", "resource": resource},
        "userInfo": {"username": "ana"}, "object": new, "oldObject": old}})
}

fn warnings(response: &Value) -> Vec<String> {
    let all = response.get("warnings").and_then(Value::as_array).cloned().unwrap_or_default();
    all.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The decision and the warnings of the answer, which allows.
async fn advice(server: &Server, path: &str, review: &Value) -> (String, Vec<String>) {
    let response = server.review(path, review).await;
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None), "{response}");
    (response["auditAnnotations"]["decision"].as_str().unwrap().to_owned(), warnings(&response))
}

/// A world in which everything of namespace `shop` is recorded.
fn recorded() -> Server {
    let everything = json!({"src": ["*"], "dst": ["*"],
        "app": {"tailscale.com/cap/kubernetes": [{"recorder": ["tag:a"]}]}});
    with_grants(&[(labels::INJECT, "optional"), ("tag.podwitness.dev/pci", "")], &[everything])
}

#[tokio::test]
async fn keys_without_effect_on_a_namespace_are_a_warning() {
    let server = recorded();
    let optional = json!({labels::INJECT: "optional"});
    for (new, decision, says) in [
        (json!({"podwitness.io/inject": "required"}), "labelled: key", "label podwitness.dev/inject"),
        (json!({"podwitness.dev/injection": "required"}), "labelled: key", "label podwitness.dev/inject"),
        (json!({labels::INJECT: "optional", labels::EXEMPT: "app"}), "labelled: key", "it is an annotation"),
        (json!({"team": "a"}), "skipped: no-label", ""),
    ] {
        let (found, said) = advice(&server, "/namespaces", &labelling(Some(&json!({})), &new)).await;
        assert_eq!(found, decision, "{new}: {said:?}");
        assert_eq!(
            (said.len(), says.is_empty()),
            (usize::from(!says.is_empty()), said.is_empty()),
            "{said:?}"
        );
        assert!(said.iter().all(|text| text.contains(says)), "{said:?}");
    }
    let mut annotated = labelling(Some(&optional), &optional);
    annotated["request"]["object"]["metadata"]["annotations"] = json!({labels::INJECT: "required"});
    let (found, said) = advice(&server, "/namespaces", &annotated).await;
    assert_eq!(found, "labelled: key");
    assert!(said[0].contains("it is a label of the Namespace"), "{said:?}");
}

#[tokio::test]
async fn values_on_a_namespace_are_told_when_they_are_set() {
    let server = recorded();
    let optional = json!({labels::INJECT: "optional"});
    for (key, value, says) in [
        (labels::BYPASS_UNTIL, "tomorrow", "is not a time"),
        (labels::BYPASS_UNTIL, "2020-01-01T00:00:00Z", "is in the past"),
        (labels::BYPASS_UNTIL, "2199-01-01T00:00:00Z", "is that intended?"),
        (labels::EXEMPT, "app=batch", "get no sidecar"),
        (labels::LOG_LEVEL, "loud", "must be one of"),
    ] {
        let mut review = labelling(Some(&optional), &optional);
        review["request"]["object"]["metadata"]["annotations"] = json!({key: value});
        let (found, said) = advice(&server, "/namespaces", &review).await;
        assert_eq!((&*found, said.len()), ("labelled: value", 1), "{said:?}");
        assert!(said[0].contains(key) && said[0].contains(says), "{said:?}");
        review["request"]["oldObject"] = review["request"]["object"].clone();
        assert_eq!(advice(&server, "/namespaces", &review).await.0, "skipped: labels-unchanged");
    }
}

#[tokio::test]
async fn pods_that_are_older_than_the_label_are_counted_when_it_is_set() {
    let api = Api::default();
    let owners =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "u", "controller": true}]);
    let pod = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "p", "ownerReferences": owners}});
    let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {},
        "items": [pod]});
    api.answer("GET", "/api/v1/namespaces/shop/pods", list);
    let everything = json!({"src": ["*"], "dst": ["*"],
        "app": {"tailscale.com/cap/kubernetes": [{"recorder": ["tag:a"]}]}});
    let mut world = world("shop", &[], &[everything]);
    world.client = Some(api.client());
    let server = of_world(world);
    let (none, optional) = (json!({}), json!({labels::INJECT: "optional"}));
    let tagged = json!({labels::INJECT: "optional", "tag.podwitness.dev/pci": ""});
    for (old, new, decision) in [
        (Some(&none), &optional, "labelled: older-pods"),
        (Some(&optional), &tagged, "labelled"),
        (Some(&optional), &none, "skipped: no-label"),
        // There are none in a namespace that is created.
        (None, &optional, "labelled"),
    ] {
        let (found, said) = advice(&server, "/namespaces", &labelling(old, new)).await;
        assert_eq!(found, decision, "{said:?}");
        let told = said.iter().any(|text| text.ends_with("kubectl -n shop rollout restart deployment"));
        assert_eq!(told, decision.ends_with("older-pods"), "{said:?}");
    }
}

#[tokio::test]
async fn keys_of_pods_and_of_templates_are_a_warning() {
    let server = recorded();
    let wrong = json!({"annotations": {"podwitness.dev/injection": "x"}});
    let right = json!({"annotations": {labels::MEMORY_LIMIT: "256Mi"}, "labels": {"app": "x"}});
    let template = |metadata: &Value| json!({"metadata": {}, "spec": {"template": {"metadata": metadata}}});
    let cron = json!({"metadata": {}, "spec": {"jobTemplate": template(&wrong)}});
    for (resource, object, says) in [
        (
            "/pods",
            json!({"metadata": wrong}),
            "on a Pod; did you mean label podwitness.dev/inject of the Namespace?",
        ),
        ("/pods", json!({"metadata": right}), ""),
        ("apps/deployments", template(&wrong), "on a Pod; did you mean"),
        ("apps/deployments", template(&right), ""),
        (
            "apps/deployments",
            json!({"metadata": right}),
            "on a workload: it is an annotation of the Pod or Namespace",
        ),
        ("batch/cronjobs", cron, "on a Pod; did you mean"),
    ] {
        let (found, said) = advice(&server, "/keys", &of_object(resource, None, &object)).await;
        let expected = if says.is_empty() { "skipped: known-keys" } else { "advised: key" };
        assert_eq!((&*found, said.len()), (expected, usize::from(!says.is_empty())), "{resource} {object}");
        assert!(said.iter().all(|text| text.contains(says)), "{said:?}");
        let again = advice(&server, "/keys", &of_object(resource, Some(&object), &object)).await;
        assert_eq!(again.0, "skipped: known-keys");
    }
}

#[tokio::test]
async fn grants_without_effect_are_a_warning() {
    let server = recorded();
    let rule = |rule: Value| json!({"tailscale.com/cap/kubernetes": [rule]});
    let good = json!({"recorder": ["tag:a"]});
    for (src, dst, app, says) in [
        ("*", "*", rule(good.clone()), ""),
        ("*", "tag:pci", rule(good.clone()), ""),
        ("*", "namespace:shpo", rule(good.clone()), "did you mean namespace:shop?"),
        ("*", "shop", rule(good.clone()), "did you mean namespace:shop?"),
        ("groups:sre", "*", rule(good), "did you mean group:sre?"),
        ("*", "*", rule(json!({"resources": ["pod/exec"]})), "did you mean pods/exec?"),
        ("*", "*", rule(json!({"verbs": ["gett"]})), "did you mean get?"),
        ("*", "*", json!({}), "app has no tailscale.com/cap/kubernetes"),
    ] {
        let object = json!({"metadata": {"name": "g"}, "spec": {"src": [src], "dst": [dst], "app": app}});
        let review = of_object("podwitness.dev/grants", None, &object);
        let (found, said) = advice(&server, "/grants", &review).await;
        let expected = if says.is_empty() { "skipped: effective" } else { "advised: without-effect" };
        assert_eq!(found, expected, "{object}: {said:?}");
        assert!(says.is_empty() || said.iter().any(|text| text.contains(says)), "{object}: {said:?}");
        let again =
            advice(&server, "/grants", &of_object("podwitness.dev/grants", Some(&object), &object)).await;
        assert_eq!(again.0, "skipped: unchanged");
    }
}

/// The API server asks about pods whose keys may have no effect, and not about every pod that is injected.
#[test]
fn manifests_know_the_keys_that_pods_may_have() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/admission/webhook.yaml");
    let object: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let entries = object["webhooks"].as_array().unwrap();
    let condition = |name: &str| {
        let entry = entries.iter().find(|entry| entry["name"] == name).unwrap();
        entry["matchConditions"][0]["expression"].as_str().unwrap().to_owned()
    };
    let keys = condition("keys.podwitness.dev");
    for known in KEYS.iter().filter(|known| known.field == Field::Annotation) {
        let is_of_pods = known.holders.contains(&Holder::Pod);
        assert_eq!(keys.contains(&format!("'{}'", known.key)), is_of_pods, "{}: {keys}", known.key);
    }
    for name in ["keys.podwitness.dev", "namespaces.podwitness.dev"] {
        assert!(condition(name).contains("matches('(?i)pod.?wit')"), "{name}");
    }
    for key in [
        "podwitness.dev/x",
        "podwitness.io/x",
        "pod-witness.dev/x",
        "podwitnes.dev/x",
        "tag.podwitness.dev/x",
    ] {
        assert!(labels::looks_like_ours(key) && key.replace('-', "").contains("podwit"), "{key}");
    }
}
