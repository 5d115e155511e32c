//! What labels and annotations declare is checked when they are set: what cannot be read is refused, and what has no
//! effect, or more effect than one may think, is a warning.

use anyhow::{Result, ensure};
use podwitness_core::labels;
use podwitness_e2e::{
    Kubectl, Namespace, TOOLBOX, cluster, eventually,
    pods::{sidecar, sleeper},
};
use serde_json::{Value, json};

fn namespace(labels: &Value, annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "e2e-never", "labels": labels, "annotations": annotations}})
}

/// Creates the object as a trial.
async fn trial(object: &Value) -> Result<podwitness_e2e::Run> {
    Kubectl::default().create(object, &["--dry-run=server"]).await
}

#[tokio::test]
async fn annotations_that_cannot_be_read_are_refused() -> Result<()> {
    for (key, value, allowed) in [
        (labels::BYPASS_UNTIL, "tomorrow", false),
        (labels::BYPASS_UNTIL, "2027-01-15", false),
        (labels::BYPASS_UNTIL, "2027-01-15T08:00:00", false),
        (labels::BYPASS_UNTIL, "2027-01-15T08:00:00Z", true),
        (labels::BYPASS_UNTIL, "2027-01-15T08:00:00.5+01:00", true),
        (labels::EXEMPT, "app==batch", false),
        (labels::EXEMPT, "!app", false),
        (labels::EXEMPT, "app in (batch)", false),
        (labels::EXEMPT, "app=batch,", false),
        (labels::EXEMPT, "app=batch, example.com/tier", true),
        (labels::EXEMPT, "", true),
        (labels::LOG_LEVEL, "loud", false),
        (labels::LOG_LEVEL, "debug", true),
        (labels::CPU_LIMIT, "much", false),
        (labels::CPU_LIMIT, "none", true),
        (labels::CPU_REQUEST, "none", false),
        (labels::CPU_REQUEST, "50m", true),
        (labels::MEMORY_REQUEST, "64 Mi", false),
        (labels::MEMORY_LIMIT, "256Mi", true),
        (labels::TRUST, "everyone", false),
        (labels::ALLOW, "everything", false),
    ] {
        let run = trial(&namespace(&json!({labels::INJECT: "optional"}), &json!({key: value}))).await?;
        ensure!((run.code == 0) == allowed, "{key}={value}: {run:?}");
        ensure!(allowed || run.stderr.contains(key), "the reason is not clear: {run:?}");
    }
    Ok(())
}

#[tokio::test]
async fn annotations_are_told_by_what_they_do() -> Result<()> {
    for (key, value, says) in [
        (labels::BYPASS_UNTIL, "2020-01-01T00:00:00Z", "is in the past and has no effect"),
        (labels::BYPASS_UNTIL, "2199-01-01T00:00:00Z", "is that intended?"),
        (labels::EXEMPT, "app=batch", "new pods with labels app=batch get no sidecar"),
        (labels::MEMORY_LIMIT, "1Mi", "at least 64Mi"),
        (labels::ALLOW, "hostPort:80", "hostPort:80"),
    ] {
        let run =
            trial(&namespace(&json!({labels::INJECT: "required"}), &json!({key: value}))).await?.ok()?;
        ensure!(run.stderr.contains(key) && run.stderr.contains(says), "{key}={value}: {run:?}");
    }
    Ok(())
}

