//! Answers that follow from the pod and its namespace, whatever grants say.

use super::*;

#[test]
fn a_bypass_records_nothing_until_it_ends() {
    let question = ask(&["--as", "ana"]).unwrap();
    let closed = grant("g", "*", "*", &json!({"recorder": ["tag:down"], "enforceRecorder": true}));
    let mut facts = facts(vec![closed]);
    for (until, outcome, says) in [
        (
            "2027-01-15T09:00:00Z",
            Outcome::NotRecorded,
            "kubectl annotate namespace shop podwitness.dev/bypass-until-",
        ),
        ("2027-01-15T08:00:00Z", Outcome::Refused, "fails closed"),
        ("tomorrow", Outcome::Refused, "fails closed"),
    ] {
        facts.bypass_until = Some(until.into());
        let found = answer(&question, &facts);
        assert_eq!(found.outcome, outcome, "{until}");
        assert!(found.because.contains(says), "{until}: {}", found.because);
        let is_told = found.notes.iter().any(|note| note.contains("is not a time and has no effect"));
        assert_eq!(is_told, until == "tomorrow", "{:?}", found.notes);
    }
}

/// A pod of these fields, which made it or is like one made by the ReplicaSet `till-5d4f` of Deployment `till`.
fn observed(change: &Value) -> PodFacts {
    let mut pod = json!({"metadata": {"name": "till", "labels": {"app": "till", "pod-template-hash": "5d4f"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "till-5d4f", "uid": "u",
            "controller": true}]},
        "spec": {"containers": [{"name": "app", "image": "i"}]}});
    merge(&mut pod, change);
    PodFacts::of(&serde_json::from_value(pod).unwrap())
}

fn merge(into: &mut Value, change: &Value) {
    match (into.as_object_mut(), change.as_object()) {
        (Some(into), Some(change)) => {
            change
                .iter()
                .for_each(|(key, value)| merge(into.entry(key.clone()).or_insert(Value::Null), value));
        }
        _ => *into = change.clone(),
    }
}

#[test]
fn why_a_pod_has_no_sidecar_is_said_with_the_way_to_one() {
    let restart = "restart it with kubectl -n shop rollout restart deployment/till";
    let owner = |kind: &str, name: &str| {
        json!({"metadata": {"ownerReferences": [
            {"apiVersion": "x/v1", "kind": kind, "name": name, "uid": "u", "controller": true}]}})
    };
    let privileged = json!({"spec": {"containers": [{"name": "app", "image": "i", "securityContext": {"privileged": true}}]}});
    let question = ask(&["--as", "ana"]).unwrap();
    for (inject, change, says) in [
        ("required", json!({}), vec!["is older than the namespace's label", restart]),
        ("optional", json!({}), vec!["is older than the namespace's label", restart]),
        ("", json!({}), vec!["kubectl label namespace shop podwitness.dev/inject=optional, and", restart]),
        ("", json!({"spec": {"hostNetwork": true}}), vec!["has no label", "besides, it has hostNetwork"]),
        ("required", json!({"spec": {"hostNetwork": true}}), vec!["hostNetwork", "podwitness.dev/exempt"]),
        ("optional", json!({"spec": {"os": {"name": "windows"}}}), vec!["runs on Windows"]),
        (
            "required",
            json!({"metadata": {"labels": {"app": "batch"}}}),
            vec!["leaves pods with labels app=batch out"],
        ),
        (
            "required",
            json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}),
            vec!["a static pod"],
        ),
        ("required", json!({"status": {"phase": "Succeeded"}}), vec!["it has ended"]),
        (
            "required",
            privileged.clone(),
            vec!["would be refused as it is, because container app is privileged"],
        ),
        ("optional", privileged, vec!["is older than"]),
        ("optional", owner("StatefulSet", "db"), vec!["rollout restart statefulset/db"]),
        ("optional", owner("DaemonSet", "agent"), vec!["rollout restart daemonset/agent"]),
        ("optional", owner("Job", "load"), vec!["run Job load again"]),
        (
            "optional",
            owner("ReplicationController", "rc"),
            vec!["so that its ReplicationController makes it again"],
        ),
        (
            "optional",
            json!({"metadata": {"ownerReferences": null}}),
            vec!["delete pod till, and create it again"],
        ),
    ] {
        let mut facts = facts(vec![default_grant()]);
        facts.inject = Some(inject.to_owned()).filter(|inject| !inject.is_empty());
        facts.exempt = Some("app=batch".into());
        facts.pod = Some(observed(&change));
        let found = answer(&question, &facts);
        assert_eq!((found.outcome, found.outcome.exit_code()), (Outcome::NotRecorded, 3), "{change}");
        assert!(says.iter().all(|says| found.because.contains(says)), "{inject} {change}: {}", found.because);
    }
}

