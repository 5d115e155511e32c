//! What the control plane says of a `Recorder`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{Kubectl, eventually};

/// Waits until a condition of a Recorder has this status, and says the condition.
///
/// # Errors
/// Where it does not come to that.
pub async fn condition(recorder: &str, kind: &str, status: &str) -> Result<Value> {
    eventually(&format!("condition {kind} of Recorder {recorder} is {status}"), async || {
        let object = Kubectl::default().get(&["recorder", recorder]).await?;
        let all = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let found = all.iter().find(|condition| condition.get("type") == Some(&json!(kind)));
        let generation = object.pointer("/metadata/generation");
        let is = found.filter(|condition| {
            condition.get("status") == Some(&json!(status))
                && condition.get("observedGeneration") == generation
        });
        ensure!(is.is_some(), "its conditions are {all:?}");
        Ok(is.cloned().unwrap_or_default())
    })
    .await
}
