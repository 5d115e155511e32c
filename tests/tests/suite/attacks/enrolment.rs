//! No pod that admission did not make speaks to the control plane as one, and what is recorded says how binding injection
//! was.

use anyhow::{Context as _, Result, ensure};
use podwitness_core::{inject, labels};
use podwitness_e2e::{
    Kubectl, Namespace, Run, Viewer, eventually,
    pods::{beside, sleeper},
};
use serde_json::{Value, json};

/// A volume with a token for the control plane.
fn token(name: &str) -> Value {
    json!({"name": name, "projected": {"sources": [
        {"serviceAccountToken": {"audience": inject::TOKEN_AUDIENCE, "path": "token"}}]}})
}

fn mount(name: &str) -> Value {
    json!({"name": name, "mountPath": "/stolen", "readOnly": true})
}

/// A pod that does not run, with these fields of its specification and of its container.
fn pod(spec: &Value, app: &Value) -> Result<Value> {
    let mut pod = sleeper("pod");
    for (pointer, more) in [("/spec", spec), ("/spec/containers/0", app)] {
        let fields = pod.pointer_mut(pointer).and_then(Value::as_object_mut).context("no fields")?;
        fields.extend(more.as_object().context("no object")?.clone());
    }
    Ok(pod)
}

/// Pods that use what is the sidecar's, and what the refusal names.
fn look_alikes() -> Result<Vec<(Value, &'static str)>> {
    let sidecar = json!({"name": inject::CONTAINER, "image": "podwitness.dev/sidecar:dev", "restartPolicy": "Always",
        "securityContext": {"runAsUser": inject::UID}, "volumeMounts": [mount("podwitness-identity")]});
    let named = json!({"name": inject::CONTAINER});
    Ok(vec![
        (
            pod(
                &json!({"initContainers": [sidecar], "volumes": [token("podwitness-identity")]}),
                &json!({"volumeMounts": [mount("podwitness-identity")]}),
            )?,
            "podwitness: ",
        ),
        (
            pod(
                &json!({"initContainers": [sidecar], "volumes": [token("podwitness-identity")]}),
                &json!({}),
            )?,
            "podwitness: ",
        ),
        (pod(&json!({}), &named)?, "reserved for the sidecar"),
        (
            pod(&json!({"volumes": [{"name": "podwitness-state", "emptyDir": {}}]}), &json!({}))?,
            "reserved for the sidecar",
        ),
        (
            pod(&json!({"volumes": [token("mine")]}), &json!({"volumeMounts": [mount("mine")]}))?,
            inject::TOKEN_AUDIENCE,
        ),
    ])
}

async fn tried(ns: &Namespace, pod: &Value) -> Result<Run> {
    ns.kubectl.create(pod, &["--dry-run=server", "-o", "json"]).await
}

#[tokio::test]
async fn no_pod_that_is_not_injected_uses_what_is_the_sidecars() -> Result<()> {
    Namespace::plain(async |ns| {
        for (pod, names) in look_alikes()? {
            let run = tried(ns, &pod).await?;
            ensure!(run.code != 0 && run.stderr.contains(names), "{pod}: {run:?}");
        }
        tried(ns, &sleeper("pod")).await?.ok()?;
        let other = json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "t"}}]}});
        tried(ns, &pod(&json!({"volumes": [other, {"name": "data", "emptyDir": {}}]}), &json!({}))?).await?.ok()?;
        Ok(())
    })
    .await
}

/// A pod of a labelled namespace that is left out by its labels is not injected either.
#[tokio::test]
async fn no_exempt_pod_uses_what_is_the_sidecars() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let annotation = format!("{}=app=pod", labels::EXEMPT);
        Kubectl::default().run(&["annotate", "namespace", &ns.name, &annotation]).await?.ok()?;
        eventually("the pod is left out", async || {
            let run = tried(ns, &sleeper("pod")).await?.ok()?;
            ensure!(!run.text().contains("podwitness-"), "{run:?}");
            Ok(())
        })
        .await?;
        for (pod, names) in look_alikes()? {
            let run = tried(ns, &pod).await?;
            ensure!(run.code != 0 && run.stderr.contains(names), "{pod}: {run:?}");
        }
        Ok(())
    })
    .await
}

