use serde_json::Value;

use super::*;
use crate::control::{
    pod::testing::{pod, replica as replica_json},
    registry::Request,
    testing::Api as TestApi,
};

const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const STATUS: &str = "/apis/podwitness.dev/v1alpha1/recorders/podwitness/status";

fn recorder() -> Recorder {
    Recorder::new("podwitness", podwitness_crd::RecorderSpec::default())
}

fn enrolments() -> Enrolments {
    let enrolments = Enrolments::default();
    let sandbox = pod(replica_json()).sandbox();
    let request = Request { uid: "uid-rec", key: KEY, recorder: Some("podwitness"), sandbox, proof: None };
    enrolments.lock().claim(request).unwrap();
    enrolments
}

fn with(pods: Vec<Value>) -> RecorderStatus {
    let pods: Vec<_> = pods.into_iter().map(|json| Arc::new(pod(json))).collect();
    desired(&recorder(), &enrolments().lock(), &pods, 1_800_000_000)
}

#[tokio::test]
async fn an_enrolled_replica_is_in_the_status_while_its_pod_lives() {
    let status = with(vec![replica_json()]);
    let replica = &status.replicas[0];
    assert_eq!((replica.pod.as_str(), replica.pod_uid.as_str()), ("podwitness-recorder-a", "uid-rec"));
    assert_eq!(replica.address, "fd70:6f64:7769:66e0:3ef6:9449:47a8:bb44");
    assert_eq!(replica.endpoint, "10.0.1.9:51820");
    assert_eq!(
        (status.conditions[0].kind.as_str(), status.conditions[0].status),
        ("Ready", ConditionStatus::True)
    );
    let gone = with(vec![]);
    assert!(gone.replicas.is_empty());
    assert_eq!(gone.conditions[0].reason, "NoReplica");
}

#[tokio::test]
async fn a_replica_that_is_not_ready_is_listed_but_does_not_make_the_recorder_ready() {
    let mut unready = replica_json();
    unready["status"]["conditions"][0]["status"] = json!("False");
    let status = with(vec![unready]);
    assert_eq!(status.replicas.len(), 1);
    assert_eq!(
        (status.conditions[0].status, status.conditions[0].reason.as_str()),
        (ConditionStatus::False, "NotReady")
    );
}

#[tokio::test]
async fn only_a_status_that_is_wrong_is_written() {
    let api = TestApi::default();
    api.answer("PATCH", STATUS, serde_json::to_value(recorder()).unwrap());
    let pods = [Arc::new(pod(replica_json()))];
    let mut recorder = recorder();
    reconcile(
        &api.client(),
        &[Arc::new(recorder.clone())],
        &enrolments(),
        &pods,
        &Endpoints::default(),
        1_800_000_000,
    )
    .await;
    let sent = &api.bodies("PATCH", STATUS)[0]["status"];
    assert_eq!(sent["replicas"][0]["key"], json!(KEY));
    recorder.status = serde_json::from_value(sent.clone()).unwrap();
    reconcile(
        &api.client(),
        &[Arc::new(recorder)],
        &enrolments(),
        &pods,
        &Endpoints::default(),
        1_900_000_000,
    )
    .await;
    assert_eq!(api.count(STATUS), 1);
}

#[tokio::test]
async fn a_recorder_outside_the_cluster_is_ready_by_what_it_says_of_itself() {
    let api = TestApi::default();
    api.answer("PATCH", STATUS, serde_json::to_value(recorder()).unwrap());
    let mut recorder = recorder();
    recorder.spec.external =
        serde_json::from_value(json!({"address": "10.4.0.7:80", "plaintext": true})).unwrap();
    let recorders = [Arc::new(recorder)];
    reconcile(&api.client(), &recorders, &enrolments(), &[], &Endpoints::default(), 1_800_000_000).await;
    let sent = &api.bodies("PATCH", STATUS)[0]["status"];
    assert_eq!(sent["conditions"][0]["reason"], "ExternalPlaintext");
    assert_eq!(sent["external"]["address"], "10.4.0.7:80");
    assert_eq!(sent["replicas"], json!([]));
}
