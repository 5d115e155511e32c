//! A proxy in a labelled namespace records those who come through it from elsewhere, under the name it gives them.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{Namespace, Recording, Viewer, eventually, pods::sleeper};
use serde_json::{Value, json};

/// kubectl finds the cluster it runs in by itself only where it is asked for nothing else.
const IN_CLUSTER: &str =
    "export KUBECONFIG=/tmp/kubeconfig; cd /var/run/secrets/kubernetes.io/serviceaccount;
    kubectl config set-cluster c --server=https://kubernetes.default.svc --certificate-authority=$PWD/ca.crt;
    kubectl config set-credentials u --token=$(cat token); kubectl config set-context x --cluster=c --user=u;
    kubectl config use-context x";

/// Runs a command in a pod `target` through `kubectl ARGS proxy` in a witnessed pod, from a pod that is none; gives its
/// recording.
async fn through(ns: &Namespace, plain: &Namespace, args: &str) -> Result<Recording> {
    let mut proxy = sleeper("proxy");
    if let Some(command) = proxy.pointer_mut("/spec/containers/0/command") {
        let proxy = "proxy --address=0.0.0.0 --accept-hosts=.* --reject-paths=^$";
        let serve = format!("{IN_CLUSTER}; exec kubectl {args} {proxy}");
        *command = json!(["sh", "-c", serve]);
    }
    ns.allow_all().await?;
    let proxy = ns.start(&proxy).await?;
    let address =
        proxy.pointer("/status/podIP").and_then(Value::as_str).context("the proxy has no address")?;
    plain.start(&sleeper("outside")).await?;
    plain.start(&sleeper("target")).await?;
    let kubectl = format!("kubectl -s http://{address}:8001 -n {}", plain.name);
    eventually("the proxy listens", async || {
        plain.shell("outside", &format!("{kubectl} get pod target -o name")).await?.ok()
    })
    .await?;
    let run =
        plain.shell("outside", &format!("{kubectl} exec target -- sh -c 'echo through; exit 3'")).await?;
    ensure!(run.text() == "through\n" && run.code == 3, "{run:?}");
    let recording = Viewer::open().await?.recording(&ns.name, "echo through").await?;
    ensure!(recording.text("o") == "through\n" && recording.text("x-exit") == "3", "{:?}", recording.lines);
    Ok(recording)
}

async fn with_namespaces(test: impl AsyncFnOnce(&Namespace, &Namespace) -> Result<()>) -> Result<()> {
    Namespace::plain(async |plain| Namespace::witnessed(async |ns| test(ns, plain).await).await).await
}

#[tokio::test]
async fn a_session_through_kubectl_proxy_is_recorded() -> Result<()> {
    with_namespaces(async |ns, plain| {
        let header = through(ns, plain, "").await?.header;
        let user = format!("system:serviceaccount:{}:default", ns.name);
        ensure!(header.get("srcNodeUser") == Some(&Value::from(user)), "{header}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_session_through_a_proxy_that_impersonates_is_that_users() -> Result<()> {
    with_namespaces(async |ns, plain| {
        let header = through(ns, plain, "--as=ana@example.org --as-group=system:masters").await?.header;
        ensure!(header.get("srcNodeUser") == Some(&Value::from("ana@example.org")), "{header}");
        let by = format!("system:serviceaccount:{}:default", ns.name);
        ensure!(
            header.pointer("/podwitness/authenticatedUser") == Some(&Value::from(by.as_str())),
            "{header}"
        );
        let path = format!("/api/v1/sessions?namespace={}&authenticatedUser={by}", ns.name);
        let list: Value = serde_json::from_slice(&Viewer::open().await?.get(&path).await?)?;
        ensure!(list.pointer("/sessions/0/authenticatedUser") == Some(&Value::from(by)), "{list}");
        ensure!(header.pointer("/podwitness/verified") == Some(&Value::Bool(true)), "{header}");
        let groups = header.pointer("/podwitness/groups").map(Value::to_string).unwrap_or_default();
        ensure!(groups.contains("system:masters"), "{header}");
        Ok(())
    })
    .await
}
