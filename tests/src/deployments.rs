//! Deployments of ours, taken away for the time of a test.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{Kubectl, SYSTEM, eventually};

/// Takes a Deployment of the system namespace down to zero for the time of `test`.
///
/// # Errors
/// Those of `test`, and where the Deployment does not follow.
pub async fn without(deployment: &str, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let before = system().get(&["deployment", deployment]).await?;
    let replicas = before.pointer("/spec/replicas").context("no replicas")?.to_string();
    scale(deployment, "0").await?;
    let result = test().await;
    scale(deployment, &replicas).await?;
    result
}

async fn scale(deployment: &str, replicas: &str) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    system().run(&["scale", "deployment", deployment, &replicas]).await?.ok()?;
    eventually("the Deployment follows", async || {
        let object = system().get(&["deployment", deployment]).await?;
        let want = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
        let count =
            |key: &str| object.pointer(&format!("/status/{key}")).and_then(Value::as_u64).unwrap_or(0);
        ensure!(count("replicas") == want && count("readyReplicas") == want, "{:?}", object.get("status"));
        Ok(())
    })
    .await
}

fn system() -> Kubectl {
    Kubectl::with(&["-n", SYSTEM])
}
