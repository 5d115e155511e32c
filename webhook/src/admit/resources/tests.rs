use super::*;
use podwitness_core::inject::Inject;

use crate::admit::{
    Amounts, Ranges, mutate, ranges,
    testing::{pod, settings, with},
};

mod fitting;
mod limit_ranger;

fn tuning() -> Tuning {
    let Amounts { cpu, memory } = Amounts::default();
    Tuning { log_level: "info".to_owned(), cpu, memory }
}

fn resources(given: Value) -> Value {
    let pod = with(pod(), "/spec/containers/0/resources", given);
    of(&pod, &tuning(), &settings(Inject::Required)).unwrap()
}

/// In a namespace with such a LimitRange.
fn ranged(given: Value, items: &Value) -> Result<Value, Refusal> {
    let pod = with(pod(), "/spec/containers/0/resources", given);
    let ranges = Ranges::read(&ranges::tests::range(items));
    of(&pod, &tuning(), &Settings { ranges, ..settings(Inject::Required) })
}

#[test]
fn a_burstable_pod_gets_small_requests_and_a_limit_of_memory() {
    let expected = json!({"limits": {"memory": "128Mi"}, "requests": {"cpu": "20m", "memory": "32Mi"}});
    assert_eq!(resources(json!({})), expected);
    assert_eq!(resources(json!({"limits": {"cpu": "1"}})), expected);
    let unequal = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Mi"}});
    assert_eq!(resources(unequal), expected);
}

#[test]
fn a_guaranteed_pod_stays_so() {
    let expected =
        json!({"limits": {"cpu": "100m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}});
    assert_eq!(resources(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), expected);
    let equal =
        json!({"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
    assert_eq!(resources(equal), expected);
}

#[test]
fn in_a_guaranteed_pod_an_explicit_limit_is_what_is_set_aside() {
    let pod = with(pod(), "/spec/containers/0/resources", json!({"limits": {"cpu": "1", "memory": "1Gi"}}));
    let cpu = Amount { request: 20, limit: Some(500), explicit: true };
    let tuning = Tuning { cpu, ..tuning() };
    let resources = of(&pod, &tuning, &settings(Inject::Required)).unwrap();
    assert_eq!(
        (&resources["requests"]["cpu"], &resources["limits"]["cpu"]),
        (&json!("500m"), &json!("500m"))
    );
}

#[test]
fn amounts_of_the_pod_as_a_whole_are_shared() {
    let pod = with(
        pod(),
        "/spec/resources",
        json!({"limits": {"memory": "128Mi"}, "requests": {"memory": "128Mi"}}),
    );
    let expected = json!({"limits": {"memory": "128Mi"}, "requests": {"cpu": "20m", "memory": "0"}});
    assert_eq!(of(&pod, &tuning(), &settings(Inject::Required)), Ok(expected));
}

#[test]
fn a_limit_range_moves_what_it_does_not_allow() {
    let given =
        json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "200m", "memory": "256Mi"}});
    for (items, expected) in [
        (
            json!([{"type": "Container", "maxLimitRequestRatio": {"cpu": "10", "memory": "4"}}]),
            json!({"limits": {"cpu": "100m", "memory": "128Mi"}, "requests": {"cpu": "20m", "memory": "32Mi"}}),
        ),
        (
            json!([{"type": "Container", "min": {"cpu": "50m", "memory": "64Mi"}, "max": {"cpu": "500m", "memory": "512Mi"}}]),
            json!({"limits": {"cpu": "100m", "memory": "128Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}}),
        ),
        (
            json!([{"type": "Pod", "max": {"memory": "352Mi"}}]),
            json!({"limits": {"memory": "96Mi"}, "requests": {"cpu": "20m", "memory": "32Mi"}}),
        ),
    ] {
        assert_eq!(ranged(given.clone(), &items), Ok(expected), "{items}");
    }
}

#[test]
fn what_a_limit_range_fills_in_of_other_resources_is_there_before() {
    let items = json!([{"type": "Container", "default": {"ephemeral-storage": "2Gi"},
        "defaultRequest": {"ephemeral-storage": "1Gi"}}]);
    let resources = ranged(json!({}), &items).unwrap();
    assert_eq!(resources["limits"]["ephemeral-storage"], "2Gi");
    assert_eq!(resources["requests"]["ephemeral-storage"], "1Gi");
}

#[test]
fn an_impossible_limit_range_is_named_with_both_values() {
    for (items, says) in [
        (
            json!([{"type": "Container", "max": {"memory": "32Mi"}}]),
            ["limit of memory", "64Mi", "32Mi", "type Container"],
        ),
        (json!([{"type": "Pod", "max": {"cpu": "250m"}}]), ["limit of cpu", "100m", "50m", "type Pod"]),
    ] {
        let given = json!({"limits": {"cpu": "200m"}, "requests": {"cpu": "1m"}});
        let refusal = ranged(given, &items).unwrap_err();
        assert_eq!(refusal.reason, Reason::LimitRange);
        says.iter().for_each(|text| assert!(refusal.message.contains(text), "{text}: {refusal}"));
    }
}

#[test]
fn cpu_is_limited_where_a_quota_counts_limits() {
    let quota =
        serde_json::from_value(json!({"metadata": {"name": "q"}, "status": {"hard": {"limits.cpu": "4"}}}));
    let quotas = vec![quota::Quota::read(&quota.unwrap())];
    let resources = of(&pod(), &tuning(), &Settings { quotas, ..settings(Inject::Required) }).unwrap();
    assert_eq!(resources["limits"], json!({"cpu": "100m", "memory": "128Mi"}));
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
fn a_pod_whose_limit_leaves_too_little_gets_no_sidecar() {
    let pod = with(pod(), "/spec/resources", json!({"limits": {"memory": "32Mi"}}));
    for inject in [Inject::Required, Inject::Optional] {
        let outcome = mutate(&pod, &settings(inject));
        assert!(outcome.is_err_and(|refusal| refusal.reason == Reason::Resources), "{inject:?}");
    }
}
