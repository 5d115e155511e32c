//! Parts of the installation, taken away for the time of a test.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{Kubectl, SYSTEM, eventually};

/// The control plane.
pub const CONTROL: Part = Part { kind: "deployment", name: "podwitness-control" };
/// The installed recorder. What its Recorder says is made so; a StatefulSet that is scaled by hand is scaled back.
pub const RECORDER: Part = Part { kind: "recorder", name: "podwitness" };

/// Something that has replicas.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    kind: &'static str,
    name: &'static str,
}

/// Takes a part down to zero for the time of `test`.
///
/// # Errors
/// Those of `test`, and where its pods do not follow.
pub async fn without(part: Part, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let before = system().get(&[part.kind, part.name]).await?;
    let replicas = before.pointer("/spec/replicas").and_then(Value::as_u64).context("no replicas")?;
    part.scale(0).await?;
    let result = test().await;
    part.scale(replicas).await?;
    result
}

impl Part {
    async fn scale(self, replicas: u64) -> Result<()> {
        let patch = json!({"spec": {"replicas": replicas}}).to_string();
        system().run(&["patch", self.kind, self.name, "--type=merge", "-p", &patch]).await?.ok()?;
        let pods = if self.kind == "recorder" { "statefulset" } else { self.kind };
        eventually("its pods follow", async || {
            let object = system().get(&[pods, self.name]).await?;
            let wanted = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
            let count =
                |key: &str| object.pointer(&format!("/status/{key}")).and_then(Value::as_u64).unwrap_or(0);
            let follows =
                wanted == replicas && count("replicas") == wanted && count("readyReplicas") == wanted;
            ensure!(follows, "{wanted} of {replicas}: {:?}", object.get("status"));
            Ok(())
        })
        .await
    }
}

fn system() -> Kubectl {
    Kubectl::with(&["-n", SYSTEM])
}
