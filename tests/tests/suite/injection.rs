//! Which pods get a sidecar, which are refused, and that nothing else of them changes.

use anyhow::{Context as _, Result, ensure};
use podwitness_core::{inject, labels};
use podwitness_e2e::{
    Namespace, eventually,
    pods::{sidecar, sleeper},
};
use serde_json::{Value, json};

#[expect(clippy::unwrap_used, reason = "the pointers stand in this file and name objects of the sample")]
fn set(pod: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = if parent.is_empty() { pod } else { pod.pointer_mut(parent).unwrap() };
    parent.as_object_mut().unwrap().insert(key.to_owned(), value);
}

fn with(pointer: &str, value: Value) -> Value {
    let mut pod = sleeper("pod");
    set(&mut pod, pointer, value);
    pod
}

#[tokio::test]
async fn labelling_is_all_it_takes() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let pod = ns.start(&sleeper("pod")).await?;
        let injected = sidecar(&pod).context("no sidecar")?;
        ensure!(injected.get("restartPolicy") == Some(&Value::from("Always")));
        let table = ns.kubectl.run(&["get", "pods"]).await?.ok()?.text();
        ensure!(table.contains("2/2"), "{table}");
        let mounted =
            ns.shell("pod", &format!("cat {}/ca.crt", inject::SERVICE_ACCOUNT_DIR)).await?.ok()?.text();
        ensure!(mounted.matches("BEGIN CERTIFICATE").count() == 2, "in-pod CA and cluster CA: {mounted}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kubectl_logs_and_exec_pick_the_application() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.start(&sleeper("pod")).await?;
        let run = ns.kubectl.run(&["exec", "pod", "--", "echo", "hello"]).await?.ok()?;
        ensure!(run.text() == "hello\n" && run.stderr.is_empty(), "{run:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_could_undo_the_recording_is_refused() -> Result<()> {
    Namespace::witnessed(async |ns| {
        for (pod, names) in [
            (with("/spec/hostNetwork", json!(true)), "hostNetwork"),
            (with("/spec/hostPID", json!(true)), "hostPID"),
            (with("/spec/shareProcessNamespace", json!(true)), "shareProcessNamespace"),
            (with("/spec/containers/0/securityContext", json!({"privileged": true})), "privileged"),
            (
                with("/spec/containers/0/securityContext", json!({"capabilities": {"add": ["NET_ADMIN"]}})),
                "NET_ADMIN",
            ),
            (
                with("/spec/containers/0/securityContext", json!({"capabilities": {"add": ["NET_RAW"]}})),
                "NET_RAW",
            ),
            (with("/spec/containers/0/securityContext", json!({"runAsUser": inject::UID})), "64321"),
            (with("/spec/volumes", json!([{"name": "podwitness-state", "emptyDir": {}}])), "podwitness-"),
            (
                with(
                    "/spec/volumes",
                    json!([{"name": "t", "projected": {"sources": [
                        {"serviceAccountToken": {"audience": "podwitness.dev", "path": "t"}}]}}]),
                ),
                "podwitness.dev",
            ),
            (with("/metadata/annotations", json!({labels::MEMORY_LIMIT: "1Mi"})), labels::MEMORY_LIMIT),
        ] {
            let run = ns.kubectl.create(&pod, &["--dry-run=server"]).await?;
            ensure!(run.code != 0 && run.stderr.contains(names), "{names}: {run:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_optional_namespace_lets_pods_through_with_a_warning() -> Result<()> {
    Namespace::with(&[(labels::INJECT, "optional")], async |ns| {
        let pod = with("/spec/hostNetwork", json!(true));
        let run = ns.kubectl.create(&pod, &["--dry-run=server", "-o", "json"]).await?.ok()?;
        ensure!(run.stderr.contains("Warning") && run.stderr.contains("hostNetwork"), "{run:?}");
        let stored: Value = serde_json::from_slice(&run.stdout)?;
        ensure!(sidecar(&stored).is_none());
        let pod = sleeper("pod");
        let run = ns.kubectl.create(&pod, &["--dry-run=server", "-o", "json"]).await?.ok()?;
        ensure!(sidecar(&serde_json::from_slice(&run.stdout)?).is_some());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_the_label_nothing_changes() -> Result<()> {
    Namespace::plain(async |ns| {
        let run = ns.kubectl.create(&sleeper("pod"), &["--dry-run=server", "-o", "json"]).await?.ok()?;
        ensure!(!run.text().contains("podwitness-"), "{run:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_injected_twice_is_a_pod_injected_once() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let run = ns.kubectl.create(&sleeper("pod"), &["--dry-run=server", "-o", "json"]).await?.ok()?;
        let first: Value = serde_json::from_slice(&run.stdout)?;
        let run = ns.kubectl.create(&first, &["--dry-run=server", "-o", "json"]).await?.ok()?;
        let second: Value = serde_json::from_slice(&run.stdout)?;
        ensure!(first.get("spec") == second.get("spec"), "{first}\n{second}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_resubmitted_pod_is_checked_again() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let run = ns.kubectl.create(&sleeper("pod"), &["--dry-run=server", "-o", "json"]).await?.ok()?;
        let injected: Value = serde_json::from_slice(&run.stdout)?;

        let mut extended = injected.clone();
        let more = json!({"name": "more", "image": "podwitness.dev/toolbox:dev",
            "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}});
        extended
            .pointer_mut("/spec/containers")
            .and_then(Value::as_array_mut)
            .context("containers")?
            .push(more);
        let run = ns.kubectl.create(&extended, &["--dry-run=server"]).await?;
        ensure!(run.code != 0 && run.stderr.contains("NET_ADMIN"), "{run:?}");

        let mut altered = injected.clone();
        set(&mut altered, "/spec/initContainers/0/image", json!("elsewhere.example/fake:1"));
        let run = ns.kubectl.create(&altered, &["--dry-run=server", "-o", "json"]).await?.ok()?;
        let repaired: Value = serde_json::from_slice(&run.stdout)?;
        ensure!(sidecar(&repaired) == sidecar(&injected), "{repaired}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_debug_copy_is_witnessed_too() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.start(&sleeper("pod")).await?;
        let args =
            ["debug", "pod", "--copy-to=copy", "--container=app", "--image=podwitness.dev/toolbox:dev"];
        ns.kubectl.run(&[&args[..], &["--", "sleep", "600"]].concat()).await?.ok()?;
        let copy = ns.ready("copy").await?;
        ensure!(sidecar(&copy).is_some());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn fields_of_the_pod_are_kept() -> Result<()> {
    let mut pod = sleeper("pod");
    for (pointer, value) in [
        (
            "/spec/topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "pod"}}}]),
        ),
        ("/spec/resources", json!({"limits": {"memory": "512Mi"}})),
        ("/spec/containers/0/resizePolicy", json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}])),
        ("/spec/dnsConfig", json!({"options": [{"name": "ndots", "value": "2"}]})),
        ("/spec/securityContext", json!({"supplementalGroups": [7], "supplementalGroupsPolicy": "Merge"})),
    ] {
        set(&mut pod, pointer, value);
    }
    let admitted = |ns: &Namespace| {
        let kubectl = ns.kubectl.clone();
        let pod = pod.clone();
        async move {
            let run = kubectl.create(&pod, &["--dry-run=server", "-o", "json"]).await?.ok()?;
            Ok::<Value, anyhow::Error>(serde_json::from_slice(&run.stdout)?)
        }
    };
    Namespace::plain(async |plain| {
        let without = admitted(plain).await?;
        Namespace::witnessed(async |ns| {
            let with = admitted(ns).await?;
            // The API server itself adds what the sidecar requests to the requests of the pod as a whole.
            for field in [
                "topologySpreadConstraints",
                "resources/limits",
                "dnsConfig",
                "securityContext",
                "tolerations",
            ] {
                let field = format!("/spec/{field}");
                ensure!(with.pointer(&field) == without.pointer(&field), "{field} of {with}");
            }
            let policy = "/spec/containers/0/resizePolicy";
            ensure!(with.pointer(policy) == without.pointer(policy), "{policy} of {with}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_job_completes() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let mut template = sleeper("job");
        let spec = template.get_mut("spec").map(Value::take).context("no spec")?;
        let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"},
            "spec": {"template": {"metadata": {"labels": {"app": "job"}}, "spec": spec}}});
        set(&mut job, "/spec/template/spec/restartPolicy", json!("Never"));
        set(
            &mut job,
            "/spec/template/spec/containers/0/command",
            json!(["sh", "-c", "kubectl version; exit 0"]),
        );
        ns.kubectl.create(&job, &[]).await?.ok()?;
        ns.kubectl.run(&["wait", "job/job", "--for=condition=complete", "--timeout=120s"]).await?.ok()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn init_containers_are_covered() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.allow_all().await?;
        let mut pod = sleeper("pod");
        let script = "kubectl get pods >/dev/null && grep -c BEGIN /var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
        let init = json!([{"name": "first", "image": "podwitness.dev/toolbox:dev", "command": ["sh", "-c", script]}]);
        set(&mut pod, "/spec/initContainers", init);
        ns.start(&pod).await?;
        let log = ns.kubectl.run(&["logs", "pod", "-c", "first"]).await?.ok()?.text();
        ensure!(log.trim() == "2", "the init container saw {log:?} certificates");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn quota_and_limit_range_are_satisfied() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"},
            "spec": {"hard": {"requests.cpu": "2", "limits.cpu": "4", "requests.memory": "2Gi", "limits.memory": "4Gi"}}});
        let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "range"},
            "spec": {"limits": [{"type": "Container", "default": {"cpu": "200m", "memory": "128Mi"},
                "defaultRequest": {"cpu": "50m", "memory": "64Mi"}, "max": {"cpu": "2", "memory": "1Gi"}}]}});
        ns.kubectl.create(&quota, &[]).await?.ok()?;
        ns.kubectl.create(&range, &[]).await?.ok()?;
        eventually("the quota is counted", async || {
            let quota = ns.kubectl.get(&["resourcequota", "quota"]).await?;
            quota.pointer("/status/used").context("not counted yet").cloned()
        })
        .await?;
        ns.start(&sleeper("pod")).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_guaranteed_pod_stays_guaranteed() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let amounts = json!({"cpu": "100m", "memory": "64Mi"});
        let pod = with("/spec/containers/0/resources", json!({"requests": amounts, "limits": amounts}));
        let run = ns.kubectl.create(&pod, &["--dry-run=server", "-o", "json"]).await?.ok()?;
        let stored: Value = serde_json::from_slice(&run.stdout)?;
        ensure!(stored.pointer("/status/qosClass") == Some(&json!("Guaranteed")), "{stored}");
        Ok(())
    })
    .await
}
