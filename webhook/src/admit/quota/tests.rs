use serde_json::json;

use super::*;

fn quota(scopes: &Value, hard: &Value, used: &Value) -> Quota {
    let spec = if scopes.is_object() { json!({"scopeSelector": scopes}) } else { json!({"scopes": scopes}) };
    let object = json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}});
    Quota::read(&serde_json::from_value(object).unwrap())
}

fn pod(resources: &Value) -> Value {
    json!({"spec": {"containers": [{"name": "app", "resources": resources}]}})
}

/// The same with a sidecar.
fn with_sidecar(pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["spec"]["initContainers"] = json!([{"name": "podwitness", "restartPolicy": "Always", "resources":
        {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "128Mi"}}}]);
    pod
}

fn checked(pod: &Value, quota: Quota) -> Result<(), Refusal> {
    check(pod, &with_sidecar(pod), &[quota])
}

fn small() -> Value {
    pod(&json!({"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}))
}

#[test]
fn a_quota_has_room_as_long_as_it_is_not_exceeded() {
    for (name, hard, used, fits) in [
        ("limits.cpu", "4", "3400m", true),
        ("limits.cpu", "4", "3401m", false),
        ("limits.memory", "2Gi", "1856Mi", true),
        ("limits.memory", "2Gi", "1857Mi", false),
        ("requests.memory", "100Mi", "60Mi", true),
        ("requests.memory", "100Mi", "61Mi", false),
        ("memory", "100Mi", "61Mi", false),
        ("cpu", "1", "970m", true),
        ("requests.cpu", "1", "971m", false),
        ("pods", "5", "4", true),
        ("requests.ephemeral-storage", "1Gi", "1Gi", true),
    ] {
        let found = checked(&small(), quota(&json!([]), &json!({name: hard}), &json!({name: used})));
        assert_eq!(found.is_ok(), fits, "{name} {hard} {used}: {found:?}");
        if let Err(refusal) = found {
            assert_eq!(refusal.reason, Reason::Quota);
            assert!(
                refusal.message.contains(&format!("ResourceQuota q has no room for the sidecar ({name}")),
                "{refusal}"
            );
        }
    }
}

#[test]
fn what_would_be_refused_without_a_sidecar_is_not_ours() {
    let full = quota(&json!([]), &json!({"limits.cpu": "4"}), &json!({"limits.cpu": "3900m"}));
    assert_eq!(checked(&small(), full), Ok(()));
}

#[test]
fn a_quota_counts_the_pods_of_its_scopes() {
    let full =
        |scopes: &Value| quota(scopes, &json!({"requests.cpu": "1"}), &json!({"requests.cpu": "980m"}));
    let selector = |operator: &str| json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]});
    let mut job = small();
    job["spec"]["activeDeadlineSeconds"] = json!(60);
    let mut high = small();
    high["spec"]["priorityClassName"] = json!("high");
    let mut near = small();
    near["spec"]["affinity"] = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 1, "podAffinityTerm": {"topologyKey": "x", "namespaces": ["other"]}}]}});
    for (pod, scopes, counts) in [
        (small(), json!(["NotBestEffort"]), true),
        (small(), json!(["BestEffort"]), false),
        (small(), json!(["NotTerminating"]), true),
        (job.clone(), json!(["NotTerminating"]), false),
        (job, json!(["Terminating", "NotBestEffort"]), true),
        (high.clone(), selector("In"), true),
        (high.clone(), selector("NotIn"), false),
        (high, selector("Exists"), true),
        (small(), selector("In"), false),
        (small(), selector("NotIn"), true),
        (small(), selector("DoesNotExist"), true),
        (near, json!(["CrossNamespacePodAffinity"]), true),
        (small(), json!(["CrossNamespacePodAffinity"]), false),
        (small(), json!(["VolumeAttributesClass"]), false),
    ] {
        assert_eq!(checked(&pod, full(&scopes)).is_err(), counts, "{scopes} {pod}");
    }
}

#[test]
fn a_pod_that_is_no_longer_best_effort_falls_under_other_quotas() {
    let nothing = pod(&json!({}));
    let limits = quota(&json!(["NotBestEffort"]), &json!({"limits.cpu": "4"}), &json!({}));
    let refusal = checked(&nothing, limits).unwrap_err();
    assert!(refusal.message.contains("container app has no limits.cpu"), "{refusal}");
    let pods = quota(&json!(["NotBestEffort"]), &json!({"pods": "3"}), &json!({"pods": "3"}));
    assert!(checked(&nothing, pods).is_err());
}

#[test]
fn what_a_pod_has_as_a_whole_and_its_overhead_count() {
    let full = || quota(&json!([]), &json!({"requests.cpu": "1"}), &json!({"requests.cpu": "900m"}));
    let mut whole = pod(&json!({}));
    whole["spec"]["resources"] = json!({"requests": {"cpu": "100m"}});
    assert_eq!(checked(&whole, full()), Ok(()));
    whole["spec"]["overhead"] = json!({"cpu": "1m"});
    assert!(full().refuses(&whole).is_some());
}

#[test]
fn limits_that_a_quota_counts_are_known() {
    let counts = |scopes: &Value, name: &str| {
        counts_limits(&pod(&json!({})), "cpu", &[quota(scopes, &json!({name: "1"}), &json!({}))])
    };
    assert!(counts(&json!([]), "limits.cpu") && counts(&json!(["NotBestEffort"]), "limits.cpu"));
    assert!(!counts(&json!([]), "requests.cpu") && !counts(&json!([]), "limits.memory"));
    assert!(!counts(&json!(["BestEffort"]), "limits.cpu") && !counts(&json!(["Terminating"]), "limits.cpu"));
}
