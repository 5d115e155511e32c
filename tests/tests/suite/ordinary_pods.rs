//! Pods that a sidecar would keep from working are left alone, or the sidecar makes room.

use anyhow::{Context as _, Result, ensure};
use podwitness_core::{
    inject::{ADMIN_PORT, PROBE_PORT},
    labels,
};
use podwitness_e2e::{
    Namespace, TOOLBOX,
    pods::{running, sidecar, sleeper},
};
use serde_json::{Value, json};

fn with(mut pod: Value, field: &str, value: Value) -> Result<Value> {
    let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
    spec.insert(field.to_owned(), value);
    Ok(pod)
}

#[tokio::test]
async fn pods_for_windows_get_no_sidecar_and_the_reason_is_told() -> Result<()> {
    let os = "kubernetes.io/os";
    let expressions = json!([{"key": os, "operator": "In", "values": ["windows"]}]);
    let terms = json!({"nodeSelectorTerms": [{"matchExpressions": expressions}]});
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
    let pods = [
        with(sleeper("selects"), "nodeSelector", json!({os: "windows"}))?,
        with(sleeper("affine"), "affinity", affinity)?,
        with(sleeper("says"), "os", json!({"name": "windows"}))?,
    ];
    Namespace::with(&[(labels::INJECT, "optional")], async |ns| {
        for pod in &pods {
            let run = ns.kubectl.create(pod, &["--dry-run=server", "-o", "json"]).await?.ok()?;
            ensure!(run.stderr.contains("Warning") && run.stderr.contains("Windows"), "{run:?}");
            ensure!(sidecar(&serde_json::from_slice(&run.stdout)?).is_none(), "{run:?}");
        }
        Ok(())
    })
    .await?;
    Namespace::witnessed(async |ns| {
        for pod in &pods {
            let run = ns.kubectl.create(pod, &["--dry-run=server"]).await?;
            let told = run.stderr.contains("Windows") && run.stderr.contains(labels::EXEMPT);
            ensure!(run.code != 0 && told, "{run:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_that_declares_the_sidecars_ports_has_them() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let serve = format!("httpd -p {PROBE_PORT} -h /tmp && exec httpd -f -p {ADMIN_PORT} -h /tmp");
        let mut pod = running("pod", TOOLBOX, &serve);
        let ports = [ADMIN_PORT, PROBE_PORT].map(|port| json!({"containerPort": port}));
        let app = pod.pointer_mut("/spec/containers/0").and_then(Value::as_object_mut);
        app.context("no container")?.insert("ports".into(), ports.into());
        let warned = ns.kubectl.create(&pod, &["--dry-run=server"]).await?.ok()?.stderr;
        let moved = PROBE_PORT + 1;
        ensure!(warned.contains(&ADMIN_PORT.to_string()) && warned.contains(&moved.to_string()), "{warned}");
        ns.start(&pod).await?;
        let metrics = format!("wget -qO- http://$(hostname -i):{moved}/metrics");
        let metrics = ns.shell("pod", &metrics).await?.ok()?.text();
        ensure!(metrics.contains("podwitness_interception"), "{metrics}");
        Ok(())
    })
    .await
}
