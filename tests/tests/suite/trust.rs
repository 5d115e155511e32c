//! Clients that trust the cluster's CA and know nothing of a pod's own are recorded where the Namespace asks for
//! certificates of that CA, however they got it.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use podwitness_core::{inject, labels};
use podwitness_e2e::{
    Kubectl, Namespace, TOOLBOX, Viewer, cluster, eventually,
    pods::{running, sleeper},
};
use serde_json::{Value, json};

/// Where certificate requests are.
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// A request for the subject of a sidecar; its key is gone.
const REQUEST: &str = "\
-----BEGIN CERTIFICATE REQUEST-----\n\
MIIBJzCBzgIBADA8MRUwEwYDVQQKDAxzeXN0ZW06bm9kZXMxIzAhBgNVBAMMGnN5\n\
c3RlbTpub2RlOnBvZHdpdG5lc3MtZTJlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD\n\
QgAEmR58eAGiJgZQxLOnyZ6V7MZgiLyr39FrKQTOXawbwKPISNuxkipcDb9F30F1\n\
u04awjma/7hO4AlDqSPaFBSGiKAwMC4GCSqGSIb3DQEJDjEhMB8wHQYDVR0RBBYw\n\
FIIScG9kd2l0bmVzcy5leGFtcGxlMAoGCCqGSM49BAMCA0gAMEUCIQD6TqV5gbBf\n\
J5F/MhaSrS2iquv4mxtj7J7prvNY0NmMMAIgQXU5JLKsltDTADp3yuGiqlUOHeEH\n\
eEBrLvZZSmSJE28=\n\
-----END CERTIFICATE REQUEST-----\n\
";
/// The token of a pod that has one.
const TOKEN: &str = "--token=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token)";
/// The API server by a name that its certificate bears.
const SERVER: &str = "--server=https://kubernetes.default.svc";

/// Runs `test` with a namespace whose pods have a certificate of the cluster's CA and may do everything, and a plain one
/// with a pod `target`.
async fn certified(test: impl AsyncFnOnce(&Namespace, &Namespace) -> Result<()>) -> Result<()> {
    Namespace::plain(async |plain| {
        plain.start(&sleeper("target")).await?;
        Namespace::witnessed(async |ns| {
            let trust = format!("{}=cluster", labels::TRUST);
            ns.kubectl.run(&["annotate", "namespace", &ns.name, &trust]).await?.ok()?;
            ns.allow_all().await?;
            test(ns, plain).await
        })
        .await
    })
    .await
}

/// The cluster's CA in PEM.
async fn cluster_ca(ns: &Namespace) -> Result<String> {
    let path = format!("/api/v1/namespaces/{}/configmaps/kube-root-ca.crt", ns.name);
    let found = cluster::get(&path).await?;
    let pem =
        found.pointer("/data/ca.crt").and_then(Value::as_str).context("kube-root-ca.crt has no ca.crt")?;
    Ok(pem.to_owned())
}

/// Makes a Secret with a kubeconfig that embeds the cluster's CA and a token, as an administrator hands it out.
async fn hand_out_kubeconfig(ns: &Namespace) -> Result<()> {
    let token = ns.kubectl.run(&["create", "token", "default"]).await?.ok()?.text();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {
            "server": "https://kubernetes.default.svc",
            "certificate-authority-data": STANDARD.encode(cluster_ca(ns).await?),
        }}],
        "users": [{"name": "u", "user": {"token": token.trim()}}],
    });
    create(
        ns,
        "secrets",
        &json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kubeconfig"},
            "stringData": {"config": config.to_string()},
        }),
    )
    .await
}

/// Makes a token Secret as clusters before 1.24 did, and waits until the cluster has filled it.
async fn legacy_token(ns: &Namespace) -> Result<()> {
    create(
        ns,
        "secrets",
        &json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "legacy", "annotations": {"kubernetes.io/service-account.name": "default"}},
        }),
    )
    .await?;
    let path = format!("/api/v1/namespaces/{}/secrets/legacy", ns.name);
    eventually("the token Secret is filled", async || {
        let secret = cluster::get(&path).await?;
        ensure!(secret.pointer("/data/token").is_some() && secret.pointer("/data/ca.crt").is_some());
        Ok(())
    })
    .await
}

