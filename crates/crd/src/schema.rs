//! Additions to derived schemas: caps, CEL rules (KEP-2876) and list types.
//!
//! A CEL rule over a list needs caps on the list and on its items, or the API server refuses the definition because
//! of the rule's estimated cost. A path that leads nowhere changes nothing; the tests look for every message.

use schemars::Schema;
use serde_json::{Map, Value, json};

/// CEL: every item is a tag.
pub const TAGS: &str = "self.all(t, t.matches('^tag:[a-zA-Z][a-zA-Z0-9-]*$'))";
/// What to say where one is not.
pub const TAGS_MESSAGE: &str =
    "a tag is written tag:NAME; NAME begins with a letter and holds letters, digits and hyphens";

/// Caps the list at `path` and the length of its items, which may not be empty.
pub fn list(root: &mut Schema, path: &[&str], items: u64, length: u64) {
    cap_items(root, path, items);
    if let Some(item) = at(root, path).and_then(|node| node.get_mut("items")).and_then(Value::as_object_mut) {
        item.insert("minLength".into(), json!(1));
        item.insert("maxLength".into(), json!(length));
    }
}

/// Caps the list at `path`.
pub fn cap_items(root: &mut Schema, path: &[&str], items: u64) {
    if let Some(node) = at(root, path) {
        node.insert("maxItems".into(), json!(items));
    }
}

/// Bounds the length of the text at `path`.
pub fn text(root: &mut Schema, path: &[&str], shortest: u64, longest: u64) {
    if let Some(node) = at(root, path) {
        node.insert("minLength".into(), json!(shortest));
        node.insert("maxLength".into(), json!(longest));
    }
}

/// Lets the property at `path` be absent but not `null`, so that `has` in a rule means that it says something.
pub fn never_null(root: &mut Schema, path: &[&str]) {
    let Some(node) = at(root, path) else { return };
    node.remove("nullable");
    if let Some(types) = node.get_mut("type")
        && let Some(only) = types.as_array().and_then(|all| all.iter().find(|kind| *kind != "null")).cloned()
    {
        *types = only;
    }
}

/// Bounds the integer at `path`.
pub fn range(root: &mut Schema, path: &[&str], low: u64, high: u64) {
    if let Some(node) = at(root, path) {
        node.insert("format".into(), json!("int64"));
        node.insert("minimum".into(), json!(low));
        node.insert("maximum".into(), json!(high));
    }
}

/// Makes the number at `path` one of 32 bits, within bounds.
pub fn int32(root: &mut Schema, path: &[&str], low: u64, high: u64) {
    range(root, path, low, high);
    if let Some(node) = at(root, path) {
        node.insert("format".into(), json!("int32"));
    }
}

/// Lets the text at `path` be only what fits.
pub fn pattern(root: &mut Schema, path: &[&str], pattern: &str) {
    if let Some(node) = at(root, path) {
        node.insert("pattern".into(), json!(pattern));
    }
}

/// Caps the map at `path`.
pub fn cap_map(root: &mut Schema, path: &[&str], entries: u64) {
    if let Some(node) = at(root, path) {
        node.insert("maxProperties".into(), json!(entries));
    }
}

/// Adds a CEL rule with its message at `path`.
pub fn rule(root: &mut Schema, path: &[&str], rule: &str, message: &str) {
    let Some(node) = at(root, path) else { return };
    let rules = node.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    if let Some(rules) = rules.as_array_mut() {
        rules.push(json!({"rule": rule, "message": message}));
    }
}

/// Makes a list of conditions one that is merged by type.
pub fn conditions(list: &mut Schema) {
    map_by(list, "type");
    cap_items(list, &[], 16);
}

/// Makes a list one that is merged by `key`.
pub fn map_by(list: &mut Schema, key: &str) {
    list.insert("x-kubernetes-list-type".into(), json!("map"));
    list.insert("x-kubernetes-list-map-keys".into(), json!([key]));
}

/// The node at `path`: names of properties, `[]` for the items of a list.
fn at<'a>(root: &'a mut Schema, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    let mut node = root.as_object_mut()?;
    for step in path {
        let next = if *step == "[]" {
            node.get_mut("items")?
        } else {
            node.get_mut("properties")?.get_mut(*step)?
        };
        node = next.as_object_mut()?;
    }
    Some(node)
}
