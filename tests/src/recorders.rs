//! Recorders of one test, and what the control plane says of a `Recorder`.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{Kubectl, SYSTEM, Viewer, cluster, eventually, report::Report};

/// Runs `test` with Recorders of these names that are as their `spec` says, each under a tag of its name, once all are
/// ready. Takes them away afterwards, and reports their logs where the test failed.
///
/// # Errors
/// Those of `test`, and where a Recorder does not become ready.
pub async fn with_recorders(
    recorders: &[(&str, Value)],
    test: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let system = Kubectl::with(&["-n", SYSTEM]);
    let run = async {
        for (name, spec) in recorders {
            system.create(&recorder(name, spec)?, &[]).await?.ok()?;
        }
        for (name, _) in recorders {
            condition(name, "Ready", "True").await?;
        }
        test().await
    };
    let result = run.await;
    for (name, _) in recorders {
        if result.is_err() {
            let selector = format!("app.kubernetes.io/instance={name}");
            let args = ["logs", "-l", &selector, "--all-containers", "--tail=60", "--prefix"];
            if let Ok(run) = system.run(&args).await {
                let text = format!("{}{}", run.text(), run.stderr);
                Report::of_this_test().add(&format!("recorder {name}"), &text);
            }
        }
        let _ = system.run(&["delete", "recorder", name, "--ignore-not-found", "--wait=false"]).await;
    }
    result
}

fn recorder(name: &str, spec: &Value) -> Result<Value> {
    let mut spec = spec.clone();
    spec.as_object_mut().context("the spec is no object")?.insert("tags".into(), json!([tag(name)]));
    Ok(
        json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "metadata": {"name": name}, "spec": spec}),
    )
}

/// Tag by which grants name the Recorder of this name.
#[must_use]
pub fn tag(recorder: &str) -> String {
    format!("tag:{recorder}")
}

/// The way to a viewer that answers: it may have just begun.
///
/// # Errors
/// Where it does not come to that.
pub async fn viewer(recorder: &str) -> Result<Viewer> {
    eventually("the viewer answers", async || {
        let viewer = Viewer::of(recorder).await?;
        viewer.sessions("nothing").await?;
        Ok(viewer)
    })
    .await
}

/// Changes the `spec` of a Recorder.
///
/// # Errors
/// Where the API server refuses.
pub async fn change(recorder: &str, spec: &Value) -> Result<()> {
    let patch = json!({"spec": spec}).to_string();
    let args = ["patch", "recorder", recorder, "--type=merge", "-p", &patch];
    Kubectl::default().run(&args).await?.ok().map(drop)
}

/// Uid of a replica's pod, and how often its container that takes recordings was started again, once it is ready.
///
/// # Errors
/// Where it does not become so.
pub async fn replica(recorder: &str, number: u32) -> Result<(String, u64)> {
    let name = format!("{recorder}-{number}");
    eventually(&format!("replica {name} is ready"), async || ready(&name).await).await
}

/// Waits until a replica that was `before` is ready again, in another pod or another process.
///
/// # Errors
/// Where it does not become so.
pub async fn returned(recorder: &str, number: u32, before: &(String, u64)) -> Result<()> {
    let name = format!("{recorder}-{number}");
    eventually(&format!("replica {name} is back"), async || {
        ensure!(ready(&name).await? != *before, "it is what it was");
        Ok(())
    })
    .await
}

async fn ready(pod: &str) -> Result<(String, u64)> {
    let pod = cluster::get(&format!("/api/v1/namespaces/{SYSTEM}/pods/{pod}")).await?;
    let all = pod.pointer("/status/containerStatuses").and_then(Value::as_array).context("no status")?;
    let ingest = all.iter().find(|one| one.get("name") == Some(&json!("ingest"))).context("no ingest")?;
    ensure!(ingest.get("ready") == Some(&json!(true)), "{ingest}");
    ensure!(pod.pointer("/metadata/deletionTimestamp").is_none(), "it is being deleted");
    let uid = pod.pointer("/metadata/uid").and_then(Value::as_str).context("no uid")?;
    let restarts = ingest.get("restartCount").and_then(Value::as_u64).context("no restarts")?;
    Ok((uid.to_owned(), restarts))
}

/// Waits until a condition of a Recorder has this status, and says the condition.
///
/// # Errors
/// Where it does not come to that.
pub async fn condition(recorder: &str, kind: &str, status: &str) -> Result<Value> {
    eventually(&format!("condition {kind} of Recorder {recorder} is {status}"), async || {
        let object = cluster::get(&format!("/apis/podwitness.dev/v1alpha1/recorders/{recorder}")).await?;
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
