use super::*;
use crate::admit::testing::{pod, with};

fn resources(given: Value) -> Value {
    let pod = with(pod(), "/spec/containers/0/resources", given);
    of(&pod, &Tuning::default())
}

#[test]
fn a_burstable_pod_gets_small_requests_and_ample_limits() {
    let expected =
        json!({"limits": {"cpu": "1", "memory": "256Mi"}, "requests": {"cpu": "20m", "memory": "32Mi"}});
    assert_eq!(resources(json!({})), expected);
    assert_eq!(resources(json!({"limits": {"cpu": "1"}})), expected);
    let unequal = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Mi"}});
    assert_eq!(resources(unequal), expected);
}

#[test]
fn a_guaranteed_pod_stays_so() {
    let expected =
        json!({"limits": {"cpu": "100m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}});
    assert_eq!(resources(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), expected);
    let equal =
        json!({"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
    assert_eq!(resources(equal), expected);
}

#[test]
fn in_a_guaranteed_pod_an_explicit_limit_is_what_is_set_aside() {
    let pod = with(pod(), "/spec/containers/0/resources", json!({"limits": {"cpu": "1", "memory": "1Gi"}}));
    let cpu = Amount { request: 20, limit: 500, explicit: true };
    let tuning = Tuning { cpu, ..Tuning::default() };
    assert_eq!(of(&pod, &tuning)["requests"]["cpu"], "500m");
}

#[test]
fn amounts_of_the_pod_as_a_whole_are_shared() {
    let pod = with(
        pod(),
        "/spec/resources",
        json!({"limits": {"memory": "128Mi"}, "requests": {"memory": "128Mi"}}),
    );
    let expected =
        json!({"limits": {"cpu": "1", "memory": "128Mi"}, "requests": {"cpu": "20m", "memory": "0"}});
    assert_eq!(of(&pod, &Tuning::default()), expected);
}
