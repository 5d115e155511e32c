//! Pods are moved, backed up and ended as they would be without a sidecar.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{Namespace, pods::sleeper};
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
