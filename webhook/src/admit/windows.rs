//! Pods for Windows nodes, by all that says so: `spec.os`, node selectors, and node affinity that lets no other node be
//! chosen. A RuntimeClass says it by its node selector, which the API server has merged into the pod's before webhooks are
//! asked (`plugin/pkg/admission/runtimeclass`); so has a namespace's default node selector (`podnodeselector`).
//!
//! None of it is a way past the sidecar: kubelets reject pods that a selector, the affinity or `spec.os` keeps from their
//! node, also where `spec.nodeName` bypasses the scheduler (`pkg/kubelet/lifecycle/predicate.go`).

use serde_json::Value;

use super::pod::{items, text};

/// Labels of nodes with their operating system; the second is of old clusters.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
const WINDOWS: &str = "windows";
const LINUX: &str = "linux";
const TERMS: &str =
    "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

/// The field that sends the pod to Windows nodes, if one does.
pub(super) fn chosen_by(pod: &Value) -> Option<&'static str> {
    match pod.pointer("/spec/os/name").and_then(Value::as_str) {
        Some(WINDOWS) => return Some("spec.os.name"),
        Some(LINUX) => return None,
        _ => {}
    }
    let selects = |label: &&str| pod.pointer("/spec/nodeSelector")?.get(*label)?.as_str();
    if OS_LABELS.iter().filter_map(selects).any(|value| value == WINDOWS) {
        return Some("spec.nodeSelector");
    }
    let terms = pod.pointer(TERMS).and_then(Value::as_array)?;
    // One term is enough for a node to fit; a term that says nothing fits none.
    let mut terms = terms.iter().filter(|term| !expressions(term).is_empty() || has_fields(term)).peekable();
    (terms.peek().is_some() && terms.all(wants_windows)).then_some("spec.affinity.nodeAffinity")
}

fn expressions(term: &Value) -> &[Value] {
    items(Some(term), "matchExpressions")
}

fn has_fields(term: &Value) -> bool {
    !items(Some(term), "matchFields").is_empty()
}

/// All expressions of a term have to hold, so that one is enough.
fn wants_windows(term: &Value) -> bool {
    expressions(term).iter().filter(|expression| OS_LABELS.contains(&text(expression, "key"))).any(
        |expression| {
            let values = items(Some(expression), "values");
            match text(expression, "operator") {
                "In" => !values.is_empty() && values.iter().all(|value| value == WINDOWS),
                "NotIn" => values.iter().any(|value| value == LINUX),
                _ => false,
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use podwitness_core::inject::Inject;
    use serde_json::json;

    use super::*;
    use crate::admit::{
        mutate,
        refusal::Reason,
        testing::{pod, settings, with},
    };

    fn affine(terms: &Value) -> Value {
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let affinity = json!({"nodeAffinity": {required: {"nodeSelectorTerms": terms}}});
        with(pod(), "/spec/affinity", affinity)
    }

    fn expression(operator: &str, values: &Value) -> Value {
        json!({"key": "kubernetes.io/os", "operator": operator, "values": values})
    }

    fn selecting(label: &str, value: &str) -> Value {
        with(pod(), "/spec/nodeSelector", json!({label: value, "pool": "x"}))
    }

    #[test]
    fn a_pod_for_windows_gets_no_sidecar_however_it_says_so() {
        let windows = || expression("In", &json!(["windows"]));
        let pool = json!({"key": "pool", "operator": "Exists"});
        for (pod, field) in [
            (with(pod(), "/spec/os", json!({"name": "windows"})), "spec.os.name"),
            (selecting("kubernetes.io/os", "windows"), "spec.nodeSelector"),
            (selecting("beta.kubernetes.io/os", "windows"), "spec.nodeSelector"),
            (affine(&json!([{"matchExpressions": [windows()]}])), "spec.affinity"),
            (affine(&json!([{"matchExpressions": [pool, windows()]}, {}])), "spec.affinity"),
            (
                affine(&json!([{"matchExpressions": [expression("NotIn", &json!(["linux"]))]}])),
                "spec.affinity",
            ),
        ] {
            for inject in [Inject::Required, Inject::Optional] {
                let refusal = mutate(&pod, &settings(inject)).unwrap_err();
                assert_eq!(refusal.reason, Reason::Windows);
                assert!(refusal.message.contains(field), "{refusal}");
            }
        }
    }

    #[test]
    fn a_pod_that_may_run_on_linux_gets_one() {
        let windows = || expression("In", &json!(["windows"]));
        let preferred = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [windows()]}}]}});
        let pool = json!({"key": "pool", "operator": "Exists"});
        let node = json!({"key": "metadata.name", "operator": "In", "values": ["n"]});
        let both = with(selecting("kubernetes.io/os", "windows"), "/spec/os", json!({"name": "linux"}));
        for pod in [
            pod(),
            both,
            selecting("kubernetes.io/os", "linux"),
            with(pod(), "/spec/affinity", preferred),
            affine(&json!([])),
            affine(&json!([{}])),
            affine(&json!([{"matchExpressions": [expression("In", &json!(["windows", "linux"]))]}])),
            affine(&json!([{"matchExpressions": [expression("NotIn", &json!(["windows"]))]}])),
            affine(&json!([{"matchExpressions": [expression("Exists", &json!(null))]}])),
            affine(&json!([{"matchExpressions": [windows()]}, {"matchExpressions": [pool]}])),
            affine(&json!([{"matchExpressions": [windows()]}, {"matchFields": [node]}])),
        ] {
            assert_eq!(chosen_by(&pod), None, "{pod}");
            assert!(mutate(&pod, &settings(Inject::Required)).is_ok(), "{pod}");
        }
    }
}