async fn create(ns: &Namespace, kind: &str, object: &Value) -> Result<()> {
    cluster::create(&format!("/api/v1/namespaces/{}/{kind}", ns.name), object).await.map(drop)
}

/// Runs `kubectl exec` with these options in a pod, and finds its recording.
async fn is_recorded(ns: &Namespace, plain: &Namespace, pod: &str, way: &str, options: &str) -> Result<()> {
    eventually(&format!("a client with {way} gets through"), async || {
        let run = ns.shell(pod, &format!("kubectl {options} get --raw /version")).await?;
        ensure!(run.code == 0, "{run:?}");
        Ok(())
    })
    .await?;
    let mark = format!("by {way}");
    let exec = format!("kubectl {options} -n {} exec target -- echo '{mark}'", plain.name);
    let run = ns.shell(pod, &exec).await?.ok()?;
    ensure!(run.text().trim() == mark, "{run:?}");
    let recording = Viewer::open().await?.recording(&ns.name, &mark).await?;
    ensure!(recording.is_whole(), "{way}: {:?}", recording.lines);
    Ok(())
}

/// A pod to which the cluster's CA comes in every way but the usual one.
fn with_every_way(name: &str) -> Result<Value> {
    let mut pod = sleeper(name);
    let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
    let volumes = json!([
        {"name": "root", "configMap": {"name": "kube-root-ca.crt"}},
        {"name": "copied", "configMap": {"name": "copied-ca"}},
        {"name": "legacy", "secret": {"secretName": "legacy"}},
        {"name": "kubeconfig", "secret": {"secretName": "kubeconfig"}},
    ]);
    spec.insert("volumes".into(), volumes);
    let app = spec.get_mut("containers").and_then(|all| all.get_mut(0)).and_then(Value::as_object_mut);
    let app = app.context("no container")?;
    let variable = json!([{"name": "CA_PEM", "valueFrom": {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "ca.crt"}}}]);
    app.insert("env".into(), variable);
    let mounts = json!([
        {"name": "root", "mountPath": "/etc/kube-ca.crt", "subPath": "ca.crt", "readOnly": true},
        {"name": "copied", "mountPath": "/etc/copied", "readOnly": true},
        {"name": "legacy", "mountPath": "/etc/legacy", "readOnly": true},
        {"name": "kubeconfig", "mountPath": "/etc/kubeconfig", "readOnly": true},
    ]);
    app.insert("volumeMounts".into(), mounts);
    Ok(pod)
}

