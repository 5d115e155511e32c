//! Debug containers that are added to an injected pod. Where injection is required they lose NET_RAW like every other
//! container; what else they may not be is said by a policy (`manifests/policies/debug.yaml`).

use json_patch::PatchOperation;
use serde_json::Value;

use super::{
    capabilities,
    patch::Patch,
    pod::{self, debug, text},
};

/// What has to change in the debug containers that `pod` has and `old` has not: those that run already cannot change.
pub(super) fn mutate(pod: &Value, old: Option<&Value>) -> Vec<PatchOperation> {
    let mut patch = Patch::default();
    if pod::sidecar(pod).is_none() {
        return patch.0;
    }
    let runs =
        |name: &str| old.is_some_and(|old| debug(old).any(|container| text(container.value, "name") == name));
    for container in debug(pod).filter(|container| !runs(container.name())) {
        capabilities::drop_net_raw(&container, &mut patch);
    }
    patch.0
}

#[cfg(test)]
mod tests {
    use podwitness_core::inject::Inject;
    use serde_json::json;

    use super::*;
    use crate::admit::testing::{apply, pod, settings, with};

    fn injected() -> Value {
        let patch = crate::admit::mutate(&pod(), &settings(Inject::Required)).unwrap();
        apply(pod(), &patch)
    }

    #[test]
    fn a_debug_container_that_is_added_loses_net_raw() {
        let old = with(injected(), "/spec/ephemeralContainers", json!([{"name": "old", "image": "i"}]));
        let all = json!([{"name": "old", "image": "i"}, {"name": "new", "image": "i"}]);
        let new = with(old.clone(), "/spec/ephemeralContainers", all);
        let patched = apply(new.clone(), &mutate(&new, Some(&old)));
        let debug = patched["spec"]["ephemeralContainers"].clone();
        assert_eq!(debug[0], json!({"name": "old", "image": "i"}));
        assert_eq!(debug[1]["securityContext"], json!({"capabilities": {"drop": ["NET_RAW"]}}));
        assert_eq!(mutate(&patched, Some(&old)), vec![]);
    }

    #[test]
    fn a_pod_without_sidecar_is_left_alone() {
        let new = with(pod(), "/spec/ephemeralContainers", json!([{"name": "new", "image": "i"}]));
        assert_eq!(mutate(&new, Some(&pod())), vec![]);
    }
}
