use podwitness_crd::{Fails, GrantRecorder};
use serde_json::Value;

use super::*;

const NOW: i64 = 1_800_000_000;

fn grant(spec: &Value) -> Grant {
    serde_json::from_value(json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Grant",
        "metadata": {"name": "g", "generation": 4}, "spec": spec}))
    .unwrap()
}

fn rule(rule: &Value) -> Value {
    json!({"src": ["*"], "dst": ["*"], "app": {"tailscale.com/cap/kubernetes": [rule]}})
}

fn recorder(name: &str, tag: &str, ready: bool, replicas: usize) -> Arc<Recorder> {
    let replica = |n| {
        json!({"pod": format!("{name}-{n}"), "podUID": "u", "key": "k", "address": "fd70::1",
            "endpoint": "10.0.0.1:51820", "ack": "process"})
    };
    let (status, message) = if ready { ("True", "all is well") } else { ("False", "its pod is pending") };
    let condition = json!({"type": "Ready", "status": status, "reason": "R", "message": message,
        "lastTransitionTime": "2027-01-15T08:00:00Z"});
    let status =
        json!({"replicas": (0..replicas).map(replica).collect::<Vec<_>>(), "conditions": [condition]});
    let object = json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "metadata": {"name": name},
        "spec": {"tags": [tag]}, "status": status});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn status(spec: &Value) -> GrantStatus {
    let recorders = [
        recorder("a", "tag:a", true, 2),
        recorder("b", "tag:b", false, 0),
        recorder("b2", "tag:b", false, 1),
    ];
    desired(&grant(spec), &recorders, NOW)
}

fn finding(spec: &Value, kind: &str) -> (ConditionStatus, String, String) {
    let status = status(spec);
    let condition = status.conditions.iter().find(|condition| condition.kind == kind).unwrap();
    assert_eq!(
        (condition.observed_generation, condition.last_transition_time.as_str()),
        (4, "2027-01-15T08:00:00Z")
    );
    (condition.status, condition.reason.clone(), condition.message.clone())
}

fn is_false(spec: &Value, kind: &str, reason: &str, message: &str) {
    assert_eq!(finding(spec, kind), (ConditionStatus::False, reason.to_owned(), message.to_owned()));
}

#[test]
fn a_grant_is_resolved_if_every_tag_has_a_recorder() {
    let both = rule(&json!({"recorder": ["tag:a", "tag:b"]}));
    let (holds, _, message) = finding(&both, "Resolved");
    assert_eq!((holds, &*message), (ConditionStatus::True, "tag:a: a, tag:b: b, b2"));
    let spec = rule(&json!({"recorder": ["tag:a", "tag:x"]}));
    is_false(&spec, "Resolved", "NoRecorder", "no Recorder has tag:x");
}

#[test]
fn a_rule_that_names_no_recorder_is_told_because_it_keeps_default_grants_away() {
    let nothing = "the grant names no recorder: what it covers is not recorded, by default grants neither; \
                   name a tag in recorder, or delete the grant";
    for silent in [json!({}), json!({"recorder": []}), json!({"enableEvents": true, "verbs": ["list"]})] {
        is_false(&rule(&silent), "Resolved", "NoRecorderNamed", nothing);
        is_false(&rule(&silent), "Ready", "NoRecorderNamed", nothing);
    }
    // One that has no rule, and a default one, keep nothing away.
    let alone = "the grant names no recorder: what it covers is not recorded; name a tag in recorder, or delete the grant";
    let mut default = rule(&json!({}));
    default["default"] = json!(true);
    for spec in [default, json!({"src": ["*"], "dst": ["*"]})] {
        is_false(&spec, "Resolved", "NoRecorderNamed", alone);
        assert_eq!(status(&spec).recording, "none: no tag named");
    }
    let mut spec = rule(&json!({"recorder": ["tag:a"], "resources": ["pods/exec"]}));
    spec["app"]["tailscale.com/cap/kubernetes"].as_array_mut().unwrap().push(json!({"verbs": ["list"]}));
    is_false(
        &spec,
        "Resolved",
        "RuleWithoutRecorder",
        "without a recorder: rule 2; what no other rule covers is not recorded, by default grants neither; \
         name a tag in recorder, or take the rule away",
    );
    assert_eq!(finding(&spec, "Ready").0, ConditionStatus::True, "the other rule has one");
    // What adds to a rule that covers the same is no gap.
    spec["app"]["tailscale.com/cap/kubernetes"] =
        json!([{"enableEvents": true, "verbs": ["list"]}, {"recorder": ["tag:a"]}]);
    assert_eq!(finding(&spec, "Resolved").0, ConditionStatus::True);
}

