//! Pods are moved, backed up and ended as they would be without a sidecar.

use anyhow::{Context as _, Result, ensure};
use podwitness_core::inject;
use podwitness_e2e::{
    Namespace, TOOLBOX, eventually,
    grants::{grant, with_grant},
    pods::{running, sleeper},
    recorders::tag,
};
use serde_json::{Value, json};

/// The pod as the API server would keep it.
async fn admitted(ns: &Namespace, pod: &Value) -> Result<Value> {
    let run = ns.kubectl.create(pod, &["--dry-run=server", "-o", "json"]).await?.ok()?;
    Ok(serde_json::from_slice(&run.stdout)?)
}

/// Names of volumes of which `counts` is true and which the annotation does not list.
fn left<'a>(pod: &'a Value, annotation: &str, counts: impl Fn(&Value) -> bool) -> Result<Vec<&'a str>> {
    let annotations = pod.pointer("/metadata/annotations").context("no annotations")?;
    let listed = annotations.get(annotation).and_then(Value::as_str).context("no such annotation")?;
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).context("no volumes")?;
    let names =
        volumes.iter().filter(|volume| counts(volume)).filter_map(|volume| volume.get("name")?.as_str());
    Ok(names.filter(|name| !listed.split(',').any(|listed| listed == *name)).collect())
}

#[tokio::test]
async fn the_sidecars_volumes_hold_no_node_and_are_not_backed_up() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let mut pod = sleeper("pod");
        let fields = pod.as_object_mut().context("no object")?;
        let kept = json!({"backup.velero.io/backup-volumes-excludes": "cache"});
        fields.insert("metadata".into(), json!({"name": "pod", "annotations": kept}));
        let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
        let volumes = json!([{"name": "cache", "emptyDir": {}}, {"name": "data", "emptyDir": {}}]);
        spec.insert("volumes".into(), volumes);
        let pod = admitted(ns, &pod).await?;
        let local = |volume: &Value| {
            let on_disk = |dir: &Value| dir.get("medium") != Some(&Value::from("Memory"));
            volume.get("hostPath").is_some() || volume.get("emptyDir").is_some_and(on_disk)
        };
        let holding = left(&pod, "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", local)?;
        ensure!(holding == ["cache", "data"], "{holding:?}");
        let copied = |volume: &Value| volume.get("emptyDir").is_some();
        let copied = left(&pod, "backup.velero.io/backup-volumes-excludes", copied)?;
        ensure!(copied == ["data"], "{copied:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_sidecar_with_unsent_recordings_ends_with_0_within_a_short_grace_period() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.allow_all().await?;
        // There is no recorder of this name, and nothing is refused for it.
        let rule = json!({"recorder": [tag(&ns.name)]});
        let open = grant(&ns.name, &format!("namespace:{}", ns.name), &rule);
        with_grant(&open, async || {
            let exec = format!("kubectl -n {} exec ending -c app -- echo unsent", ns.name);
            let mut pod = running("ending", TOOLBOX, &format!("until {exec}; do sleep 1; done"));
            let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
            spec.insert("restartPolicy".into(), "Never".into());
            spec.insert("terminationGracePeriodSeconds".into(), 2.into());
            ns.kubectl.create(&pod, &[]).await?.ok()?;
            let code = eventually("the sidecar has ended", async || {
                let pod = ns.kubectl.get(&["pod", "ending"]).await?;
                let statuses =
                    pod.pointer("/status/initContainerStatuses").and_then(Value::as_array).cloned();
                let statuses = statuses.unwrap_or_default();
                let own =
                    statuses.iter().find(|status| status.get("name") == Some(&inject::CONTAINER.into()));
                let code = own.and_then(|status| status.pointer("/state/terminated/exitCode"));
                code.and_then(Value::as_i64).with_context(|| format!("{statuses:?}"))
            })
            .await?;
            let log = ns.kubectl.run(&["logs", "ending", "-c", inject::CONTAINER]).await?.text();
            ensure!(code == 0, "exit code {code}: {log}");
            ensure!(log.contains("no recorder took the rest of a recording"), "all was sent: {log}");
            Ok(())
        })
        .await
    })
    .await
}