#[tokio::test]
async fn keys_without_effect_are_told_on_a_namespace() -> Result<()> {
    let inject = "did you mean label podwitness.dev/inject of the Namespace?";
    for (labels, annotations, says) in [
        (json!({"podwitness.dev/injection": "required"}), json!({}), inject),
        (json!({"podwitness.io/inject": "required"}), json!({}), inject),
        (json!({"podwitnes.dev/inject": "required"}), json!({}), inject),
        (json!({}), json!({"podwitness.dev/inject": "required"}), "it is a label of the Namespace"),
        (json!({}), json!({"tag.podwitness.dev/pci": ""}), "it is a label of the Namespace"),
        (json!({"podwitness.dev/exempt": "app"}), json!({}), "it is an annotation of the Namespace"),
        (json!({labels::METRICS: "true"}), json!({}), "its value is read"),
        (json!({"team": "a"}), json!({"example.com/inject": "x"}), ""),
    ] {
        let run = trial(&namespace(&labels, &annotations)).await?.ok()?;
        ensure!(run.stderr.contains(says), "{labels} {annotations}: {run:?}");
        ensure!(!says.is_empty() || run.stderr.is_empty(), "{labels} {annotations}: {run:?}");
    }
    Ok(())
}

#[tokio::test]
async fn keys_without_effect_are_told_on_pods_and_templates() -> Result<()> {
    let wrong = json!({"podwitness.dev/injection": "x"});
    let right = json!({labels::MEMORY_LIMIT: "256Mi"});
    for labels in [&[][..], &[(labels::INJECT, "optional")]] {
        Namespace::with(labels, async |ns| {
            let metadata = |name: &str, annotations: &Value| {
                json!({"name": name, "labels": {"app": name}, "annotations": annotations})
            };
            let template = |annotations: &Value| {
                json!({"metadata": metadata("x", annotations),
                    "spec": {"restartPolicy": "Always", "containers": [{"name": "app", "image": TOOLBOX}]}})
            };
            let mut job = template(&wrong);
            job["spec"]["restartPolicy"] = json!("Never");
            let cron = json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": job}}});
            let deployment = |own: &Value, of_pods: &Value| {
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("x", own),
                    "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template(of_pods)}})
            };
            let mut pod = sleeper("x");
            pod["metadata"]["annotations"] = wrong.clone();
            let none = json!({});
            for (object, says) in [
                (pod, "on a Pod; did you mean label podwitness.dev/inject"),
                (deployment(&none, &wrong), "on a Pod; did you mean"),
                (deployment(&none, &right), ""),
                (deployment(&right, &none), "on a workload: it is an annotation of the Pod or Namespace"),
                (json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata("x", &none), "spec": cron}), "did you mean"),
            ] {
                let run = ns.kubectl.create(&object, &["--dry-run=server"]).await?.ok()?;
                ensure!(run.stderr.contains(says), "{object}: {run:?}");
                ensure!(!says.is_empty() || !run.stderr.contains("podwitness"), "{object}: {run:?}");
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_status_of_a_pod_reads_well_and_has_the_commit() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let pod = ns.start(&sleeper("pod")).await?;
        ensure!(sidecar(&pod).is_some(), "no sidecar");
        let text = pod
            .pointer("/metadata/annotations")
            .and_then(|all| all.get(labels::STATUS)?.as_str())
            .unwrap_or_default();
        ensure!(text.starts_with("{\"inject\": \"required\", \"version\": \""), "{text}");
        let status: Value = serde_json::from_str(text)?;
        let version = status["version"].as_str().unwrap_or_default();
        ensure!(version.contains('+'), "no commit: {text}");
        eventually("the sidecar says its version when it is ready", async || {
            let log = ns.kubectl.run(&["logs", "pod", "-c", "podwitness"]).await?.ok()?.text();
            ensure!(log.contains(version), "{version} is missing: {log}");
            Ok(())
        })
        .await
    })
    .await
}

/// What the API server has of the webhook, so that every entry can be verified by it.
#[tokio::test]
async fn every_entry_of_the_webhook_has_the_roots() -> Result<()> {
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/podwitness";
    let found = cluster::get(path).await?;
    let entries = found["webhooks"].as_array().cloned().unwrap_or_default();
    ensure!(entries.len() == 5, "{entries:?}");
    for entry in entries {
        ensure!(entry.pointer("/clientConfig/caBundle").is_some_and(Value::is_string), "{entry}");
    }
    Ok(())
}