#[test]
fn a_grant_is_ready_if_a_recorder_that_satisfies_it_is() {
    let (holds, _, message) = finding(&rule(&json!({"recorder": ["tag:b", "tag:a"]})), "Ready");
    assert_eq!((holds, &*message), (ConditionStatus::True, "recorder a: all is well"));
    is_false(
        &rule(&json!({"recorder": ["tag:b"]})),
        "Ready",
        "NotReady",
        "recorder b is not ready: its pod is pending, recorder b2 is not ready: its pod is pending; \
         recordings wait in their pods until then",
    );
    is_false(
        &rule(&json!({"recorder": ["tag:x"], "enforceRecorder": true})),
        "Ready",
        "NoRecorder",
        "no Recorder has tag:x; sessions are refused until a Recorder with this tag is ready",
    );
    is_false(
        &rule(&json!({"recorder": ["tag:a"], "enforceRecorder": true, "requireAck": "volume"})),
        "Ready",
        "NotReady",
        "recorder a acknowledges process, and volume is required; sessions are refused until a Recorder with this tag is ready",
    );
    let weak = rule(&json!({"recorder": ["tag:a"], "requireAck": "volume"}));
    assert_eq!(finding(&weak, "Ready").0, ConditionStatus::True, "fail open waits for no acknowledgement");
}

#[test]
fn only_recorders_of_rules_that_enforce_satisfy_fail_closed() {
    let mut spec = rule(&json!({"recorder": ["tag:a"]}));
    let closed = json!({"recorder": ["tag:b"], "enforceRecorder": true});
    spec["app"]["tailscale.com/cap/kubernetes"].as_array_mut().unwrap().push(closed);
    let (holds, _, message) = finding(&spec, "Ready");
    assert_eq!(holds, ConditionStatus::False);
    assert!(!message.contains("recorder a"), "{message}");
    assert_eq!(status(&spec).fails, Some(Fails::Closed));
}

#[test]
fn parts_without_effect_are_named() {
    let mut spec = rule(&json!({"recorder": ["tag:a"], "impersonate": {"groups": ["g"]}}));
    is_false(&spec, "Effective", "PartsWithoutEffect", "without effect here: impersonate");
    spec["src"] = json!(["autogroup:member", "ana@example.com", "group:sre"]);
    spec["dst"] = json!(["namespace:shop", "autogroup:internet"]);
    spec["ip"] = json!(["tcp:443"]);
    let expected = "without effect here: src autogroup:member, dst autogroup:internet, ip, impersonate";
    is_false(&spec, "Effective", "PartsWithoutEffect", expected);
    assert_eq!(finding(&rule(&json!({"recorder": ["tag:a"]})), "Effective").0, ConditionStatus::True);
    let mut nobody = rule(&json!({"recorder": ["tag:a"]}));
    nobody["src"] = json!(["tag:k8s"]);
    is_false(&nobody, "Effective", "MatchesNobody", "src matches no user here; without effect: src tag:k8s");
    let mut no_pod = rule(&json!({"recorder": ["tag:a"]}));
    no_pod["dst"] = json!(["shop"]);
    let expected = "dst matches no pod here; without effect: dst shop (did you mean namespace:shop?)";
    is_false(&no_pod, "Effective", "MatchesNoPod", expected);
    let expected =
        "no rule matches any request; without effect: resources pod/exec (did you mean pods/exec?)";
    let no_request = rule(&json!({"recorder": ["tag:a"], "resources": ["pod/exec"]}));
    is_false(&no_request, "Effective", "MatchesNoRequest", expected);
    assert_eq!(finding(&json!({"src": ["*"], "dst": ["*"]}), "Effective").1, "NoRule");
}

#[test]
fn the_columns_say_where_recordings_go() {
    let open = status(&rule(&json!({"recorder": ["tag:a", "tag:b"]})));
    assert_eq!((open.fails, &*open.recording), (Some(Fails::Open), "a (2), b (0), b2 (1)"));
    let first = GrantRecorder {
        tag: "tag:a".into(),
        name: "a".into(),
        ready: true,
        replicas: 2,
        message: "all is well".into(),
    };
    assert_eq!((open.recorders.len(), &open.recorders[0]), (3, &first));
    let nowhere = status(&rule(&json!({"recorder": ["tag:x"]})));
    assert_eq!(nowhere.recording, "none: no Recorder has tag:x");
    assert_eq!(status(&rule(&json!({}))).recording, "none: no tag named, default grants kept away");
}

#[test]
fn a_recorder_outside_the_cluster_has_no_replicas() {
    let mut outside = (*recorder("far", "tag:far", true, 0)).clone();
    let external = json!({"publicKey": "k", "endpoint": "recorder.example.com:51820"});
    outside.spec.external = serde_json::from_value(external).unwrap();
    let status = desired(&grant(&rule(&json!({"recorder": ["tag:far"]}))), &[Arc::new(outside)], NOW);
    assert_eq!(status.recording, "far (external)");
}

#[test]
fn a_status_that_is_right_is_not_written_again() {
    let recorders = [recorder("a", "tag:a", true, 1)];
    let mut grant = grant(&rule(&json!({"recorder": ["tag:a"]})));
    grant.status = Some(desired(&grant, &recorders, NOW));
    assert_eq!(grant.status, Some(desired(&grant, &recorders, NOW + 9)));
    let text = serde_json::to_value(&grant.status).unwrap();
    assert_eq!(grant.status, serde_json::from_value(text).unwrap());
}
