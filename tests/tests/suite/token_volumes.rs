//! Volumes with a token are what the kubelet would make of them: their permissions, groups, sizes, and renewals.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Namespace, TOOLBOX, eventually,
    pods::{running, sleeper},
    schedule::{Class, enter},
};
use serde_json::{Value, json};

/// Permissions, group and name of every file, and of a directory among them.
const LIST: &str =
    "cd /tokens && stat -Lc '%a %g %n' token ca.crt namespace bin bin/run large-a large-b; /tokens/bin/run";

/// A pod with a volume that has a token and much else.
fn pod(name: &str, context: Value) -> Result<Value> {
    let large = |key: &str| json!({"configMap": {"name": key, "items": [{"key": "large", "path": key}]}});
    let script = json!([{"key": "run", "path": "bin/run", "mode": 0o555}]);
    let namespace = json!([{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]);
    let volume = json!({"name": "tokens", "projected": {"defaultMode": 0o400, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 600, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": namespace}},
        {"configMap": {"name": "script", "items": script}},
        large("large-a"),
        large("large-b"),
    ]}});
    let mut pod = sleeper(name);
    let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
    spec.insert("volumes".into(), json!([volume, {"name": "within", "emptyDir": {}}]));
    spec.insert("securityContext".into(), context);
    let mounts = json!([
        {"name": "tokens", "mountPath": "/tokens", "readOnly": true},
        {"name": "within", "mountPath": "/tokens/within"},
    ]);
    let app = pod.pointer_mut("/spec/containers/0").and_then(Value::as_object_mut);
    app.context("no container")?.insert("volumeMounts".into(), mounts);
    Ok(pod)
}

/// The ConfigMaps of that volume; `script` prints a word.
async fn with_config_maps(ns: &Namespace, word: &str) -> Result<()> {
    let large = "x".repeat(1_000_000);
    let script = format!("#!/bin/sh\necho {word}\n");
    for (name, data) in [
        ("script", json!({"run": script})),
        ("large-a", json!({"large": large})),
        ("large-b", json!({"large": large})),
    ] {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        ns.kubectl.create(&object, &[]).await?.ok()?;
    }
    Ok(())
}

#[tokio::test]
async fn files_beside_a_token_are_as_without_a_sidecar() -> Result<()> {
    enter(Class::Long).await;
    Namespace::plain(async |plain| {
        Namespace::witnessed(async |witnessed| {
            for ns in [plain, witnessed] {
                with_config_maps(ns, "ran").await?;
            }
            for (name, context) in [("group", json!({"fsGroup": 2000})), ("root", json!({}))] {
                let pod = pod(name, context)?;
                tokio::try_join!(plain.start(&pod), witnessed.start(&pod))?;
                let expected = plain.shell(name, LIST).await?.ok()?.text();
                let found = witnessed.shell(name, LIST).await?.ok()?.text();
                ensure!(found == expected, "{name}: with the sidecar\n{found}without\n{expected}");
            }
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn what_changes_in_a_large_token_volume_arrives() -> Result<()> {
    enter(Class::Long).await;
    Namespace::witnessed(async |ns| {
        with_config_maps(ns, "before").await?;
        ns.start(&pod("pod", json!({}))?).await?;
        let said = ns.shell("pod", "/tokens/bin/run").await?.ok()?.text();
        ensure!(said == "before\n", "{said}");
        let patch = json!({"data": {"run": "#!/bin/sh\necho after\n"}}).to_string();
        ns.kubectl.run(&["patch", "configmap", "script", "-p", &patch]).await?.ok()?;
        let mut attempt = 0;
        eventually("the change arrives", async || {
            // The kubelet looks at a pod's volumes when the pod changes, else once in a minute.
            attempt += 1;
            let annotation = format!("attempt={attempt}");
            ns.kubectl.run(&["annotate", "pod", "pod", "--overwrite", &annotation]).await?.ok()?;
            let said = ns.shell("pod", "/tokens/bin/run").await?.ok()?.text();
            ensure!(said == "after\n", "{said}");
            Ok(())
        })
        .await?;
        // The token in it is taken, through the sidecar and with the certificates that lie beside it.
        let ask = "kubectl --server=https://kubernetes.default.svc --certificate-authority=/tokens/ca.crt \
                   --token=\"$(cat /tokens/token)\" get --raw /version && touch /tokens/within/written";
        let version = ns.shell("pod", ask).await?.ok()?.text();
        ensure!(version.contains("gitVersion"), "{version}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_user_of_the_image_reads_its_token() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let read = "until cat /var/run/secrets/kubernetes.io/serviceaccount/token >/tmp/t; do sleep 1; done; \
                    trap exit TERM; sleep 1000000 & wait";
        for (name, context) in [
            ("user", json!({"runAsUser": 1000, "runAsGroup": 1000})),
            ("group", json!({"runAsUser": 1000, "fsGroup": 2000})),
        ] {
            let mut pod = running(name, TOOLBOX, read);
            let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
            spec.insert("securityContext".into(), context);
            ns.start(&pod).await?;
            let run = ns
                .shell(name, "test -s /tmp/t || cat /var/run/secrets/kubernetes.io/serviceaccount/token")
                .await?;
            run.ok()?;
        }
        Ok(())
    })
    .await
}
