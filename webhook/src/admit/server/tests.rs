use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use podwitness_core::labels;
use serde_json::{Value, json};

use super::*;
use crate::{
    admit::{
        events,
        ranges::tests::range,
        testing::{apply, pod, with},
        world::tests::world,
    },
    control::testing::Api,
    events::Publisher,
};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

struct Server {
    router: Router,
    registry: SharedRegistry,
    readiness: Readiness,
    api: Api,
    publisher: Publisher,
}

fn server(labels: &[(&str, &str)]) -> Server {
    with_grants(labels, &[])
}

fn with_grants(labels: &[(&str, &str)], grants: &[Value]) -> Server {
    of_world(world("shop", labels, grants))
}

fn of_world(world: World) -> Server {
    let (registry, readiness, api) = (SharedRegistry::new(), Readiness::new(), Api::default());
    api.answer("POST", EVENTS, json!({"metadata": {}, "eventTime": null}));
    let (events, publisher) = events::channel(api.client());
    let router = router(Arc::new(world), events, &registry, readiness.clone());
    Server { router, registry, readiness, api, publisher }
}

fn review(pod: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u1", "name": "pod", "namespace": "shop", "operation": "CREATE", "dryRun": true,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "userInfo": {"username": "ana", "groups": ["dev"], "extra": {"later": ["x"]}},
        "object": pod, "oldObject": null, "options": {"kind": "CreateOptions"}}})
}

impl Server {
    async fn answer(&self, path: &str, content_type: &str, body: Vec<u8>) -> Response {
        let request =
            Request::post(path).header("content-type", content_type).body(Body::from(body)).unwrap();
        TowerToHyperService::new(self.router.clone()).call(request).await.unwrap()
    }

    async fn send(&self, path: &str, content_type: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
        let response = self.answer(path, content_type, body).await;
        (response.status(), to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec())
    }

    /// The response part of the answer to a review.
    async fn review(&self, path: &str, review: &Value) -> Value {
        let (status, body) = self.send(path, "application/json", serde_json::to_vec(review).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&answer["apiVersion"], &answer["response"]["uid"]),
            (&json!("admission.k8s.io/v1"), &json!("u1"))
        );
        answer["response"].clone()
    }

    /// The Events that were published on what was reviewed.
    async fn events(self) -> Vec<Value> {
        drop(self.router);
        self.publisher.run().await;
        self.api.bodies("POST", EVENTS)
    }

    fn counted(&self, decision: &str, reason: &str) -> bool {
        let line =
            format!("podwitness_admission_reviews_total{{decision=\"{decision}\",reason=\"{reason}\"}} 1");
        self.registry.encode().unwrap().contains(&line)
    }
}

