//! Pods of service meshes whose init container writes the rules, and a stand-in for the mesh's proxy: traffic to the API
//! server is recorded and all other traffic is the mesh's, whichever of the two tables is written first.

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use podwitness_core::{inject::ADMIN_PORT, labels};
use podwitness_e2e::{
    CLIENTS, Kubectl, Namespace, TOOLBOX, Viewer, eventually,
    pods::running,
    schedule::{Class, enter},
};
use podwitness_lab::meshes::{MESHES, Mesh};
use serde_json::{Value, json};

/// Stands in for the mesh's proxy.
const PROXY: &str = include_str!("meshes/proxy.py");
/// Port of the pod's own server, which the kubelet asks.
const APP_PORT: u16 = 8000;
/// Port of a server elsewhere.
const SERVER_PORT: u16 = 8080;
/// Writes the rules of a mesh as its init container does, and ends once the sidecar's are there.
const INIT: &str = "set -e
    if [ \"$ORDER\" = before ]; then nft delete table inet podwitness; fi
    printf '%s' \"$RULES\" | iptables-nft-restore
    printf '%s' \"$RULES_V6\" | ip6tables-nft-restore
    until nft list table inet podwitness >/dev/null; do sleep 1; done";

/// When the mesh's table is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    /// Before the sidecar's: its first one is deleted, and it repairs what is missing.
    Before,
    /// After the sidecar's, as in every pod with an init container.
    After,
}

impl Order {
    const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

/// A pod as the mesh's injector leaves it, with a server of its own that is ready once the mesh's proxy forwards to it.
fn meshed(mesh: &Mesh, order: Order) -> Result<Value> {
    let mut pod =
        running(order.name(), CLIENTS, &format!("exec python3 -m http.server {APP_PORT} --directory /tmp"));
    let (uid, ports) = (mesh.uid, [mesh.outbound.to_string(), mesh.inbound.to_string()]);
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let init = json!({
        "name": "mesh-init", "image": CLIENTS, "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", INIT],
        "env": [
            variable("ORDER", order.name()),
            variable("RULES", mesh.rules),
            variable("RULES_V6", &mesh.rules_v6()),
        ],
        "securityContext": {
            "allowPrivilegeEscalation": false, "runAsUser": 0,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
        },
    });
    let proxy = json!({
        "name": "proxy", "image": CLIENTS, "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", PROXY, ports[0], ports[1]],
        "securityContext": {"runAsUser": uid, "runAsGroup": uid},
    });
    let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
    spec.insert("initContainers".into(), json!([init]));
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut).context("no containers")?;
    let app = containers.first_mut().and_then(Value::as_object_mut).context("no container")?;
    let probe = json!({"httpGet": {"path": "/", "port": APP_PORT}, "periodSeconds": 1});
    app.insert("readinessProbe".into(), probe);
    containers.push(proxy);
    Ok(pod)
}

/// Accepts the init containers of [`meshed`] in a namespace, by the annotation that docs/meshes.md gives.
async fn accept_init_containers(ns: &Namespace) -> Result<()> {
    let image = CLIENTS.rsplit_once(':').map_or(CLIENTS, |(name, _)| name);
    let annotation = format!("{}=init:NET_ADMIN:{image}, init:NET_RAW:{image}", labels::ALLOW);
    Kubectl::default().run(&["annotate", "namespace", &ns.name, &annotation]).await?.ok()?;
    let pod = meshed(&MESHES[0], Order::After)?;
    eventually("admission knows the annotation", async || {
        ns.kubectl.create(&pod, &["--dry-run=server"]).await?.ok()
    })
    .await?;
    Ok(())
}

fn address(pod: &Value) -> Result<&str> {
    pod.pointer("/status/podIP").and_then(Value::as_str).context("the pod has no address")
}

/// A session of the pod is recorded.
async fn is_recorded(ns: &Namespace, plain: &Namespace, pod: &str) -> Result<()> {
    let mark = format!("said-{pod}");
    let exec = format!("kubectl -n {} exec server -- echo {mark}", plain.name);
    let run = ns.shell(pod, &exec).await?.ok()?;
    ensure!(run.text().trim() == mark, "{run:?}");
    let recording = Viewer::open().await?.recording(&ns.name, &mark).await?;
    ensure!(recording.is_whole(), "{pod}: {:?}", recording.lines);
    Ok(())
}