#[tokio::test]
async fn clients_that_trust_only_the_clusters_ca_are_recorded_however_they_got_it() -> Result<()> {
    certified(async |ns, plain| {
        hand_out_kubeconfig(ns).await?;
        legacy_token(ns).await?;
        let copied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "copied-ca"},
            "data": {"ca.crt": cluster_ca(ns).await?}});
        create(ns, "configmaps", &copied).await?;
        ns.start(&with_every_way("witness")?).await?;
        ns.shell("witness", "printf %s \"$CA_PEM\" >/tmp/variable.crt").await?.ok()?;
        let by = |file: &str| format!("{SERVER} --certificate-authority={file} {TOKEN}");
        let legacy = "--certificate-authority=/etc/legacy/ca.crt --token=$(cat /etc/legacy/token)";
        for (way, options) in [
            ("a kubeconfig with an embedded CA", "--kubeconfig=/etc/kubeconfig/config".to_owned()),
            ("a legacy token Secret", format!("{SERVER} {legacy}")),
            ("a CA in a variable", by("/tmp/variable.crt")),
            ("a subPath", by("/etc/kube-ca.crt")),
            ("a copied ConfigMap", by("/etc/copied/ca.crt")),
        ] {
            is_recorded(ns, plain, "witness", way, &options).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_without_a_token_is_recorded_by_a_kubeconfig_of_its_own() -> Result<()> {
    certified(async |ns, plain| {
        hand_out_kubeconfig(ns).await?;
        ns.start(&tokenless("witness")?).await?;
        let options = "--kubeconfig=/etc/kubeconfig/config";
        is_recorded(ns, plain, "witness", "no token", options).await
    })
    .await
}

/// A pod without a token that mounts the kubeconfig.
fn tokenless(name: &str) -> Result<Value> {
    let mut pod = running(name, TOOLBOX, "trap exit TERM; sleep 1000000 & wait");
    let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
    spec.insert("automountServiceAccountToken".into(), false.into());
    spec.insert("volumes".into(), json!([{"name": "kubeconfig", "secret": {"secretName": "kubeconfig"}}]));
    let app = spec.get_mut("containers").and_then(|all| all.get_mut(0)).and_then(Value::as_object_mut);
    let mount = json!([{"name": "kubeconfig", "mountPath": "/etc/kubeconfig", "readOnly": true}]);
    app.context("no container")?.insert("volumeMounts".into(), mount);
    Ok(pod)
}

/// Without the option: the pod's own CA is in every container, and a kubeconfig is told of it.
#[tokio::test]
async fn a_kubeconfig_trusts_a_pod_by_two_lines() -> Result<()> {
    Namespace::plain(async |plain| {
        plain.start(&sleeper("target")).await?;
        Namespace::witnessed(async |ns| {
            ns.allow_all().await?;
            hand_out_kubeconfig(ns).await?;
            ns.start(&tokenless("witness")?).await?;
            let options = "--kubeconfig=/etc/kubeconfig/config";
            let run = ns.shell("witness", &format!("kubectl {options} get --raw /version")).await?;
            ensure!(run.code != 0 && run.stderr.contains("x509"), "{run:?}");
            let lines = "cp /etc/kubeconfig/config /tmp/config; export KUBECONFIG=/tmp/config
                cluster=$(kubectl config view --minify -o 'jsonpath={.contexts[0].context.cluster}')
                kubectl config set-cluster \"$cluster\" --certificate-authority=/var/run/podwitness/ca/ca.crt";
            ns.shell("witness", lines).await?.ok()?;
            is_recorded(ns, plain, "witness", "two lines", "--kubeconfig=/tmp/config").await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_sidecar_serves_its_certificate_and_the_request_for_it_does_not_stay() -> Result<()> {
    certified(async |ns, _| {
        let pod = ns.start(&sleeper("witness")).await?;
        let uid = pod.pointer("/metadata/uid").and_then(Value::as_str).context("no uid")?.to_owned();
        let port = inject::ADMIN_PORT;
        let metrics = format!("/api/v1/namespaces/{}/pods/witness:{port}/proxy/metrics", ns.name);
        eventually("the sidecar serves it", async || {
            let text = ns.kubectl.run(&["get", "--raw", &metrics]).await?.ok()?.text();
            ensure!(text.contains("podwitness_cluster_certificate 1"), "{text}");
            Ok(())
        })
        .await?;
        eventually("no request stays", async || {
            let all = cluster::get(REQUESTS).await?;
            let items = all.get("items").and_then(Value::as_array).context("no list of requests")?;
            let of_pod = |request: &&Value| {
                let name = request.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                name.contains(&uid)
            };
            let left: Vec<_> = items.iter().filter(of_pod).collect();
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_unknown_choice_of_certificates_is_refused_when_it_is_made() -> Result<()> {
    for (value, allowed) in [("cluster", true), ("pod", true), ("", false), ("everyone", false)] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "e2e-never", "annotations": {labels::TRUST: value}}});
        let run = Kubectl::default().create(&namespace, &["--dry-run=server"]).await?;
        ensure!((run.code == 0) == allowed, "{value:?}: {run:?}");
        ensure!(allowed || run.stderr.contains(labels::TRUST), "the reason is not clear: {run:?}");
    }
    Ok(())
}

#[tokio::test]
async fn requests_with_a_name_of_ours_are_made_by_the_control_plane_alone() -> Result<()> {
    for (name, allowed) in [("podwitness-e2e", false), ("e2e-podwitness", true)] {
        let request = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "request": STANDARD.encode(REQUEST), "signerName": "kubernetes.io/kubelet-serving",
                "usages": ["digital signature", "server auth"],
            },
        });
        let run = Kubectl::default().create(&request, &["--dry-run=server"]).await?;
        ensure!((run.code == 0) == allowed, "{name}: {run:?}");
        ensure!(allowed || run.stderr.contains("podwitness:"), "the reason is not clear: {run:?}");
    }
    Ok(())
}