/// What admission makes belongs where it made it: copied elsewhere it is a look-alike.
#[tokio::test]
async fn an_injected_pod_is_not_carried_into_another_namespace() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let made = tried(ns, &sleeper("pod")).await?.ok()?;
        let mut made: Value = serde_json::from_slice(&made.stdout)?;
        tried(ns, &made).await?.ok()?;
        Namespace::plain(async |plain| {
            *made.pointer_mut("/metadata/namespace").context("no namespace")? = json!(plain.name);
            let run = tried(plain, &made).await?;
            ensure!(run.code != 0 && run.stderr.contains("reserved for the sidecar"), "{run:?}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn no_debug_container_has_the_sidecars_name() -> Result<()> {
    Namespace::plain(async |ns| {
        ns.start(&sleeper("pod")).await?;
        let args =
            ["debug", "pod", "--image=podwitness.dev/toolbox:dev", "-c", inject::CONTAINER, "--", "true"];
        let run = ns.kubectl.run(&args).await?;
        ensure!(run.code != 0 && run.stderr.contains("reserved for the sidecar"), "{run:?}");
        Ok(())
    })
    .await
}

/// It was injected, but is not where admission makes pods when it comes up.
#[tokio::test]
async fn a_pod_of_a_namespace_that_lost_its_label_does_not_enrol() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let gate = json!({"schedulingGates": [{"name": "e2e.podwitness.dev/wait"}]});
        ns.kubectl.create(&pod(&gate, &json!({}))?, &[]).await?.ok()?;
        let label = format!("{}-", labels::INJECT);
        Kubectl::default().run(&["label", "namespace", &ns.name, &label]).await?.ok()?;
        let open = r#"[{"op": "remove", "path": "/spec/schedulingGates"}]"#;
        ns.kubectl.run(&["patch", "pod", "pod", "--type=json", "-p", open]).await?.ok()?;
        ns.ready("pod").await?;
        eventually("its sidecar is told why", async || {
            let log = ns.kubectl.run(&["logs", "pod", "-c", inject::CONTAINER]).await?.ok()?.text();
            ensure!(log.contains("are not injected"), "{log}");
            ensure!(!log.contains("enrolled"), "it enrolled: {log}");
            Ok(())
        })
        .await
    })
    .await
}

/// Who recorded a session, as its recorder keeps it.
async fn source(viewer: &Viewer, ns: &Namespace, needle: &str) -> Result<Value> {
    eventually("the session is recorded", async || {
        let sessions = viewer.sessions(&ns.name).await?;
        let command = |session: &&Value| {
            session.get("command").and_then(Value::as_str).unwrap_or_default().contains(needle)
        };
        let session = sessions.iter().find(command).with_context(|| format!("not among {sessions:?}"))?;
        session.get("source").cloned().context("it has no source")
    })
    .await
}

#[tokio::test]
async fn a_recording_says_how_binding_injection_was() -> Result<()> {
    let viewer = Viewer::open().await?;
    beside(&sleeper("target"), async |required, plain| {
        Namespace::with(&[(labels::INJECT, "optional")], async |optional| {
            optional.allow_all().await?;
            optional.start(&sleeper("witness")).await?;
            for (ns, mode) in [(required, "required"), (optional, "optional")] {
                let needle = format!("echo mode of {}", ns.name);
                let script = format!("kubectl -n {} exec target -- {needle}", plain.name);
                eventually("a session takes place", async || ns.shell("witness", &script).await?.ok())
                    .await?;
                let source = source(&viewer, ns, &needle).await?;
                ensure!(source.pointer("/pod/mode") == Some(&json!(mode)), "{source}");
            }
            Ok(())
        })
        .await
    })
    .await
}

/// Recorders show a token of the same audience, and are no sidecars.
#[tokio::test]
async fn replicas_of_recorders_enrol() -> Result<()> {
    let recorder = Kubectl::default().get(&["recorder", "podwitness"]).await?;
    let key = recorder.pointer("/status/replicas/0/key").and_then(Value::as_str);
    ensure!(key.is_some_and(|key| !key.is_empty()), "{}", recorder.get("status").unwrap_or(&Value::Null));
    Ok(())
}
