//! A sidecar fits into what limits its namespace, and where it cannot, an optional one lets the pod through.

use anyhow::{Context as _, Result, ensure};
use podwitness_core::labels;
use podwitness_e2e::{
    Namespace, eventually,
    pods::{sidecar, sleeper},
};
use serde_json::{Value, json};

/// A pod whose container has these requests and limits.
fn pod_with(name: &str, requests: &Value, limits: &Value) -> Result<Value> {
    let mut pod = sleeper(name);
    let container = pod.pointer_mut("/spec/containers/0").and_then(Value::as_object_mut);
    let resources = json!({"requests": requests, "limits": limits});
    container.context("no container")?.insert("resources".to_owned(), resources);
    Ok(pod)
}

async fn apply(ns: &Namespace, object: &Value) -> Result<()> {
    ns.kubectl.run_with_stdin(&["apply", "-f", "-"], object.to_string().as_bytes()).await?.ok()?;
    Ok(())
}

/// Makes the namespace's one LimitRange this one.
async fn limit_range(ns: &Namespace, items: &Value) -> Result<()> {
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "range"},
        "spec": {"limits": items}});
    ns.kubectl.run(&["delete", "limitrange", "--all"]).await?.ok()?;
    apply(ns, &range).await
}

async fn quota(ns: &Namespace, hard: &Value) -> Result<()> {
    apply(
        ns,
        &json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"},
        "spec": {"hard": hard}}),
    )
    .await
}

/// What would be created.
async fn admitted(ns: &Namespace, pod: &Value) -> Result<(Value, String)> {
    let run = ns.kubectl.create(pod, &["--dry-run=server", "-o", "json"]).await?.ok()?;
    Ok((serde_json::from_slice(&run.stdout)?, run.stderr))
}

fn resources(pod: &Value) -> Result<&Value> {
    sidecar(pod).and_then(|sidecar| sidecar.get("resources")).context("no sidecar")
}

#[tokio::test]
async fn a_sidecar_fits_into_the_limit_ranges_of_its_namespace() -> Result<()> {
    let pod = pod_with(
        "pod",
        &json!({"cpu": "100m", "memory": "128Mi"}),
        &json!({"cpu": "200m", "memory": "256Mi"}),
    )?;
    Namespace::witnessed(async |ns| {
        for (items, expected) in [
            (
                json!([{"type": "Container", "maxLimitRequestRatio": {"cpu": "10", "memory": "4"}}]),
                json!({"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "128Mi"}}),
            ),
            (
                json!([{"type": "Container", "min": {"cpu": "50m", "memory": "64Mi"},
                    "max": {"cpu": "500m", "memory": "512Mi"}}]),
                json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "100m", "memory": "128Mi"}}),
            ),
            (
                json!([{"type": "Pod", "max": {"cpu": "300m", "memory": "336Mi"}}]),
                json!({"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "80Mi"}}),
            ),
        ] {
            limit_range(ns, &items).await?;
            // Admission learns of it by watch.
            eventually("the sidecar fits", async || {
                let (pod, _) = admitted(ns, &pod).await?;
                let found = resources(&pod)?;
                ensure!(*found == expected, "{items}: {found}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_limit_range_that_leaves_no_value_is_named_in_the_refusal() -> Result<()> {
    Namespace::witnessed(async |ns| {
        limit_range(ns, &json!([{"type": "Container", "max": {"memory": "32Mi"}}])).await?;
        eventually("the refusal says what is impossible", async || {
            let run = ns.kubectl.create(&sleeper("pod"), &["--dry-run=server"]).await?;
            let says = ["limit of memory of the sidecar", "64Mi", "32Mi", "max of the LimitRange"];
            ensure!(run.code != 0 && says.iter().all(|text| run.stderr.contains(text)), "{run:?}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_guaranteed_pod_stays_so_and_gains_little() -> Result<()> {
    let equal = json!({"cpu": "10m", "memory": "32Mi"});
    let pod = pod_with("pod", &equal, &equal)?;
    Namespace::witnessed(async |ns| {
        let (pod, _) = admitted(ns, &pod).await?;
        ensure!(pod.pointer("/status/qosClass") == Some(&json!("Guaranteed")), "{pod}");
        let least = json!({"cpu": "100m", "memory": "64Mi"});
        ensure!(*resources(&pod)? == json!({"requests": least, "limits": least}), "{pod}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_quota_that_counts_limits_gets_small_ones() -> Result<()> {
    let pod =
        pod_with("pod", &json!({"cpu": "5m", "memory": "8Mi"}), &json!({"cpu": "500m", "memory": "64Mi"}))?;
    Namespace::witnessed(async |ns| {
        let (before, _) = admitted(ns, &pod).await?;
        let limits = resources(&before)?.get("limits");
        ensure!(limits == Some(&json!({"memory": "128Mi"})), "CPU is limited without need: {before}");
        quota(ns, &json!({"limits.cpu": "600m", "limits.memory": "192Mi"})).await?;
        eventually("the pod is within the quota", async || {
            let (pod, _) = admitted(ns, &pod).await?;
            let limits = resources(&pod)?.get("limits");
            ensure!(limits == Some(&json!({"cpu": "100m", "memory": "128Mi"})), "{pod}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_optional_pod_for_whose_sidecar_there_is_no_quota_runs_without_one_and_says_so() -> Result<()> {
    Namespace::with(&[(labels::INJECT, "optional")], async |ns| {
        quota(ns, &json!({"limits.memory": "100Mi"})).await?;
        let pod = pod_with("pod", &json!({"memory": "8Mi"}), &json!({"memory": "64Mi"}))?;
        eventually("the pod is let through", async || {
            let (pod, warning) = admitted(ns, &pod).await?;
            ensure!(sidecar(&pod).is_none() && warning.contains("ResourceQuota quota"), "{warning} {pod}");
            Ok(())
        })
        .await?;
        // The other replica of admission may learn of the quota later, and the API server then refuses the pod.
        eventually("the pod is made", async || ns.kubectl.create(&pod, &[]).await?.ok()).await?;
        ns.ready("pod").await?;
        eventually("an Event says that the pod has no witness", async || {
            let events = ns.kubectl.run(&["events", "--for", "pod/pod"]).await?.ok()?.text();
            ensure!(events.contains("NotWitnessed") && events.contains("ResourceQuota quota"), "{events}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn labelling_a_namespace_required_says_what_its_pods_lose() -> Result<()> {
    Namespace::plain(async |ns| {
        let label = |value: &'static str| async move {
            let label = format!("{}={value}", labels::INJECT);
            let args = ["label", "namespace", &ns.name, &label, "--overwrite", "--dry-run=server"];
            ns.kubectl.run(&args).await?.ok()
        };
        let run = label("required").await?;
        ensure!(run.stderr.contains("NET_RAW") && run.stderr.contains(labels::ALLOW), "{run:?}");
        let run = label("optional").await?;
        ensure!(!run.stderr.contains("NET_RAW"), "{run:?}");
        Ok(())
    })
    .await
}