fn patch(response: &Value) -> Vec<json_patch::PatchOperation> {
    let bytes: Vec<u8> = serde_json::from_value(response["patch"].clone()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn a_replica_that_leaves_ends_the_connections_on_which_it_is_asked() {
    let server = server(&[(labels::INJECT, "required")]);
    let review = serde_json::to_vec(&review(&pod())).unwrap();
    let ends = async || {
        let answer = server.answer("/mutate/required", "application/json", review.clone()).await;
        answer.headers().get(CONNECTION).cloned()
    };
    assert_eq!(ends().await, None);
    let _leaving = server.readiness.block("shutdown");
    assert_eq!(ends().await, Some(HeaderValue::from_static("close")));
}

#[tokio::test]
async fn a_pod_is_patched_and_keeps_fields_that_nobody_here_knows() {
    let server = server(&[(labels::INJECT, "required")]);
    let pod = with(pod(), "/spec/later", json!({"field": [1]}));
    let response = server.review("/mutate/required", &review(&pod)).await;
    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")));
    assert_eq!(response["auditAnnotations"], json!({"decision": "injected"}));
    let after = apply(pod.clone(), &patch(&response));
    assert_eq!(after["spec"]["initContainers"][0]["name"], "podwitness");
    assert_eq!(after["spec"]["later"], pod["spec"]["later"]);
    assert!(server.counted("injected", ""));

    let again = server.review("/mutate/required", &review(&after)).await;
    assert_eq!((&again["allowed"], again.get("patch")), (&json!(true), None));
    assert!(server.counted("unchanged", ""));
}

#[tokio::test]
async fn a_pod_that_cannot_be_injected_is_refused_where_required_and_warned_about_where_not() {
    let server = server(&[(labels::INJECT, "required")]);
    let on_host = review(&with(pod(), "/spec/hostNetwork", json!(true)));
    let refused = server.review("/mutate/required", &on_host).await;
    assert_eq!((&refused["allowed"], &refused["status"]["code"]), (&json!(false), &json!(403)));
    assert!(refused["status"]["message"].as_str().unwrap().contains("hostNetwork"), "{refused}");
    assert!(server.counted("refused", "host-network"));

    let passed = server.review("/mutate/optional", &on_host).await;
    assert_eq!((&passed["allowed"], passed.get("patch")), (&json!(true), None));
    assert!(passed["warnings"][0].as_str().unwrap().contains("hostNetwork"), "{passed}");
    assert_eq!(passed["auditAnnotations"], json!({"decision": "let-through: host-network"}));
    assert!(server.counted("let-through", "host-network"));
}

#[tokio::test]
async fn without_an_entry_the_namespaces_label_decides() {
    let on_host = review(&with(pod(), "/spec/hostNetwork", json!(true)));
    for (label, allowed) in [("required", false), ("optional", true)] {
        let server = server(&[(labels::INJECT, label)]);
        assert_eq!(server.review("/mutate", &on_host).await["allowed"], json!(allowed), "{label}");
    }
    let unlabelled = server(&[]);
    assert_eq!(unlabelled.review("/mutate", &on_host).await["allowed"], json!(true));
    assert!(unlabelled.counted("skipped", "no-label"));
}

#[tokio::test]
async fn what_is_left_out_is_allowed_as_it_is() {
    let server = server(&[(labels::INJECT, "required")]);
    let mirror = with(pod(), "/metadata/annotations", json!({"kubernetes.io/config.mirror": "x"}));
    let mut system = review(&pod());
    system["request"]["namespace"] = json!("kube-system");
    let mut deployment = review(&pod());
    deployment["request"]["resource"] = json!({"group": "apps", "version": "v1", "resource": "deployments"});
    let mut update = review(&pod());
    update["request"]["operation"] = json!("UPDATE");
    for (review, reason) in [
        (review(&mirror), "mirror"),
        (system, "system-namespace"),
        (deployment, "not-a-new-pod"),
        (update, "not-a-new-pod"),
    ] {
        let response = server.review("/mutate/required", &review).await;
        assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None), "{reason}");
        assert_eq!(response["auditAnnotations"]["decision"], format!("skipped: {reason}"));
    }
}

#[tokio::test]
async fn debug_containers_lose_net_raw_where_injection_is_required() {
    let server = server(&[(labels::INJECT, "required")]);
    let injected = server.review("/mutate/required", &review(&pod())).await;
    let old = apply(pod(), &patch(&injected));
    let new = with(old.clone(), "/spec/ephemeralContainers", json!([{"name": "debug", "image": "i"}]));
    let mut update = review(&new);
    update["request"]["operation"] = json!("UPDATE");
    update["request"]["subResource"] = json!("ephemeralcontainers");
    update["request"]["oldObject"] = old;
    let response = server.review("/mutate/required", &update).await;
    let after = apply(new, &patch(&response));
    assert_eq!(
        after["spec"]["ephemeralContainers"][0]["securityContext"]["capabilities"]["drop"],
        json!(["NET_RAW"])
    );
    assert_eq!(server.review("/mutate/optional", &update).await.get("patch"), None);
}

