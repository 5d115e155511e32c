//! A JSON patch (RFC 6902) in the making. Operations are written one by one where something has to change: a diff
//! would rewrite containers that are not ours.

use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation, jsonptr::PointerBuf};
use serde_json::Value;

/// Operations in the order in which they apply.
#[derive(Debug, Default)]
pub(super) struct Patch(pub(super) Vec<PatchOperation>);

impl Patch {
    /// Adds a member to an object, or inserts into a list.
    pub(super) fn add(&mut self, path: &[String], value: Value) {
        self.0.push(PatchOperation::Add(AddOperation { path: pointer(path), value }));
    }

    /// Replaces what is there.
    pub(super) fn replace(&mut self, path: &[String], value: Value) {
        self.0.push(PatchOperation::Replace(ReplaceOperation { path: pointer(path), value }));
    }

    /// Removes what is there.
    pub(super) fn remove(&mut self, path: &[String]) {
        self.0.push(PatchOperation::Remove(RemoveOperation { path: pointer(path) }));
    }

    /// Appends to the list at `path`; `exists` says whether there is one, and becomes true.
    pub(super) fn append(&mut self, path: &[String], exists: &mut bool, value: Value) {
        if *exists {
            let end: Vec<String> = path.iter().cloned().chain(["-".to_owned()]).collect();
            self.add(&end, value);
        } else {
            self.add(path, Value::Array(vec![value]));
            *exists = true;
        }
    }
}

/// Tokens of a path.
pub(super) fn path<const N: usize>(tokens: [&str; N]) -> Vec<String> {
    tokens.map(ToOwned::to_owned).to_vec()
}

fn pointer(path: &[String]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().map(String::as_str))
}
