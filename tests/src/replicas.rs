//! Numbers of replicas, and the pods that follow them.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{Kubectl, SYSTEM, cluster, eventually, recorders};

/// Runs `test` while a Recorder, which has one replica, has none.
///
/// # Errors
/// Those of `test`, and where its pods do not follow.
pub async fn without_recorder(recorder: &str, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    scale_recorder(recorder, 0).await?;
    let result = test().await;
    scale_recorder(recorder, 1).await?;
    result
}

/// A StatefulSet that is scaled by hand would be scaled back.
async fn scale_recorder(recorder: &str, replicas: u64) -> Result<()> {
    recorders::change(recorder, &json!({"replicas": replicas})).await?;
    are("statefulsets", recorder, replicas).await
}

/// Scales a Deployment of the installation.
pub(crate) async fn scale_deployment(name: &str, replicas: u64) -> Result<()> {
    let replicas_flag = format!("--replicas={replicas}");
    let args = ["-n", SYSTEM, "scale", "deployment", name, &replicas_flag];
    Kubectl::default().run(&args).await?.ok()?;
    are("deployments", name, replicas).await
}

/// Waits until that many replicas are ready, and no more are there.
async fn are(kind: &str, name: &str, replicas: u64) -> Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{SYSTEM}/{kind}/{name}");
    eventually(&format!("{kind} {name} has {replicas} replicas"), async || {
        let object = cluster::get(&path).await?;
        let count = |key: &str| object.pointer(key).and_then(Value::as_u64).unwrap_or(0);
        let counts = ["/spec/replicas", "/status/replicas", "/status/readyReplicas"].map(count);
        ensure!(counts == [replicas; 3], "{:?}", object.get("status"));
        Ok(())
    })
    .await
}