#[tokio::test]
async fn a_debug_container_beyond_the_baseline_is_refused_where_injection_is_required() {
    let server = server(&[(labels::INJECT, "required")]);
    let injected = server.review("/mutate/required", &review(&pod())).await;
    let old = apply(pod(), &patch(&injected));
    let traces =
        json!([{"name": "d", "image": "i", "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}}]);
    let mut update = review(&with(old.clone(), "/spec/ephemeralContainers", traces));
    update["request"]["operation"] = json!("UPDATE");
    update["request"]["subResource"] = json!("ephemeralcontainers");
    update["request"]["oldObject"] = old;
    let response = server.review("/mutate/required", &update).await;
    assert_eq!(response["allowed"], json!(false));
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("spec.ephemeralContainers[0].securityContext.capabilities.add[0]"), "{message}");
    assert!(server.counted("refused", "capability"));
    assert_eq!(server.review("/mutate/optional", &update).await["allowed"], json!(true));
}

#[tokio::test]
async fn a_wrong_annotation_is_a_warning_where_injection_is_optional() {
    let server = server(&[(labels::INJECT, "optional")]);
    let wrong = with(pod(), "/metadata/annotations", json!({labels::MEMORY_LIMIT: "1Mi"}));
    let response = server.review("/mutate/optional", &review(&wrong)).await;
    assert!(response.get("patch").is_some());
    assert!(response["warnings"][0].as_str().unwrap().contains(labels::MEMORY_LIMIT), "{response}");
}

#[tokio::test]
async fn a_namespace_that_cannot_be_read_holds_back_only_what_is_required() {
    let server = server(&[(labels::INJECT, "required")]);
    let mut elsewhere = review(&pod());
    elsewhere["request"]["namespace"] = json!("elsewhere");
    assert_eq!(server.review("/mutate/required", &elsewhere).await["allowed"], json!(false));
    assert_eq!(server.review("/mutate", &elsewhere).await["allowed"], json!(false));
    assert_eq!(server.review("/mutate/optional", &elsewhere).await["allowed"], json!(true));
}

#[tokio::test]
async fn a_review_without_a_pod_is_refused_in_a_review() {
    let server = server(&[(labels::INJECT, "required")]);
    for object in [json!(null), json!({}), json!({"spec": 7}), json!({"spec": {"containers": []}})] {
        let response = server.review("/mutate/required", &review(&object)).await;
        assert_eq!(response["allowed"], json!(false), "{object}");
    }
}

/// A review of the namespace `shop` whose labels change.
fn labelling(old: Option<&Value>, new: &Value) -> Value {
    let object = |labels: &Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u1", "name": "shop", "namespace": "shop",
        "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
        "kind": {"group": "", "version": "v1", "kind": "Namespace"},
        "resource": {"group": "", "version": "v1", "resource": "namespaces"},
        "userInfo": {"username": "ana"}, "object": object(new), "oldObject": old.map(object)}})
}

