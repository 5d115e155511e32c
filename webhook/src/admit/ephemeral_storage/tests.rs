//! Pods are held against a model of the kubelet's decisions: what it would not evict without the sidecar, it does not evict
//! with it, however full the spool is.

use podwitness_core::inject::{CONTAINER, Inject};
use proptest::prelude::*;

use super::*;
use crate::admit::{
    mutate,
    quantity::memory,
    testing::{apply, pod, settings, with},
};

const MIB: u64 = 1 << 20;
/// What the spool of [`settings`] holds at most.
const SPOOL: u64 = 256 * MIB;

fn injected(pod: Value) -> Value {
    let patch = mutate(&pod, &settings(Inject::Required)).unwrap();
    apply(pod, &patch)
}

fn containers<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    pod["spec"][list].as_array().into_iter().flatten()
}

fn amount(container: &Value, side: &str) -> Option<u64> {
    container["resources"][side][KEY].as_str().map(|text| memory(text).unwrap())
}

/// `PodLimits` and `PodRequests` of `k8s.io/component-helpers/resource`: none where no container has any.
fn of_pod(pod: &Value, side: &str) -> Option<u64> {
    let mut sum = None;
    let mut add = |amount: Option<u64>| {
        if let Some(amount) = amount {
            sum = Some(sum.unwrap_or(0) + amount);
        }
    };
    containers(pod, "containers").for_each(|container| add(amount(container, side)));
    let (mut always, mut most) = (None, None);
    for container in containers(pod, "initContainers") {
        let own = amount(container, side);
        let beside: Option<u64> = match (own, always) {
            (None, None) => None,
            (own, always) => Some(own.unwrap_or(0) + always.unwrap_or(0)),
        };
        if container["restartPolicy"] == "Always" {
            add(own);
            always = beside;
        }
        most = most.max(beside);
    }
    sum.max(most)
}

/// `podEphemeralStorageLimitEviction`: `used` is what all containers and volumes of the pod have written.
fn is_over_its_limit(pod: &Value, used: u64) -> bool {
    of_pod(pod, "limits").is_some_and(|limit| used > limit)
}

/// `exceedDiskRequests` of `rankDiskPressureFunc`.
fn is_over_its_requests(pod: &Value, used: u64) -> bool {
    used > of_pod(pod, "requests").unwrap_or(0)
}

/// What the API server completes: a request that is not said is the limit.
fn completed(mut pod: Value) -> Value {
    for list in ["initContainers", "containers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let (Some(limit), None) = (amount(container, "limits"), amount(container, "requests")) {
                container["resources"]["requests"][KEY] = json!(limit.to_string());
            }
        }
    }
    pod
}

fn any_container() -> impl Strategy<Value = Value> {
    let amount = || proptest::option::of((1..2048_u64).prop_map(|mib| json!(format!("{mib}Mi"))));
    (amount(), amount(), any::<bool>()).prop_map(|(limit, request, always)| {
        let mut resources = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1m"}});
        for (side, amount) in [("limits", limit), ("requests", request)] {
            if let Some(amount) = amount {
                resources[side][KEY] = amount;
            }
        }
        let policy = if always { json!("Always") } else { json!(null) };
        json!({"name": "c", "image": "i", "resources": resources, "restartPolicy": policy})
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let list = |least| proptest::collection::vec(any_container(), least..4);
    (list(0), list(1)).prop_map(|(inits, mut apps)| {
        for app in &mut apps {
            app.as_object_mut().unwrap().remove("restartPolicy");
        }
        completed(with(with(pod(), "/spec/initContainers", json!(inits)), "/spec/containers", json!(apps)))
    })
}

proptest! {
    #[test]
    fn a_pod_is_evicted_for_its_own_disk_use_alone(pod in any_pod(), used in 0..4096_u64, log in 0..=64_u64, full in any::<bool>()) {
        let after = injected(pod.clone());
        let ours = if full { SPOOL } else { 0 } + log * MIB;
        let used = used * MIB;
        let evicted = |pod: &Value, used| (is_over_its_limit(pod, used), is_over_its_requests(pod, used));
        let (limit, requests) = evicted(&pod, used);
        prop_assert!(limit || !is_over_its_limit(&after, used + ours));
        // Without any request a pod that writes at all is over them, with the sidecar as without.
        prop_assert!(requests || used == 0 || !is_over_its_requests(&after, used + ours));
    }

    #[test]
    fn a_pod_without_limits_gets_none(pod in any_pod()) {
        let after = injected(pod.clone());
        for side in ["limits", "requests"] {
            prop_assert_eq!(of_pod(&pod, side).is_some(), of_pod(&after, side).is_some(), "{}", side);
        }
    }
}

fn said(resources: Value) -> [Option<u64>; 2] {
    let after = injected(with(pod(), "/spec/containers/0/resources", resources));
    let sidecar = containers(&after, "initContainers").find(|one| one["name"] == CONTAINER).unwrap();
    ["limits", "requests"].map(|side| amount(sidecar, side))
}

#[test]
fn the_sidecar_says_what_it_may_write_where_another_container_does() {
    let all = Some(SPOOL + BESIDE_SPOOL);
    assert_eq!(said(json!({})), [None, None]);
    assert_eq!(said(json!({"limits": {"memory": "1Gi"}})), [None, None]);
    assert_eq!(said(json!({"limits": {KEY: "1Gi"}})), [all, all]);
    assert_eq!(said(json!({"requests": {KEY: "1Gi"}})), [None, all]);
    assert_eq!(said(json!({"limits": {KEY: "2Gi"}, "requests": {KEY: "1Gi"}})), [all, all]);
}