#[test]
fn an_event_on_the_pod_or_its_owner_says_why_it_was_let_through() {
    let event = |kind: &str, name: &str, time: &str, why: &str| {
        let note = format!("a pod runs without a witness, so that nothing of it is recorded: {why}");
        serde_json::from_value(json!({"metadata": {"name": "e"}, "eventTime": time, "reason": "NotWitnessed",
            "regarding": {"kind": kind, "name": name, "namespace": "shop"}, "note": note}))
        .unwrap()
    };
    let pod = observed(&json!({}));
    let (early, late) = ("2027-01-15T08:00:00.000000Z", "2027-01-15T08:00:01.000000Z");
    let events = [
        event("ReplicaSet", "till-5d4f", late, "no room"),
        event("Pod", "till", early, "older"),
        event("Pod", "x", late, "x"),
    ];
    let found = explain_note(&events, &pod);
    assert_eq!(found.as_deref(), Some("no room"));
    assert_eq!(explain_note(&events[1..], &pod).as_deref(), Some("older"));
    assert_eq!(explain_note(&events[2..], &pod), None);
    let mut facts = facts(vec![default_grant()]);
    (facts.inject, facts.pod, facts.let_through) = (Some("optional".into()), Some(pod), found);
    let because = answer(&ask(&["--as", "ana"]).unwrap(), &facts).because;
    assert!(because.contains("admission let it through: no room; change that, and restart it"), "{because}");
}

fn explain_note(events: &[k8s_openapi::api::events::v1::Event], pod: &PodFacts) -> Option<String> {
    facts::note(events, "till", pod)
}

#[test]
fn pods_of_the_clusters_own_namespaces_never_get_a_sidecar() {
    for namespace in ["kube-system", "kube-node-lease", "podwitness-system"] {
        let question = ask_of("till", &["--as", "ana", "-n", namespace]).unwrap();
        let mut facts = facts(vec![default_grant()]);
        facts.pod = None;
        let found = answer(&question, &facts);
        assert!(
            found.because.contains("never get a sidecar") && found.outcome.exit_code() == 3,
            "{}",
            found.because
        );
    }
}

#[test]
fn what_limits_a_recording_is_a_note() {
    let sidecar = json!({"spec": {"initContainers": [{"name": "podwitness", "image": "i"}]}});
    let with = |change: &Value| {
        let mut all = sidecar.clone();
        merge(&mut all, change);
        observed(&all)
    };
    let crashing = json!({"status": {"initContainerStatuses": [{"name": "podwitness", "ready": false, "image": "i",
        "imageID": "", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
    let question = ask(&["--as", "ana"]).unwrap();
    for (inject, change, says) in [
        (
            "required",
            crashing.clone(),
            "does not run (CrashLoopBackOff): until it does, requests are refused",
        ),
        ("optional", crashing, "requests are passed on unrecorded"),
        ("", json!({}), "made again, the pod has no sidecar"),
        (
            "optional",
            json!({"metadata": {"labels": {"app": "batch"}}}),
            "now leaves pods with labels app=batch out",
        ),
        (
            "optional",
            json!({"spec": {"hostPID": true}}),
            "the pod sets hostPID: with that, recordings can be evaded",
        ),
        ("optional", json!({"status": {"phase": "Failed"}}), "the pod has ended"),
    ] {
        let mut facts = facts(vec![default_grant()]);
        facts.inject = Some(inject.to_owned()).filter(|inject| !inject.is_empty());
        facts.exempt = Some("app=batch".into());
        facts.pod = Some(with(&change));
        let found = answer(&question, &facts);
        assert_eq!(found.outcome, Outcome::Recorded, "{inject} {change}");
        assert!(found.notes.iter().any(|note| note.contains(says)), "{says}: {:?}", found.notes);
    }
}