/// What the mesh's proxy got is what goes to servers elsewhere and to the pod's own, and nothing else: neither traffic to
/// the API server, nor that of the sidecar, nor what asks the sidecar.
async fn the_rest_is_the_meshs(ns: &Namespace, pod: &Value, name: &str, server: &str) -> Result<()> {
    let ask = format!("curl -sS --max-time 30 http://{server}:{SERVER_PORT}/");
    let answer = ns.shell(name, &ask).await?.ok()?.text();
    ensure!(answer == "served\n", "{name}: {answer}");
    let expected =
        [format!("inbound {}:{APP_PORT}", address(pod)?), format!("outbound {server}:{SERVER_PORT}")];
    let log = ns.kubectl.run(&["logs", name, "-c", "proxy"]).await?.ok()?.text();
    // Python reports on other lines what a client ended early.
    let got: Vec<&str> =
        log.lines().filter(|line| line.starts_with("inbound ") || line.starts_with("outbound ")).collect();
    for line in &expected {
        ensure!(got.contains(&line.as_str()), "{name}: no {line} in {got:?}");
    }
    let other: Vec<_> = got.iter().filter(|line| expected.iter().all(|known| known != **line)).collect();
    ensure!(other.is_empty(), "{name}: the mesh got {other:?}");
    Ok(())
}

/// The sidecar's rules work, and were repaired where the init container had deleted them.
async fn rules_are_proven(ns: &Namespace, name: &str, order: Order) -> Result<()> {
    let path = format!("/api/v1/namespaces/{}/pods/{name}:{ADMIN_PORT}/proxy/metrics", ns.name);
    eventually("interception is proven", async || {
        let text = ns.kubectl.run(&["get", "--raw", &path]).await?.ok()?.text();
        let value = |metric: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find_map(|(name, value)| (name == metric).then(|| value.parse::<u64>().ok()).flatten())
        };
        ensure!(value("podwitness_interception") == Some(1), "{name}: {text}");
        let repaired = value("podwitness_rules_repaired_total").context("no count of repairs")?;
        ensure!(order == Order::After || repaired > 0, "{name}: no repair is counted: {text}");
        Ok(())
    })
    .await
}

async fn is_recorded_in_either_order(mesh: &Mesh) -> Result<()> {
    enter(Class::Heavy).await;
    Namespace::plain(async |plain| {
        let serve = format!(
            "mkdir /tmp/www; echo served >/tmp/www/index.html; exec httpd -f -p {SERVER_PORT} -h /tmp/www"
        );
        let server = plain.start(&running("server", TOOLBOX, &serve)).await?;
        let server = address(&server)?;
        Namespace::witnessed(async |ns| {
            ns.allow_all().await?;
            accept_init_containers(ns).await?;
            try_join_all([Order::Before, Order::After].map(async |order| {
                let name = order.name();
                let pod = ns.start(&meshed(mesh, order)?).await?;
                is_recorded(ns, plain, name).await?;
                the_rest_is_the_meshs(ns, &pod, name, server).await?;
                rules_are_proven(ns, name, order).await
            }))
            .await?;
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn pods_with_the_rules_of_istio_are_recorded_in_either_order() -> Result<()> {
    is_recorded_in_either_order(mesh("istio")?).await
}

#[tokio::test]
async fn pods_with_the_rules_of_linkerd_are_recorded_in_either_order() -> Result<()> {
    is_recorded_in_either_order(mesh("linkerd")?).await
}

#[tokio::test]
async fn pods_with_the_rules_of_kuma_are_recorded_in_either_order() -> Result<()> {
    is_recorded_in_either_order(mesh("kuma")?).await
}

fn mesh(name: &str) -> Result<&'static Mesh> {
    MESHES.iter().find(|mesh| mesh.name == name).with_context(|| format!("no rules of {name}"))
}
