//! The admission policies deny what they should, and nothing else.

use anyhow::{Result, ensure};
use podwitness_core::{inject, labels};
use podwitness_e2e::{Kubectl, Namespace, pods::sleeper};
use serde_json::{Value, json};

fn namespace(labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "e2e-never", "labels": labels}})
}

#[tokio::test]
async fn namespace_labels_are_checked_when_they_are_set() -> Result<()> {
    const LEVEL: &str = "pod-security.kubernetes.io/enforce";
    for (set, allowed) in [
        (json!({labels::INJECT: "required", LEVEL: "privileged"}), true),
        (json!({labels::INJECT: "required"}), true),
        (json!({labels::INJECT: "optional", labels::CREDENTIALS: "passthrough"}), true),
        (json!({"unrelated": "x"}), true),
        (json!({labels::INJECT: "yes"}), false),
        (json!({labels::INJECT: "required", labels::PROFILE: "magic"}), false),
        (json!({labels::INJECT: "required", labels::CREDENTIALS: "none"}), false),
        (json!({labels::INJECT: "required", LEVEL: "restricted"}), false),
        (json!({labels::INJECT: "optional", LEVEL: "baseline"}), false),
    ] {
        let run = Kubectl::default().create(&namespace(&set), &["--dry-run=server"]).await?;
        ensure!((run.code == 0) == allowed, "{set}: {run:?}");
        ensure!(!run.stderr.contains("nothing is recorded"), "the shipped grant means every pod: {run:?}");
        ensure!(allowed || run.stderr.contains("podwitness.dev"), "the reason is not clear: {run:?}");
    }
    Ok(())
}

#[tokio::test]
async fn nobody_enters_the_sidecar() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.start(&sleeper("pod")).await?;
        for args in [
            &["exec", "pod", "-c", inject::CONTAINER, "--", "true"][..],
            &["attach", "pod", "-c", inject::CONTAINER],
        ] {
            let run = ns.kubectl.run(args).await?;
            ensure!(run.code != 0 && run.stderr.contains("podwitness"), "{args:?}: {run:?}");
        }
        ns.kubectl.run(&["exec", "pod", "-c", "app", "--", "true"]).await?.ok()?;
        ns.kubectl.run(&["exec", "pod", "--", "true"]).await?.ok()?;
        ns.kubectl.run(&["logs", "pod", "-c", inject::CONTAINER]).await?.ok()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_sidecars_image_cannot_be_replaced() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.start(&sleeper("pod")).await?;
        let patch = |kind: &str, name: &str, image: &str| {
            json!({"spec": {kind: [{"name": name, "image": image}]}}).to_string()
        };
        let ours = patch("initContainers", inject::CONTAINER, "elsewhere.example/fake:1");
        let run = ns.kubectl.run(&["patch", "pod", "pod", "-p", &ours]).await?;
        ensure!(run.code != 0 && run.stderr.contains("podwitness"), "{run:?}");
        let theirs = patch("containers", "app", "podwitness.dev/toolbox:other");
        ns.kubectl.run(&["patch", "pod", "pod", "-p", &theirs, "--dry-run=server"]).await?.ok()?;
        ns.kubectl.run(&["label", "pod", "pod", "some=label"]).await?.ok()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn debug_containers_keep_out_of_the_sidecar() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.start(&sleeper("pod")).await?;
        let image = "--image=podwitness.dev/toolbox:dev";
        for args in [
            &["debug", "pod", image, "--target=podwitness", "--profile=general", "--", "true"][..],
            &["debug", "pod", image, "--profile=netadmin", "--", "true"],
            &["debug", "pod", image, "--profile=sysadmin", "--", "true"],
        ] {
            let run = ns.kubectl.run(args).await?;
            ensure!(run.code != 0 && run.stderr.contains("podwitness"), "{args:?}: {run:?}");
        }
        ns.kubectl.run(&["debug", "pod", image, "--profile=restricted", "--", "true"]).await?.ok()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn only_kubelets_get_tokens_of_our_audience() -> Result<()> {
    Namespace::plain(async |ns| {
        let ours = format!("--audience={}", inject::TOKEN_AUDIENCE);
        let run = ns.kubectl.run(&["create", "token", "default", &ours]).await?;
        ensure!(run.code != 0 && run.stderr.contains("podwitness"), "{run:?}");
        ns.kubectl.run(&["create", "token", "default"]).await?.ok()?;
        ns.kubectl.run(&["create", "token", "default", "--audience=vault"]).await?.ok()?;
        Ok(())
    })
    .await
}
