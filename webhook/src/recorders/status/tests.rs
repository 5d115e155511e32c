use podwitness_core::grant::AckLevel;
use serde_json::{Value, json};

use super::{super::objects::Kind, *};
use crate::control::{
    pod::testing::{pod, replica as replica_json},
    registry::Request,
    testing::Api as TestApi,
};

const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const STATUS: &str = "/apis/podwitness.dev/v1alpha1/recorders/podwitness/status";

fn of_spec(spec: &Value) -> Recorder {
    serde_json::from_value(json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "spec": spec,
        "metadata": {"name": "podwitness", "uid": "u", "generation": 4}}))
    .unwrap()
}

fn recorder() -> Recorder {
    of_spec(&json!({"enableUI": true}))
}

fn enrolments() -> Enrolments {
    let enrolments = Enrolments::default();
    let sandbox = pod(replica_json()).sandbox();
    let request = Request { uid: "uid-rec", key: KEY, recorder: Some("podwitness"), sandbox, proof: None };
    enrolments.lock().claim(request).unwrap();
    enrolments
}

fn of(recorder: &Recorder, outcome: Option<&Outcome>, pods: Vec<Value>) -> RecorderStatus {
    let pods: Vec<_> = pods.into_iter().map(|json| Arc::new(pod(json))).collect();
    desired(recorder, &enrolments().lock(), outcome, &pods, 1_800_000_000)
}

fn with(pods: Vec<Value>) -> RecorderStatus {
    of(&recorder(), None, pods)
}

fn find<'a>(status: &'a RecorderStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.kind == kind)
}

#[tokio::test]
async fn an_enrolled_replica_is_in_the_status_while_its_pod_lives() {
    let status = with(vec![replica_json()]);
    let replica = &status.replicas[0];
    assert_eq!((replica.pod.as_str(), replica.pod_uid.as_str()), ("podwitness-0", "uid-rec"));
    assert_eq!(replica.address, "fd70:6f64:7769:66e0:3ef6:9449:47a8:bb44");
    assert_eq!(replica.endpoint, "10.0.1.9:51820");
    assert_eq!(
        (status.conditions[0].kind.as_str(), status.conditions[0].status),
        ("Ready", ConditionStatus::True)
    );
    let device = &status.devices[0];
    assert_eq!(
        (device.hostname.as_str(), &device.tailnet_ips),
        ("podwitness-0", &vec![replica.address.clone()])
    );
    let gone = with(vec![]);
    assert!(gone.replicas.is_empty() && gone.devices.is_empty());
    assert_eq!(gone.conditions[0].reason, "NoReplica");
}

#[tokio::test]
async fn a_replica_that_is_not_ready_is_listed_but_does_not_make_the_recorder_ready() {
    let mut unready = replica_json();
    unready["status"]["conditions"][0]["status"] = json!("False");
    let status = with(vec![unready]);
    assert_eq!((status.replicas.len(), status.serving.as_deref()), (1, Some("0/1")));
    assert_eq!(
        (status.conditions[0].status, status.conditions[0].reason.as_str()),
        (ConditionStatus::False, "NotReady")
    );
}

#[tokio::test]
async fn what_a_replica_takes_by_its_own_word_is_in_the_status() {
    let (mut recorder, enrolments) = (recorder(), enrolments());
    let pods = [Arc::new(pod(replica_json()))];
    let status = |recorder: &Recorder, registry: &Registry| {
        let status = desired(recorder, registry, None, &pods, 1_800_000_000);
        (status.replicas[0].state, find(&status, "Ready").unwrap().message.clone())
    };
    assert_eq!(status(&recorder, &enrolments.lock()), (None, "1 of 1 replicas are ready".into()));
    enrolments.lock().takes("uid-rec", Taking::Accepting);
    let well = (Some(Taking::Accepting), "1 of 1 replicas are ready".into());
    assert_eq!(status(&recorder, &enrolments.lock()), well);
    enrolments.lock().takes("uid-rec", Taking::Degraded);
    let degraded = (Some(Taking::Degraded), "1 of 1 replicas are ready; podwitness-0 is degraded".into());
    assert_eq!(status(&recorder, &enrolments.lock()), degraded);
    // Another control plane has not heard of it yet.
    recorder.status = Some(desired(&recorder, &enrolments.lock(), None, &pods, 1_800_000_000));
    assert_eq!(status(&recorder, &self::enrolments().lock()), degraded);
    let mut full = replica_json();
    full["status"]["conditions"][0]["status"] = json!("False");
    enrolments.lock().takes("uid-rec", Taking::Refusing);
    let refusing = desired(&recorder, &enrolments.lock(), None, &[Arc::new(pod(full))], 1_800_000_000);
    let message = "none of 1 replicas is ready; podwitness-0 is refusing";
    assert_eq!(find(&refusing, "Ready").unwrap().message, message);
}

