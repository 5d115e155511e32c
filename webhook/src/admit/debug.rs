//! Debug containers that are added to an injected pod. Where injection is required they are held to the baseline and
//! lose NET_RAW like every other container; what else they may not be is said by a policy
//! (`manifests/policies/debug.yaml`).

use json_patch::PatchOperation;
use podwitness_core::allow::Allow;
use serde_json::Value;

use super::{
    baseline, capabilities,
    patch::Patch,
    pod::{self, Container, debug},
    refusal::Refusal,
};

/// What has to change in the debug containers that `pod` has and `old` has not: those that run already cannot change.
///
/// # Errors
/// Where one of them is beyond the baseline.
pub(super) fn mutate(
    pod: &Value,
    old: Option<&Value>,
    allow: &Allow,
) -> Result<Vec<PatchOperation>, Refusal> {
    let mut patch = Patch::default();
    if pod::sidecar(pod).is_none() {
        return Ok(patch.0);
    }
    let runs = |name: &str| old.is_some_and(|old| debug(old).any(|container| container.name() == name));
    let added: Vec<Container<'_>> = debug(pod).filter(|container| !runs(container.name())).collect();
    baseline::debug(pod, &added, allow)?;
    added.iter().for_each(|container| capabilities::drop_net_raw(container, &mut patch));
    Ok(patch.0)
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
        let mutate = |pod: &Value, old: &Value| mutate(pod, Some(old), &Allow::default()).unwrap();
        let patched = apply(new.clone(), &mutate(&new, &old));
        let debug = patched["spec"]["ephemeralContainers"].clone();
        assert_eq!(debug[0], json!({"name": "old", "image": "i"}));
        assert_eq!(debug[1]["securityContext"], json!({"capabilities": {"drop": ["NET_RAW"]}}));
        assert_eq!(mutate(&patched, &old), vec![]);
    }

    #[test]
    fn a_debug_container_beyond_the_baseline_is_refused_unless_it_runs_already() {
        let tracing = json!([{"name": "new", "image": "i", "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}}]);
        let new = with(injected(), "/spec/ephemeralContainers", tracing);
        let refusal = mutate(&new, Some(&injected()), &Allow::default()).unwrap_err();
        let field = "spec.ephemeralContainers[0].securityContext.capabilities.add[0]";
        assert!(refusal.message.contains(field), "{refusal}");
        assert!(mutate(&new, Some(&new), &Allow::default()).unwrap().is_empty());
        let (allow, _) = Allow::parse("capability:SYS_PTRACE");
        assert_eq!(mutate(&new, Some(&injected()), &allow).unwrap().len(), 1);
    }

    #[test]
    fn a_pod_without_sidecar_is_left_alone() {
        let new = with(pod(), "/spec/ephemeralContainers", json!([{"name": "new", "image": "i"}]));
        assert_eq!(mutate(&new, Some(&pod()), &Allow::default()), Ok(vec![]));
    }
}
