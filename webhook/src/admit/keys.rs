//! Keys of labels and annotations that were meant for Podwitness and have no effect: on Namespaces, on Pods, and on
//! what makes pods and their templates. A warning names them; nothing else happens.

use kube::core::admission::{AdmissionRequest, Operation};
use podwitness_core::labels::{Field, Holder, key_mistake};
use serde_json::Value;

use super::{decide::Verdict, review::Object};

/// Cap on warnings about keys of one object; the API server passes on 4 KiB of warnings.
const MAX_WARNINGS: usize = 8;
/// Where objects have metadata that becomes that of pods.
const TEMPLATES: [&str; 2] = ["/spec/template/metadata", "/spec/jobTemplate/spec/template/metadata"];

/// The verdict on a pod or on what makes pods.
pub(super) fn judge(request: &AdmissionRequest<Object>) -> Verdict {
    let is_set = matches!(request.operation, Operation::Create | Operation::Update);
    let Some(object) = request.object.as_ref().filter(|_| is_set) else {
        return Verdict::Skipped("not-set");
    };
    let old = request.old_object.as_ref().map(|old| &old.value);
    let is_pod = request.resource.group.is_empty() && request.resource.resource == "pods";
    let holder = if is_pod { Holder::Pod } else { Holder::Workload };
    let mut warnings = mistakes(holder, "/metadata", &object.value, old);
    for template in TEMPLATES {
        warnings.extend(mistakes(Holder::Pod, template, &object.value, old));
    }
    if warnings.is_empty() {
        return Verdict::Skipped("known-keys");
    }
    Verdict::Advised { warnings: limit(warnings), reason: "key" }
}

/// What is wrong with the keys at a pointer to metadata, but for those that were there before.
pub(super) fn mistakes(holder: Holder, metadata: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
    let fields = [Field::Label, Field::Annotation].into_iter().flat_map(|field| {
        let pointer = format!("{metadata}/{}", field.in_metadata());
        let had = old.and_then(|old| old.pointer(&pointer));
        let keys = new.pointer(&pointer).and_then(Value::as_object).into_iter().flat_map(|map| map.keys());
        keys.filter(move |key| had.and_then(|had| had.get(key.as_str())).is_none())
            .filter_map(move |key| key_mistake(holder, field, key))
    });
    fields.map(|mistake| format!("podwitness: {mistake}")).collect()
}

/// The first warnings; the rest is counted.
pub(super) fn limit(mut warnings: Vec<String>) -> Vec<String> {
    let more = warnings.len().saturating_sub(MAX_WARNINGS);
    warnings.truncate(MAX_WARNINGS);
    warnings.extend((more > 0).then(|| format!("podwitness: {more} more warnings of this kind")));
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_keys_that_are_new_are_told() {
        let with = |keys: &[&str]| {
            let map: serde_json::Map<String, Value> =
                keys.iter().map(|key| ((*key).to_owned(), json!("x"))).collect();
            json!({"metadata": {"labels": {"app": "x"}, "annotations": map}})
        };
        let new = with(&["podwitness.dev/injection", "podwitness.io/exempt", "podwitness.dev/exempt"]);
        let found = mistakes(Holder::Namespace, "/metadata", &new, None);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("podwitness: annotation podwitness.dev/injection has no effect"));
        let found =
            mistakes(Holder::Namespace, "/metadata", &new, Some(&with(&["podwitness.dev/injection"])));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(mistakes(Holder::Namespace, "/metadata", &new, Some(&new)).is_empty());
        assert!(mistakes(Holder::Namespace, "/metadata", &json!({"metadata": 7}), None).is_empty());
    }

    #[test]
    fn many_warnings_are_counted() {
        let many: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        let limited = limit(many);
        assert_eq!((limited.len(), &*limited[8]), (9, "podwitness: 42 more warnings of this kind"));
    }
}
