//! Which fields of which object a create or a patch touches: names, never values.
//!
//! A path is written as `kubectl explain` writes it, `spec.template.spec.containers`; what stands in a list has the
//! path of the list. The keys of a Secret's or ConfigMap's data are names as those of any field are, and the API server
//! shows them in `managedFields` likewise.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Cap on paths; what is touched beyond them is not named.
const MAX_FIELDS: usize = 256;
/// Cap on the bytes of one path.
const MAX_PATH: usize = 512;
/// How deep objects are looked into.
const MAX_DEPTH: usize = 32;

/// What a body touches.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Touched {
    /// `metadata.name` of the object, or `metadata.generateName` with a `*`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Paths of fields that have a value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// What a JSON body touches: an object, part of one, or a list of operations (RFC 6902).
#[must_use]
pub fn touched(body: &Value) -> Touched {
    let mut fields = BTreeSet::new();
    match body {
        Value::Array(operations) => operations.iter().for_each(|operation| operated(operation, &mut fields)),
        value => walk(value, "", 0, &mut fields),
    }
    Touched { name: name(body), fields: fields.into_iter().collect() }
}

fn name(body: &Value) -> String {
    let text =
        |pointer| body.pointer(pointer).and_then(Value::as_str).filter(|text: &&str| text.len() <= MAX_PATH);
    let generated = || text("/metadata/generateName").map(|prefix| format!("{prefix}*"));
    text("/metadata/name").map(str::to_owned).or_else(generated).unwrap_or_default()
}

/// Both places of an operation, from JSON pointer (RFC 6901) to path.
fn operated(operation: &Value, fields: &mut BTreeSet<String>) {
    for pointer in ["path", "from"].into_iter().filter_map(|key| operation.get(key)?.as_str()) {
        let index = |name: &str| name == "-" || name.bytes().all(|byte| byte.is_ascii_digit());
        let names = pointer.split('/').skip(1).filter(|name| !index(name));
        let names: Vec<String> = names.map(|name| name.replace("~1", "/").replace("~0", "~")).collect();
        add(names.join("."), fields);
    }
}

fn walk(value: &Value, path: &str, depth: usize, fields: &mut BTreeSet<String>) {
    match value {
        _ if depth > MAX_DEPTH || fields.len() >= MAX_FIELDS => {}
        Value::Object(object) if !object.is_empty() => {
            for (key, value) in object {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(value, &below, depth.saturating_add(1), fields);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().for_each(|value| walk(value, path, depth.saturating_add(1), fields));
        }
        _ => add(path.to_owned(), fields),
    }
}

fn add(path: String, fields: &mut BTreeSet<String>) {
    if !path.is_empty() && path.len() <= MAX_PATH && fields.len() < MAX_FIELDS {
        fields.insert(path);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_named_and_no_value_is() {
        let body = json!({
            "kind": "Secret",
            "metadata": {"name": "db", "labels": {"app": "hunter2"}},
            "data": {"password": "aHVudGVyMg=="},
            "spec": {"containers": [{"name": "a", "args": ["hunter2"]}, {"name": "b", "env": []}]}
        });
        let touched = touched(&body);
        assert_eq!(touched.name, "db");
        assert_eq!(
            touched.fields,
            [
                "data.password",
                "kind",
                "metadata.labels.app",
                "metadata.name",
                "spec.containers.args",
                "spec.containers.env",
                "spec.containers.name"
            ]
        );
        assert!(!serde_json::to_string(&touched).unwrap().contains("hunter2"));
    }

    #[test]
    fn a_patch_of_operations_is_named_by_its_places() {
        let body = json!([
            {"op": "replace", "path": "/spec/containers/0/image", "value": "hunter2"},
            {"op": "move", "from": "/metadata/annotations/a~1b", "path": "/metadata/annotations/c"}
        ]);
        assert_eq!(
            touched(&body).fields,
            ["metadata.annotations.a/b", "metadata.annotations.c", "spec.containers.image"]
        );
    }

    #[test]
    fn what_has_no_fields_touches_none_and_much_is_bounded() {
        for body in [json!(null), json!("hunter2"), json!([1, "hunter2"]), json!({})] {
            assert_eq!(touched(&body), Touched::default());
        }
        let many: serde_json::Map<_, _> = (0..1000).map(|n| (format!("k{n}"), json!(n))).collect();
        assert_eq!(touched(&Value::from(many)).fields.len(), MAX_FIELDS);
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!({ "a": deep });
        }
        assert!(touched(&deep).fields.is_empty());
        assert_eq!(touched(&json!({"metadata": {"generateName": "job-"}})).name, "job-*");
    }
}