#[tokio::test]
async fn a_label_that_records_nothing_is_a_warning() {
    let rule = |recorder: &[&str]| json!({"tailscale.com/cap/kubernetes": [{"recorder": recorder}]});
    let grant =
        |src: &str, dst: &str, recorder: &[&str]| json!({"src": [src], "dst": [dst], "app": rule(recorder)});
    let labelled = json!({labels::INJECT: "required", "tag.podwitness.dev/pci": ""});
    for (grants, warning) in [
        (vec![], Some("no Grant matches them")),
        (vec![grant("*", "namespace:office", &["tag:a"])], Some("no Grant matches them")),
        (vec![grant("*", "*", &[])], Some("name no recorder")),
        (vec![grant("autogroup:member", "*", &["tag:a"])], Some("match no user")),
        (vec![grant("*", "*", &["tag:a"])], None),
        (vec![grant("group:sre", "tag:pci", &["tag:a"])], None),
        (vec![grant("ana", "pod:shop/till", &["tag:a"])], None),
    ] {
        let server = with_grants(&[], &grants);
        let response = server.review("/namespaces", &labelling(None, &labelled)).await;
        assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
        let warnings = response["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        let warned = warnings.filter(|text| !text.contains("NET_RAW")).collect::<Vec<_>>().first().copied();
        assert_eq!(warned.is_some(), warning.is_some(), "{grants:?}: {response}");
        let (warned, warning) = (warned.unwrap_or_default(), warning.unwrap_or_default());
        assert!(warned.contains(warning), "{warned}");
        assert!(warned.is_empty() || warned.ends_with("dst: [\"namespace:shop\"]"), "{warned}");
    }
}

#[tokio::test]
async fn only_labels_that_change_are_looked_at() {
    let server = server(&[]);
    let labelled = json!({labels::INJECT: "required"});
    let tagged = json!({labels::INJECT: "required", "tag.podwitness.dev/pci": ""});
    for (old, new, decision) in [
        (None, &json!({}), "skipped: no-label"),
        (Some(&labelled), &json!({labels::INJECT: "required", "team": "a"}), "skipped: labels-unchanged"),
        (Some(&labelled), &json!({}), "skipped: no-label"),
        (Some(&json!({})), &labelled, "labelled: no-grant"),
        (Some(&labelled), &tagged, "labelled: no-grant"),
        (Some(&labelled), &json!({labels::INJECT: "optional"}), "labelled: no-grant"),
    ] {
        let response = server.review("/namespaces", &labelling(old, new)).await;
        assert_eq!(response["auditAnnotations"]["decision"], decision, "{old:?} {new}");
    }
    let response = server.review("/namespaces", &review(&pod())).await;
    assert_eq!(response["auditAnnotations"]["decision"], "skipped: not-a-namespace");
}

#[tokio::test]
async fn what_required_takes_from_pods_is_said_when_the_label_is_set() {
    let everything = json!({"src": ["*"], "dst": ["*"],
        "app": {"tailscale.com/cap/kubernetes": [{"recorder": ["tag:a"]}]}});
    let server = with_grants(&[], &[everything]);
    let (required, optional) = (json!({labels::INJECT: "required"}), json!({labels::INJECT: "optional"}));
    let tagged = json!({labels::INJECT: "required", "tag.podwitness.dev/pci": ""});
    for (old, new, said) in [
        (None, &required, true),
        (Some(&optional), &required, true),
        (Some(&required), &tagged, false),
        (Some(&required), &optional, false),
        (None, &optional, false),
    ] {
        let response = server.review("/namespaces", &labelling(old, new)).await;
        let warnings = response.get("warnings").and_then(Value::as_array).cloned().unwrap_or_default();
        assert_eq!(warnings.len(), usize::from(said), "{old:?} {new}: {response}");
        for warning in warnings.iter().map(|text| text.as_str().unwrap()) {
            assert!(warning.contains("ping_group_range") && warning.ends_with("accepts"), "{warning}");
        }
        let decision = if said { "labelled: required" } else { "labelled" };
        assert_eq!(response["auditAnnotations"]["decision"], decision);
    }
}

/// A review of a namespace of which a grant records everything, and whose annotation changes from `old` to `new`.
fn allowing(inject: &str, old: Option<&str>, new: &str) -> Value {
    let labels = json!({labels::INJECT: inject});
    let mut review = labelling(Some(&labels), &labels);
    if let Some(old) = old {
        review["request"]["oldObject"]["metadata"]["annotations"] = json!({labels::ALLOW: old});
    }
    review["request"]["object"]["metadata"]["annotations"] = json!({labels::ALLOW: new});
    review
}

#[tokio::test]
async fn accepting_more_than_the_baseline_is_warned_of_when_it_is_set() {
    let server = server(&[]);
    let items = "capability:SYS_PTRACE, hostPath:/var/log, hostPort:80, what";
    let response = server.review("/namespaces", &allowing("required", None, items)).await;
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    assert_eq!(response["auditAnnotations"]["decision"], "labelled: allow");
    let warnings: Vec<&str> =
        response["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    for (warning, says) in warnings.iter().zip([
        "capability:SYS_PTRACE: who uses it can evade or alter the recordings",
        "hostPath:/var/log: who uses it reads the node",
        "hostPort:80: beyond Pod Security baseline",
        "\"what\" is not understood",
    ]) {
        assert!(warning.contains(labels::ALLOW) && warning.contains(says), "{warning}");
    }
    for (inject, old, new) in [
        ("required", Some(items), items),
        ("required", Some("hostPort:80"), " hostPort:80 ,"),
        ("optional", None, items),
    ] {
        let response = server.review("/namespaces", &allowing(inject, old, new)).await;
        assert_eq!(response.get("warnings"), None, "{inject} {old:?} {new}");
    }
    let fewer = server.review("/namespaces", &allowing("required", Some(items), "hostPort:80")).await;
    assert_eq!(fewer["warnings"].as_array().unwrap().len(), 1, "what is left is said: {fewer}");
}

