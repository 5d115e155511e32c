use super::*;
use podwitness_core::inject::Inject;

use crate::admit::{
    mutate,
    testing::{pod, settings, with},
};

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

fn limited(of_pod: &Value, containers: &[Value], init: &[(&str, Value)]) -> Result<(), Refusal> {
    let limits = |limits: &Value| json!({"limits": limits});
    let containers: Vec<Value> =
        containers.iter().map(|one| json!({"name": "app", "resources": limits(one)})).collect();
    let init: Vec<Value> = init
        .iter()
        .map(|(policy, one)| json!({"name": "init", "restartPolicy": policy, "resources": limits(one)}))
        .collect();
    check(&json!({"spec": {"resources": limits(of_pod), "containers": containers, "initContainers": init}}))
}

#[test]
fn a_limit_of_the_whole_pod_leaves_the_sidecar_its_floor() {
    let memory = |text: &str| json!({"memory": text});
    let cpu = |text: &str| json!({"cpu": text});
    assert_eq!(limited(&json!({}), &[json!({})], &[]), Ok(()));
    for (of_pod, others, init, fits) in [
        (memory("128Mi"), vec![memory("64Mi")], vec![], true),
        (memory("128Mi"), vec![memory("65Mi")], vec![], false),
        (memory("128Mi"), vec![memory("32Mi"), memory("33Mi")], vec![], false),
        (memory("1Gi"), vec![json!({})], vec![], true),
        (memory("63Mi"), vec![json!({})], vec![], false),
        (memory("63Mi"), vec![], vec![], false),
        (memory("128Mi"), vec![memory("1Mi")], vec![("", memory("65Mi"))], false),
        (memory("128Mi"), vec![memory("64Mi")], vec![("", memory("64Mi"))], true),
        (memory("128Mi"), vec![memory("60Mi")], vec![("Always", memory("60Mi"))], false),
        (cpu("1"), vec![cpu("900m")], vec![], true),
        (cpu("1"), vec![cpu("901m")], vec![], false),
        (cpu("99m"), vec![], vec![], false),
    ] {
        let found = limited(&of_pod, &others, &init);
        assert_eq!(found.is_ok(), fits, "{of_pod} {others:?} {init:?}");
        if let Err(refusal) = found {
            assert_eq!(refusal.reason, Reason::Resources);
        }
    }
}

#[test]
fn a_pod_whose_limit_leaves_too_little_is_refused_only_where_injection_is_required() {
    let pod = with(pod(), "/spec/resources", json!({"limits": {"memory": "32Mi"}}));
    for (inject, refused) in [(Inject::Required, true), (Inject::Optional, false)] {
        let outcome = mutate(&pod, &settings(inject));
        assert_eq!(outcome.is_err_and(|refusal| refusal.reason == Reason::Resources), refused, "{inject:?}");
    }
}
