//! What goes to a pod other than as a command: its ports, and commands through the kubelet of its node.

use anyhow::{Result, ensure};
use podwitness_e2e::{
    Namespace, Recording, TOOLBOX, Viewer,
    pods::{beside, running},
};
use serde_json::Value;

/// Runs `test` with a witnessed namespace that has a pod `witness`, and a plain one that has a pod `server`, which
/// serves its files on port 8080.
async fn with_pods(test: impl AsyncFnOnce(&Namespace, &Namespace) -> Result<()>) -> Result<()> {
    let serve = "head -c 200000 /dev/zero >/tmp/big; httpd -f -p 8080 -h /";
    beside(&running("server", TOOLBOX, serve), test).await
}

/// The connections of a recording that are over.
fn flows(recording: &Recording) -> Result<Vec<Value>> {
    let lines = recording.lines.iter().filter(|(_, code, _)| code == "x-flow");
    let flows: Vec<Value> =
        lines.map(|(_, _, text)| Ok(serde_json::from_str(text)?)).collect::<Result<_>>()?;
    Ok(flows.into_iter().filter(|flow| flow.get("sent").is_some()).collect())
}

async fn forwarded(ns: &Namespace, plain: &Namespace, websockets: bool, subprotocol: &str) -> Result<()> {
    let script = format!(
        "KUBECTL_PORT_FORWARD_WEBSOCKETS={websockets} kubectl -n {} port-forward pod/server 18080:8080 >/dev/null & p=$!;
         for i in $(seq 100); do wget -qO /tmp/got http://127.0.0.1:18080/tmp/big && break; sleep 0.1; done;
         wc -c </tmp/got; kill $p; wait $p",
        plain.name
    );
    let run = ns.shell("witness", &script).await?;
    ensure!(run.text() == "200000\n", "{run:?}");
    let is_this = |entry: &Value| entry.get("type") == Some(&Value::from("portforward"));
    let recording = Viewer::open().await?.recording_where(&ns.name, is_this).await?;
    let header = &recording.header;
    ensure!(header.pointer("/kubernetes/PodName") == Some(&Value::from("server")), "{header}");
    ensure!(header.pointer("/podwitness/subprotocol") == Some(&Value::from(subprotocol)), "{header}");
    let flows = flows(&recording)?;
    let [flow] = flows.as_slice() else { anyhow::bail!("{:?}", recording.lines) };
    ensure!(flow.get("port") == Some(&Value::from(8080)), "{flow}");
    let moved = |key| flow.get(key).and_then(Value::as_u64).unwrap_or_default();
    ensure!(moved("received") > 200_000 && moved("sent") > 20, "{flow}");
    ensure!(recording.text("o").is_empty(), "what was said is recorded");
    Ok(())
}

#[tokio::test]
async fn a_port_forward_in_a_websocket_is_recorded_by_its_connections() -> Result<()> {
    with_pods(async |ns, plain| forwarded(ns, plain, true, "SPDY/3.1+portforward.k8s.io").await).await
}

#[tokio::test]
async fn a_port_forward_over_spdy_is_recorded_by_its_connections() -> Result<()> {
    with_pods(async |ns, plain| forwarded(ns, plain, false, "portforward.k8s.io").await).await
}

#[tokio::test]
async fn a_command_run_by_the_kubelet_is_recorded_with_its_output() -> Result<()> {
    with_pods(async |ns, plain| {
        let run = format!(
            "kubectl create --raw /api/v1/nodes/$(kubectl -n {0} get pod server -o jsonpath='{{.spec.nodeName}}')/proxy/run/{0}/server/app?cmd=cat+/etc/hostname -f /dev/null",
            plain.name
        );
        let run = ns.shell("witness", &run).await?.ok()?;
        ensure!(run.text().starts_with("server"), "{run:?}");
        let recording = Viewer::open().await?.recording(&ns.name, "cat /etc/hostname").await?;
        let header = &recording.header;
        ensure!(header.pointer("/kubernetes/SessionType") == Some(&Value::from("run")), "{header}");
        ensure!(header.pointer("/kubernetes/PodName") == Some(&Value::from("server")), "{header}");
        ensure!(header.pointer("/kubernetes/Namespace") == Some(&Value::from(&*plain.name)), "{header}");
        ensure!(recording.text("o") == run.text(), "{:?}", recording.lines);
        ensure!(recording.text("x-exit") == "0", "{:?}", recording.lines);
        Ok(())
    })
    .await
}