#[tokio::test]
async fn what_is_no_review_is_answered_4xx() {
    let server = server(&[]);
    let mut old = review(&pod());
    old["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let mut empty = review(&pod());
    empty.as_object_mut().unwrap().remove("request");
    let json = "application/json";
    for (body, content_type, status, says) in [
        (b"{".to_vec(), json, 400, "no AdmissionReview"),
        (b"[]".to_vec(), json, 400, "no AdmissionReview"),
        (old.to_string().into_bytes(), json, 400, "v1beta1"),
        (empty.to_string().into_bytes(), json, 400, "no request"),
        (review(&pod()).to_string().into_bytes(), "application/yaml", 415, "application/json"),
        (vec![b' '; MAX_BODY + 1], json, 413, ""),
    ] {
        let (code, body) = server.send("/mutate/required", content_type, body).await;
        let body = String::from_utf8(body).unwrap();
        assert!(code.as_u16() == status && body.contains(says), "{status}: {code} {body}");
    }
    let text = server.registry.encode().unwrap();
    assert!(text.contains("podwitness_admission_malformed_requests_total 5"), "{text}");
    assert_eq!(server.send("/mutate/always", json, b"{}".to_vec()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.send("/", json, b"{}".to_vec()).await.0, StatusCode::NOT_FOUND);
}

/// The same as something that is to be made.
fn for_real(mut review: Value) -> Value {
    review["request"]["dryRun"] = json!(false);
    review
}

#[tokio::test]
async fn a_pod_that_is_let_through_is_an_event_unless_it_is_a_dry_run_or_its_namespace_is_another() {
    let optional = [(labels::INJECT, "optional")];
    let on_host = review(&with(pod(), "/spec/hostNetwork", json!(true)));
    let harmless = review(&pod());
    for (labels, review, events) in [
        (&optional[..], for_real(on_host.clone()), 1),
        (&optional[..], on_host.clone(), 0),
        (&optional[..], for_real(harmless), 0),
        (&[(labels::INJECT, "required")], for_real(on_host.clone()), 0),
    ] {
        let server = server(labels);
        server.review("/mutate/optional", &review).await;
        let sent = server.events().await;
        assert_eq!(sent.len(), events, "{labels:?} {review}");
        assert!(sent.iter().all(|event| event["note"].as_str().unwrap().contains("hostNetwork")), "{sent:?}");
    }
}

/// A world in which namespace `shop` has a LimitRange and a ResourceQuota.
fn constrained(inject: &str, items: &Value, hard: &Value, used: &Value) -> Server {
    let world = world("shop", &[(labels::INJECT, inject)], &[]);
    let quota =
        json!({"metadata": {"name": "q", "namespace": "shop"}, "status": {"hard": hard, "used": used}});
    world.constraints.learn(range(items), serde_json::from_value(quota).unwrap());
    of_world(world)
}

#[tokio::test]
async fn a_sidecar_is_fitted_into_its_namespaces_limit_range() {
    let items = json!([{"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "1"}}]);
    let server = constrained("required", &items, &json!({}), &json!({}));
    let response = server.review("/mutate/required", &review(&pod())).await;
    let after = apply(pod(), &patch(&response));
    let resources = &after["spec"]["initContainers"][0]["resources"];
    assert_eq!((&resources["requests"]["cpu"], &resources["limits"]["cpu"]), (&json!("50m"), &json!("100m")));
}

#[tokio::test]
async fn a_pod_that_fits_only_without_a_sidecar_is_let_through_where_injection_is_optional() {
    let impossible = json!([{"type": "Container", "max": {"memory": "32Mi"}}]);
    let full = (json!({"limits.memory": "1Gi"}), json!({"limits.memory": "960Mi"}));
    let limited = with(pod(), "/spec/containers/0/resources", json!({"limits": {"memory": "32Mi"}}));
    for (inject, items, (hard, used), reason) in [
        ("optional", &impossible, (json!({}), json!({})), "let-through: limit-range"),
        ("required", &impossible, (json!({}), json!({})), "refused: limit-range"),
        ("optional", &json!([]), full.clone(), "let-through: quota"),
        // The API server decides.
        ("required", &json!([]), full, "injected"),
    ] {
        let server = constrained(inject, items, &hard, &used);
        let response = server.review(&format!("/mutate/{inject}"), &review(&limited)).await;
        assert_eq!(response["auditAnnotations"]["decision"], reason, "{response}");
        assert_eq!(response.get("patch").is_some(), reason == "injected");
    }
}

mod advice;
