//! Grants that tests apply.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::Kubectl;

/// A Grant with one rule, for all who come from `dst`.
#[must_use]
pub fn grant(name: &str, dst: &str, rule: &Value) -> Value {
    json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Grant", "metadata": {"name": name},
        "spec": {"src": ["*"], "dst": [dst], "app": {"tailscale.com/cap/kubernetes": [rule]}}})
}

/// A Grant of the name of a namespace that enforces recording in it, by recorders of this tag.
#[must_use]
pub fn enforced(ns: &str, tag: &str) -> Value {
    grant(ns, &format!("namespace:{ns}"), &json!({"recorder": [tag], "enforceRecorder": true}))
}

/// A Grant of the name of a namespace that asks for the events of its pods' requests, and `enforce`s that.
#[must_use]
pub fn events(ns: &str, tag: &str, enforce: bool) -> Value {
    let rule = json!({"recorder": [tag], "enforceRecorder": enforce, "enableEvents": true});
    grant(ns, &format!("namespace:{ns}"), &rule)
}

/// Runs `test` while there is this Grant.
///
/// # Errors
/// Those of `test`, and where the Grant is refused.
pub async fn with_grant(grant: &Value, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let name = grant.pointer("/metadata/name").and_then(Value::as_str).context("the grant has no name")?;
    let kubectl = Kubectl::default();
    kubectl.create(grant, &[]).await?.ok()?;
    let result = test().await;
    kubectl.run(&["delete", "grant", name]).await?.ok()?;
    result
}
