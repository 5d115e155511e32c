//! What another container of a witnessed pod can and cannot do.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{Kubectl, Namespace, SYSTEM, pods::sleeper};
use serde_json::{Value, json};

/// Tunnel address of the recorder, from the status of its object.
async fn recorder_address() -> Result<String> {
    let recorder = Kubectl::default().get(&["recorder", "podwitness"]).await?;
    let address = recorder.pointer("/status/replicas/0/address").and_then(Value::as_str);
    Ok(address.context("the recorder has no replica")?.to_owned())
}

#[tokio::test]
async fn no_other_container_speaks_into_the_tunnel() -> Result<()> {
    let address = recorder_address().await?;
    Namespace::witnessed(async |ns| {
        for (name, user) in [("root", 0), ("nobody", 65534)] {
            let mut pod = sleeper(name);
            let context = json!({"runAsUser": user});
            let app = pod
                .pointer_mut("/spec/containers/0")
                .and_then(Value::as_object_mut)
                .context("no container")?;
            app.insert("securityContext".into(), context);
            ns.start(&pod).await?;
            let run =
                ns.shell(name, &format!("nc -w 3 '{address}' 80 </dev/null; echo $?; ip -6 addr")).await?;
            ensure!(run.text().contains("podwitness0"), "there is no tunnel: {run:?}");
            ensure!(!run.text().starts_with('0'), "{name} reaches the recorder: {run:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_sidecars_files_and_processes_are_out_of_reach() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.start(&sleeper("pod")).await?;
        let run = ns.shell("pod", "cat /proc/*/cmdline | tr '\\0' ' '").await?;
        ensure!(!run.text().contains("podwitness-sidecar"), "{run:?}");
        let run = ns.shell("pod", "ls /var/spool/podwitness").await?;
        ensure!(run.stderr.contains("No such file"), "{run:?}");
        // Every container may read the certificates, and none may change them.
        let run = ns.shell("pod", "cd /var/run/podwitness; ls . ca; touch ca/other").await?;
        ensure!(run.text() == ".:\nca\n\nca:\nca.crt\n", "{run:?}");
        ensure!(run.stderr.contains("Read-only file system"), "{run:?}");
        let script = "nft flush ruleset 2>&1; ip link set podwitness0 down 2>&1; echo $?";
        let run = ns.shell("pod", script).await?;
        ensure!(!run.text().trim().ends_with('0'), "the interface was changed: {run:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_recorder_answers_nobody_on_its_pod_address() -> Result<()> {
    let pods =
        Kubectl::with(&["-n", SYSTEM]).get(&["pods", "-l", "podwitness.dev/recorder=podwitness"]).await?;
    let address =
        pods.pointer("/items/0/status/podIP").and_then(Value::as_str).context("no recorder pod")?.to_owned();
    Namespace::plain(async |ns| {
        ns.start(&sleeper("stranger")).await?;
        for port in [80, 443, 8081] {
            let run =
                ns.shell("stranger", &format!("nc -w 3 '{address}' {port} </dev/null; echo $?")).await?;
            ensure!(run.text().trim() != "0", "port {port} answers: {run:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_api_server_is_reached_only_through_the_sidecar() -> Result<()> {
    let slice = Kubectl::default().get(&["endpointslices", "-n", "default", "kubernetes"]).await?;
    let endpoint =
        slice.pointer("/endpoints/0/addresses/0").and_then(Value::as_str).context("no endpoint")?.to_owned();
    let port = slice.pointer("/ports/0/port").context("no port")?.to_string();
    Namespace::witnessed(async |ns| {
        ns.start(&sleeper("pod")).await?;
        // The sidecar answers with a certificate under the in-pod CA wherever the API server is dialled.
        for server in ["https://kubernetes.default.svc".to_owned(), format!("https://{endpoint}:{port}")] {
            let script = format!(
                "head -n 30 /var/run/secrets/kubernetes.io/serviceaccount/ca.crt | sed '/END/q' >/tmp/pod.crt;
                 kubectl --server={server} --certificate-authority=/tmp/pod.crt \
                 --token=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token) version -o yaml"
            );
            let run = ns.shell("pod", &script).await?;
            ensure!(run.code == 0 && run.text().contains("serverVersion"), "{server}: {run:?}");
        }
        Ok(())
    })
    .await
}