#[tokio::test]
async fn what_people_look_for_is_said_in_words() {
    let status = with(vec![replica_json()]);
    assert_eq!((status.serving.as_deref(), status.storage.as_deref()), (Some("1/1"), Some("emptyDir")));
    assert_eq!((status.ack, status.url.as_deref()), (Some(AckLevel::Process), Some("http://localhost:8081")));
    let bucket = json!({"replicas": 3, "storage": {"s3": {"endpoint": "e", "bucket": "b", "prefix": "p/",
        "ack": "object"}}});
    let status = of(&of_spec(&bucket), None, vec![]);
    assert_eq!((status.serving.as_deref(), status.storage.as_deref()), (Some("0/3"), Some("s3://b/p")));
    assert_eq!((status.ack, status.url), (Some(AckLevel::Object), None));
    let claim = json!({"enableUI": true, "storage": {"filesystem": {"volumeClaimTemplate": {"spec": {}}}}});
    let status = of(&of_spec(&claim), None, vec![]);
    assert_eq!((status.storage.as_deref(), status.ack), (Some("volume"), Some(AckLevel::Volume)));
}

#[tokio::test]
async fn what_came_of_its_objects_is_said_of_the_generation_that_was_worked_on() {
    let recorder = recorder();
    assert_eq!(find(&of(&recorder, None, vec![]), "RecorderReady"), None);
    let well = of(&recorder, Some(&Outcome { generation: 3, problem: None }), vec![]);
    let made = find(&well, "RecorderReady").unwrap();
    assert_eq!((made.status, made.observed_generation), (ConditionStatus::True, 3));
    assert_eq!(find(&well, "Ready").unwrap().observed_generation, 4);
    assert_eq!(find(&well, "Conflict"), None);

    let problem = Problem::Conflict { kind: Kind::Service, name: "podwitness".into(), what: "Recorder" };
    let outcome = Outcome { generation: 4, problem: Some(problem) };
    let taken = of(&recorder, Some(&outcome), vec![]);
    assert_eq!(find(&taken, "Conflict").unwrap().status, ConditionStatus::True);
    assert_eq!(find(&taken, "RecorderReady").unwrap().reason, "RecorderConflict");
    assert_eq!(find(&taken, "Ready").unwrap().reason, "RecorderConflict");
    // Replicas that are there go on.
    let serving = of(&recorder, Some(&outcome), vec![replica_json()]);
    assert_eq!(find(&serving, "Ready").unwrap().status, ConditionStatus::True);
}

#[tokio::test]
async fn what_was_known_before_a_restart_stays_until_something_else_is_known() {
    let mut recorder = recorder();
    recorder.status = Some(of(&recorder, Some(&Outcome { generation: 4, problem: None }), vec![]));
    let later = desired(&recorder, &enrolments().lock(), None, &[], 1_900_000_000);
    assert_eq!(recorder.status.as_ref(), Some(&later));
}

#[tokio::test]
async fn parts_without_effect_are_named() {
    let status = of(&of_spec(&json!({"enableUI": true, "tailnet": "corp"})), None, vec![]);
    let effective = find(&status, "Effective").unwrap();
    assert_eq!(effective.message, "without effect here: tailnet corp");
    assert_eq!(find(&with(vec![]), "Effective").unwrap().status, ConditionStatus::True);
}

#[tokio::test]
async fn only_a_status_that_is_wrong_is_written() {
    let api = TestApi::default();
    api.answer("PATCH", STATUS, serde_json::to_value(recorder()).unwrap());
    let pods = [Arc::new(pod(replica_json()))];
    let mut recorder = recorder();
    let outcomes = Outcomes::default();
    let objects = [Arc::new(recorder.clone())];
    let (enrolments, endpoints) = (enrolments(), Endpoints::default());
    let seen = Seen { enrolments: &enrolments, outcomes: &outcomes, endpoints: &endpoints, pods: &pods };
    reconcile(&api.client(), &objects, &seen, 1_800_000_000).await;
    let sent = &api.bodies("PATCH", STATUS)[0]["status"];
    assert_eq!(sent["replicas"][0]["key"], json!(KEY));
    recorder.status = serde_json::from_value(sent.clone()).unwrap();
    let objects = [Arc::new(recorder)];
    reconcile(&api.client(), &objects, &seen, 1_900_000_000).await;
    assert_eq!(api.count(STATUS), 1);
}

#[tokio::test]
async fn a_recorder_outside_the_cluster_is_ready_by_what_it_says_of_itself() {
    let api = TestApi::default();
    api.answer("PATCH", STATUS, serde_json::to_value(recorder()).unwrap());
    let outside = of_spec(&json!({"external": {"address": "10.4.0.7:80", "plaintext": true}}));
    let (enrolments, outcomes, endpoints) = (enrolments(), Outcomes::default(), Endpoints::default());
    let seen = Seen { enrolments: &enrolments, outcomes: &outcomes, endpoints: &endpoints, pods: &[] };
    reconcile(&api.client(), &[Arc::new(outside)], &seen, 1_800_000_000).await;
    let sent = &api.bodies("PATCH", STATUS)[0]["status"];
    assert_eq!(sent["conditions"][0]["reason"], "ExternalPlaintext");
    assert_eq!(sent["external"]["address"], "10.4.0.7:80");
    assert_eq!(sent["storage"], "external");
    assert_eq!(sent["replicas"], json!([]));
}
