//! A pod that is shown more than a recorder can hold neither takes the recorder down nor takes its space from others.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Kubectl, Namespace, SYSTEM, Viewer, cluster, eventually,
    grants::{enforced, with_grant},
    pods::sleeper,
    recorders::{self, replica, with_recorders},
};
use serde_json::{Value, json};

/// What is written until the session is ended; the limit is for the case that it never is.
const FLOOD: &str = "timeout 240 kubectl -n $PLAIN exec target -- sh -c 'while :; do head -c 300000 /dev/urandom | base64; done' >/dev/null";
/// Floods until one is refused before it begins: each takes what the one before has left of the share.
const FLOODS: usize = 20;

#[tokio::test]
async fn a_flood_fills_its_share_and_neither_the_recorder_nor_the_other_namespace_suffers() -> Result<()> {
    let name = format!("e2e-space-{}", std::process::id());
    // The disk of the machine that runs this may be nearly full, which is not what this is about.
    let env = json!([{"name": "PODWITNESS_EVICTION_RESERVE", "value": "0%"}]);
    let spec = json!({
        "enableUI": true,
        "storage": {"filesystem": {"emptyDir": {"sizeLimit": "32Mi"}}},
        "statefulSet": {"pod": {"container": {"env": env}}},
    });
    with_recorders(&[(&name, spec)], async || {
        Namespace::plain(async |plain| {
            plain.start(&sleeper("target")).await?;
            with_witness(&name, async |flood| {
                with_witness(&name, async |other| attacked(&name, plain, flood, other).await).await
            })
            .await
        })
        .await
    })
    .await
}

/// Runs `test` with a namespace whose pod `witness` is recorded by this Recorder or does nothing.
async fn with_witness(recorder: &str, test: impl AsyncFnOnce(&Namespace) -> Result<()>) -> Result<()> {
    Namespace::witnessed(async |ns| {
        // Before the pod, so that it never knows of another grant.
        with_grant(&enforced(&ns.name, &recorders::tag(recorder)), async || {
            ns.allow_all().await?;
            ns.start(&sleeper("witness")).await?;
            test(ns).await
        })
        .await
    })
    .await
}

async fn attacked(recorder: &str, plain: &Namespace, flood: &Namespace, other: &Namespace) -> Result<()> {
    let before = replica(recorder, 0).await?;
    let viewer = recorders::viewer(recorder).await?;
    let says = |word: &str| format!("kubectl -n {} exec target -- echo {word}", plain.name);
    is_recorded(&viewer, flood, "before-the-flood", &says("before-the-flood")).await?;

    let script = format!("PLAIN={}; {FLOOD}", plain.name);
    let mut refused = false;
    for _ in 0..FLOODS {
        let run = flood.shell("witness", &script).await?;
        ensure!(run.code != 0 && run.code != 124, "a flood went on: {run:?}");
        if run.stderr.contains("nothing was run") {
            refused = true;
            break;
        }
    }
    ensure!(refused, "{FLOODS} floods were recorded");

    eventually("the Recorder says that somebody has more than its share", async || {
        let object = cluster::get(&format!("/apis/podwitness.dev/v1alpha1/recorders/{recorder}")).await?;
        let state = object.pointer("/status/replicas/0/state");
        ensure!(state == Some(&json!("limiting")), "{object}");
        Ok(())
    })
    .await?;
    eventually("there is an Event of it", async || {
        let field = format!("--field-selector=involvedObject.name={recorder}-0,reason=RecorderLimiting");
        let events = Kubectl::with(&["-n", SYSTEM]).get(&["events", &field]).await?;
        let count = events.pointer("/items").and_then(Value::as_array).map(Vec::len).context("no list")?;
        ensure!(count > 0, "there is none");
        Ok(())
    })
    .await?;

    is_recorded(&viewer, other, "beside-the-flood", &says("beside-the-flood")).await?;
    viewer.recording(&flood.name, "before-the-flood").await?;
    ensure!(replica(recorder, 0).await? == before, "the recorder is another one, or was started again");
    Ok(())
}

/// A session of one namespace runs, and is recorded whole.
async fn is_recorded(viewer: &Viewer, ns: &Namespace, word: &str, script: &str) -> Result<()> {
    eventually("a session runs", async || {
        let run = ns.shell("witness", script).await?.ok()?;
        ensure!(run.text().contains(word), "{run:?}");
        Ok(())
    })
    .await?;
    let recording = viewer.recording(&ns.name, word).await?;
    ensure!(recording.is_whole() && recording.text("o").contains(word), "{word} is not whole");
    Ok(())
}
