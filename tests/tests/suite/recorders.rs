//! The control plane makes what a `Recorder` says, keeps it so, and takes it away.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Kubectl, Run, SYSTEM, Viewer, eventually,
    grants::{grant, with_grant},
    pods::{beside, sleeper},
    recorders::condition,
};
use serde_json::{Value, json};

/// What is made of a recorder with one replica.
const KINDS: [&str; 4] = ["statefulset", "service", "serviceaccount", "networkpolicy"];

/// As somebody brings it who comes from `tailscale.com/v1alpha1`; only its apiVersion is another.
const REFERENCE: &str = "
apiVersion: podwitness.dev/v1alpha1
kind: Recorder
metadata: {name: NAME}
spec:
  enableUI: true
  tags: [tag:NAME]
  tailnet: corp
  statefulSet:
    labels: {team: audit}
    annotations: {note: from-elsewhere}
    pod:
      labels: {team: audit}
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 1
            podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {team: audit}}}
      securityContext: {runAsNonRoot: true}
      nodeSelector: {kubernetes.io/os: linux}
      tolerations: [{key: audit, operator: Exists}]
      serviceAccount: {annotations: {example.com/role: recorder}}
      container:
        image: ghcr.io/tailscale/tsrecorder:v1.80.0
        imagePullPolicy: IfNotPresent
        env: [{name: PODWITNESS_LOG, value: debug}, {name: PODWITNESS_ACK, value: object}]
        resources: {requests: {cpu: 20m, memory: 48Mi}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
";

fn system() -> Kubectl {
    Kubectl::with(&["-n", SYSTEM])
}

async fn create(manifest: &str) -> Result<Run> {
    Kubectl::default().run_with_stdin(&["create", "-f", "-"], manifest.as_bytes()).await
}

/// Runs `test` while there is a Recorder, of which nothing is left afterwards.
async fn with_recorder(name: &str, manifest: &str, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let run = async {
        create(manifest).await?.ok()?;
        test().await
    };
    let result = run.await;
    let deleted = system().run(&["delete", "recorder", name, "--ignore-not-found", "--wait=false"]).await;
    result?;
    deleted?.ok().map(drop)
}

fn name(of: &str) -> String {
    format!("e2e-{of}-{}", std::process::id())
}

async fn uid(kind: &str, name: &str) -> Result<String> {
    let object = system().get(&[kind, name]).await?;
    Ok(object.pointer("/metadata/uid").and_then(Value::as_str).context("no uid")?.to_owned())
}

#[tokio::test]
async fn a_manifest_of_the_reference_becomes_a_recorder_that_records() -> Result<()> {
    let name = name("reference");
    let manifest = REFERENCE.replace("NAME", &name);
    with_recorder(&name, &manifest, async || {
        condition(&name, "RecorderReady", "True").await?;
        condition(&name, "Ready", "True").await?;
        let effective = condition(&name, "Effective", "False").await?.to_string();
        for part in ["tailnet corp", "tsrecorder:v1.80.0", "env PODWITNESS_ACK"] {
            ensure!(effective.contains(part), "{part} is not named: {effective}");
        }
        let status = system().get(&["recorder", &name]).await?;
        let at = |pointer: &str| status.pointer(pointer).cloned().unwrap_or_default();
        ensure!(at("/status/serving") == "1/1" && at("/status/storage") == "emptyDir", "{status}");
        ensure!(
            at("/status/ack") == "process" && at("/status/replicas/0/pod") == format!("{name}-0"),
            "{status}"
        );
        ensure!(at("/status/devices/0/tailnetIPs/0") == at("/status/replicas/0/address"), "{status}");
        eventually("the replica says what it takes", async || {
            let status = system().get(&["recorder", &name]).await?;
            ensure!(status.pointer("/status/replicas/0/state") == Some(&json!("accepting")), "{status}");
            Ok(())
        })
        .await?;
        let table = system().run(&["get", "recorder", &name]).await?.ok()?.text();
        for column in ["TAGS", "READY", "REPLICAS", "STORAGE", "URL", "AGE", "1/1", "emptyDir"] {
            ensure!(table.contains(column), "{column} is not in {table}");
        }
        beside(&sleeper("target"), async |ns, plain| {
            let rule = json!({"recorder": [format!("tag:{name}")]});
            with_grant(&grant(&ns.name, &format!("namespace:{}", ns.name), &rule), async || {
                let viewer = Viewer::of(&name).await?;
                let script = format!("kubectl -n {} exec target -- echo for the new recorder", plain.name);
                eventually("it has a session", async || {
                    ns.shell("witness", &script).await?.ok()?;
                    ensure!(!viewer.sessions(&ns.name).await?.is_empty(), "there is none");
                    Ok(())
                })
                .await
            })
            .await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn what_somebody_changes_is_put_back_and_what_is_deleted_comes_again() -> Result<()> {
    let name = name("drift");
    let manifest = format!(
        "{{apiVersion: podwitness.dev/v1alpha1, kind: Recorder, metadata: {{name: {name}}}, \
         spec: {{enableUI: true, tags: [tag:{name}]}}}}"
    );
    with_recorder(&name, &manifest, async || {
        condition(&name, "RecorderReady", "True").await?;
        // Not the service account: the token of the running pod would end with it.
        for kind in ["service", "networkpolicy"] {
            let before = uid(kind, &name).await?;
            system().run(&["delete", kind, &name]).await?.ok()?;
            eventually(&format!("the {kind} is there again"), async || {
                ensure!(uid(kind, &name).await? != before, "it is the old one");
                Ok(())
            })
            .await?;
        }
        system().run(&["scale", "statefulset", &name, "--replicas=3"]).await?.ok()?;
        let ports = json!([{"op": "replace", "path": "/spec/ports/0/port", "value": 9}]).to_string();
        system().run(&["patch", "service", &name, "--type=json", "-p", &ports]).await?.ok()?;
        eventually("it is scaled back, and its Service is what it was", async || {
            let set = system().get(&["statefulset", &name]).await?;
            ensure!(set.pointer("/spec/replicas") == Some(&json!(1)), "{set}");
            let service = system().get(&["service", &name]).await?;
            let ports = service.pointer("/spec/ports").map(ToString::to_string).unwrap_or_default();
            ensure!(ports.contains("51820"), "{ports}");
            Ok(())
        })
        .await?;
        condition(&name, "Ready", "True").await?;
        system().run(&["delete", "recorder", &name, "--timeout=120s"]).await?.ok()?;
        let selector = format!("app.kubernetes.io/instance={name}");
        let all = [&KINDS[..], &["pods"]].concat().join(",");
        let left = system().run(&["get", &all, "-l", &selector, "-o", "name"]).await?.ok()?;
        ensure!(left.text().is_empty(), "left behind: {left:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_somebody_elses_is_left_alone() -> Result<()> {
    let name = name("conflict");
    let theirs = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    system().create(&theirs, &[]).await?.ok()?;
    let before = uid("serviceaccount", &name).await?;
    let manifest = format!(
        "{{apiVersion: podwitness.dev/v1alpha1, kind: Recorder, metadata: {{name: {name}}}, \
         spec: {{enableUI: true, tags: [tag:{name}]}}}}"
    );
    let tested = with_recorder(&name, &manifest, async || {
        let conflict = condition(&name, "Conflict", "True").await?.to_string();
        ensure!(conflict.contains(&format!("ServiceAccount {name}")), "{conflict}");
        condition(&name, "RecorderReady", "False").await?;
        ensure!(uid("serviceaccount", &name).await? == before, "it was replaced");
        let account = system().get(&["serviceaccount", &name]).await?;
        ensure!(account.pointer("/metadata/ownerReferences").is_none(), "it was taken: {account}");
        let sets = system().run(&["get", "statefulset", &name, "--ignore-not-found", "-o", "name"]).await?;
        ensure!(sets.ok()?.text().is_empty(), "pods run under an account of somebody else");
        system().run(&["delete", "serviceaccount", &name]).await?.ok()?;
        condition(&name, "RecorderReady", "True").await.map(drop)
    })
    .await;
    system().run(&["delete", "serviceaccount", &name, "--ignore-not-found"]).await?;
    tested
}

#[tokio::test]
async fn the_api_server_refuses_what_could_not_work_and_says_what_to_do() -> Result<()> {
    for (spec, said) in [
        (json!({"enableUI": true, "replicas": 2}), "set storage.s3, or replicas: 1"),
        (json!({"replicas": -1}), "greater than or equal to 0"),
        (json!({"enableUI": true, "tags": []}), "can be named by no grant"),
        (json!({"enableUI": true, "tags": ["podwitness"]}), "tag:NAME"),
        (
            json!({"storage": {"s3": {"endpoint": "e", "bucket": "recordings", "ack": "volume"}}}),
            "set filesystem.volumeClaimTemplate",
        ),
        (
            json!({"storage": {"s3": {"endpoint": "e", "bucket": "recordings", "kmsKey": "k"}}}),
            "sse: aws:kms",
        ),
        (
            json!({"storage": {"s3": {"endpoint": "e", "bucket": "recordings",
                "credentials": {"secret": {"name": "podwitness-issuer"}}}}}),
            "name one of your own",
        ),
        (
            json!({"enableUI": true, "storage": {"filesystem": {"emptyDir": {}, "volumeClaimTemplate": {"spec": {}}}}}),
            "set one of",
        ),
        (
            json!({"enableUI": true, "statefulSet": {"pod": {"container": {"imagePullPolicy": "Sometimes"}}}}),
            "IfNotPresent",
        ),
        (
            json!({"enableUI": true, "statefulSet": {"pod": {"serviceAccount": {"name": "Not A Name"}}}}),
            "serviceAccount.name",
        ),
    ] {
        let object = json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder",
            "metadata": {"name": "e2e-never"}, "spec": spec});
        let run = Kubectl::default().create(&object, &["--dry-run=server"]).await?;
        ensure!(run.code != 0 && run.stderr.contains(said), "{spec}: {run:?}");
    }
    let elsewhere = json!({"publicKey": "A".repeat(43) + "=", "endpoint": "vault.example.net:51820"});
    for (field, value) in [
        ("storage", json!({"s3": {"endpoint": "e", "bucket": "recordings"}})),
        ("statefulSet", json!({"labels": {"team": "audit"}})),
        ("image", json!("registry.example.net/recorder:1")),
        ("replicas", json!(0)),
        ("enableUI", json!(true)),
    ] {
        let object = json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder",
            "metadata": {"name": "e2e-never"}, "spec": {"external": elsewhere, field: value}});
        let run = Kubectl::default().create(&object, &["--dry-run=server"]).await?;
        ensure!(
            run.code != 0 && run.stderr.contains("external names a recorder that runs elsewhere"),
            "{field}: {run:?}"
        );
    }
    let alone = json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder",
        "metadata": {"name": "e2e-never"}, "spec": {"external": elsewhere, "tags": ["tag:e2e"], "replicas": 1}});
    Kubectl::default().create(&alone, &["--dry-run=server"]).await?.ok()?;
    let long = json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder",
        "metadata": {"name": "a".repeat(53)}, "spec": {"enableUI": true}});
    let run = Kubectl::default().create(&long, &["--dry-run=server"]).await?;
    ensure!(run.code != 0 && run.stderr.contains("at most 52"), "{run:?}");
    Ok(())
}

#[tokio::test]
async fn nobody_makes_replicas_by_hand() -> Result<()> {
    let mut pod = sleeper("e2e-never");
    let labels = pod.pointer_mut("/metadata/labels").and_then(Value::as_object_mut).context("no labels")?;
    labels.insert("podwitness.dev/recorder".into(), "podwitness".into());
    let run = system().create(&pod, &["--dry-run=server"]).await?;
    ensure!(run.code != 0 && run.stderr.contains("create a Recorder"), "{run:?}");
    system().create(&sleeper("e2e-never"), &["--dry-run=server"]).await?.ok().map(drop)
}
