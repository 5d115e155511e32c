//! Connections take no program down: six hundred of them to each port, held and opened again, leave the program ready, not
//! restarted, and serving other clients. That is checked from outside.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use podwitness_core::inject::{ADMIN_PORT, HEALTH_PORT, PROBE_PORT};
use podwitness_e2e::{
    Kubectl, Namespace, SYSTEM, Viewer, eventually,
    pods::{clients, overseer, sleeper},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How long pods are looked at: longer than any probe takes to give a container up.
const LOOK: Duration = Duration::from_secs(60);

/// Holds 600 connections to each ADDRESS:PORT until there is a file `/tmp/stop`, and opens again what is ended, 500 a second
/// at most: it is the places that are to be used up, not the machine. A third of them say nothing, a third send a part of a
/// request, a third a head whose body does not come, or no more than a TLS handshake where the port speaks it. Once all
/// are open, there is a file `/tmp/holding`.
const HOLD: &str = r#"
import os, resource, select, socket, ssl, sys, time
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536) if most > 0 else 65536,) * 2)
until = time.monotonic() + 600
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
opened = 0

def connect(number, address, port):
    stream = socket.create_connection((address, port), timeout=5)
    tls = port in (443, 8443, 8444)
    if tls and number % 3:
        stream = context.wrap_socket(stream, server_hostname="kubernetes.default.svc")
    if number % 3 == 1:
        stream.sendall(b"POST /mutate HTT")
    elif number % 3 == 2 and not tls:
        stream.sendall(b"POST /readyz HTTP/1.1\r\nhost: a\r\ncontent-length: 4000000\r\n\r\n{")
    return stream

held = {}
def fill(number, address, port):
    global opened
    try:
        stream = connect(number, address, port)
    except OSError:
        return
    opened += 1
    held[stream.fileno()] = (stream, number, address, port)

targets = [target.rsplit(":", 1) for target in sys.argv[1:]]
for number in range(600):
    for address, port in targets:
        fill(number, address.strip("[]"), int(port))
print("holding", len(held), flush=True)
open("/tmp/holding", "w").close()
while time.monotonic() < until and not os.path.exists("/tmp/stop"):
    poll = select.poll()
    for number in held:
        poll.register(number, select.POLLIN)
    for number, _ in poll.poll(500)[:25]:
        stream, *again = held.pop(number)
        stream.close()
        fill(*again)
    time.sleep(0.05)
print("opened", opened, flush=True)
"#;

/// Whether a pod is ready, and how often its containers were started again.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct State {
    name: String,
    pub(super) ready: bool,
    pub(super) restarts: u64,
}

pub(super) fn state(pod: &Value) -> Result<State> {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let is_ready = |condition: &Value| {
        condition.get("type") == Some(&json!("Ready")) && condition.get("status") == Some(&json!("True"))
    };
    let containers = [list("/status/containerStatuses"), list("/status/initContainerStatuses")].concat();
    let restarts = containers.iter().filter_map(|one| one.get("restartCount")?.as_u64()).sum();
    ensure!(!containers.is_empty(), "a pod without containers: {pod}");
    Ok(State {
        name: text("/metadata/name"),
        ready: list("/status/conditions").iter().any(is_ready),
        restarts,
    })
}

/// The pods of the installation, and those of its recorder.
async fn installed() -> Result<Vec<Value>> {
    let system = Kubectl::with(&["-n", SYSTEM]);
    let mut all = Vec::new();
    for label in [
        "app.kubernetes.io/name=podwitness-admit",
        "app.kubernetes.io/name=podwitness-control",
        "podwitness.dev/recorder=podwitness",
    ] {
        let pods = system.get(&["pods", "-l", label]).await?;
        let pods = pods.pointer("/items").and_then(Value::as_array).cloned().context("no list")?;
        ensure!(!pods.is_empty(), "no pod with {label}");
        all.extend(pods);
    }
    Ok(all)
}

/// The address of a Service, as a host of a URL.
async fn service(namespace: &str, name: &str) -> Result<String> {
    let service = Kubectl::with(&["-n", namespace]).get(&["service", name]).await?;
    let ip = service.pointer("/spec/clusterIP").and_then(Value::as_str).context("no address")?;
    Ok(if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() })
}

/// A script for an overseer that does something for the sidecar's process of a namespace with one pod, whose folder in
/// `/proc` is `$process`.
pub(super) fn at_sidecar(ns: &Namespace, work: &str) -> String {
    format!(
        "for process in /proc/[0-9]*; do
           case $(tr '\\0' ' ' <$process/cmdline) in /podwitness-sidecar*)
             if tr '\\0' '\\n' <$process/environ | grep -qx 'POD_NAMESPACE={}'; then {work}; fi;;
           esac
         done",
        ns.name
    )
}

fn address(pod: &Value) -> Result<String> {
    let ip = pod.pointer("/status/podIP").and_then(Value::as_str).context("the pod has no address")?;
    Ok(if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() })
}

/// Every TCP port on which a pod of the installation listens on its address.
fn ports(pod: &Value) -> Result<Vec<String>> {
    let address = address(pod)?;
    let name = pod.pointer("/metadata/labels/app.kubernetes.io~1name").and_then(Value::as_str);
    let own = match name {
        Some("podwitness-admit") => Some(8443),
        Some("podwitness-control") => Some(8444),
        _ => None,
    };
    let ports = [8080, HEALTH_PORT].into_iter().chain(own);
    Ok(ports.map(|port| format!("{address}:{port}")).collect())
}

/// Floods each pod's targets from it while `test` runs.
async fn flooded(
    ns: &Namespace,
    floods: &[(&str, &[String])],
    test: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let flood = async |&(from, targets): &(&str, &[String])| {
        let mut args = vec!["exec", from, "-c", "app", "--", "python3", "-c", HOLD];
        args.extend(targets.iter().map(String::as_str));
        let run = ns.kubectl.run(&args).await?.ok()?.text();
        ensure!(run.contains("holding") && run.contains("opened"), "it held nothing: {run}");
        anyhow::Ok(())
    };
    let test = async {
        for (from, _) in floods {
            eventually("the flood holds", async || ns.shell(from, "ls /tmp/holding").await?.ok()).await?;
        }
        let tested = test().await;
        for (from, _) in floods {
            ns.shell(from, "touch /tmp/stop").await?.ok()?;
        }
        tested
    };
    tokio::try_join!(try_join_all(floods.iter().map(flood)), test).map(drop)
}

/// Looks at pods for a minute: each is ready at every look, and none is started again.
async fn stay_ready(look: impl AsyncFn() -> Result<Vec<Value>>) -> Result<()> {
    let read = async || look().await?.iter().map(state).collect::<Result<Vec<_>>>();
    let before = read().await?;
    let end = Instant::now() + LOOK;
    while Instant::now() < end {
        let now = read().await?;
        ensure!(now.iter().all(|pod| pod.ready), "not all are ready: {now:?}");
        ensure!(now == before, "before: {before:?}, now: {now:?}");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

#[tokio::test]
async fn six_hundred_connections_to_each_port_take_no_program_of_the_installation_down() -> Result<()> {
    let mut targets = Vec::new();
    for pod in installed().await? {
        targets.extend(ports(&pod)?);
    }
    Namespace::plain(async |ns| {
        // From two addresses, so that no cap of one source alone is what helps.
        ns.start(&clients("attacker-0")).await?;
        ns.start(&clients("attacker-1")).await?;
        let work = async || {
            let (ready, new) = (stay_ready(installed), a_pod_is_admitted_and_recorded());
            tokio::try_join!(ready, new).map(drop)
        };
        flooded(ns, &[("attacker-0", &targets), ("attacker-1", &targets)], work).await
    })
    .await
}

/// A pod is admitted, enrols, and what it does is recorded: every program of the installation serves.
async fn a_pod_is_admitted_and_recorded() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.allow_all().await?;
        ns.start(&sleeper("witness")).await?;
        let viewer = Viewer::open().await?;
        let script = format!("kubectl -n {} exec witness -- echo beside a flood", ns.name);
        eventually("a session is recorded", async || {
            ns.shell("witness", &script).await?.ok()?;
            ensure!(!viewer.sessions(&ns.name).await?.is_empty(), "there is none");
            Ok(())
        })
        .await
    })
    .await
}

/// The ports of a sidecar, from another container of its pod, which has its address, and from another pod.
#[tokio::test]
async fn six_hundred_connections_to_each_port_leave_a_sidecar_ready_and_recording() -> Result<()> {
    let control = service(SYSTEM, "podwitness-control").await?;
    let api_server = service("default", "kubernetes").await?;
    Namespace::witnessed(async |ns| {
        ns.allow_all().await?;
        let pod = ns.start(&clients("witness")).await?;
        ns.start(&clients("attacker")).await?;
        let own = address(&pod)?;
        let outside = [ADMIN_PORT, PROBE_PORT].map(|port| format!("{own}:{port}"));
        let within = [&outside[..], &[format!("{api_server}:443"), format!("{control}:8444")]].concat();
        let viewer = Viewer::open().await?;
        let work = async || {
            let ready = stay_ready(async || {
                let pods = ns.kubectl.get(&["pods"]).await?;
                pods.pointer("/items").and_then(Value::as_array).cloned().context("no list")
            });
            let recorded = async {
                for number in 0..5 {
                    let script =
                        format!("kubectl -n {} exec witness -- echo beside a flood {number}", ns.name);
                    let run = ns.shell("witness", &script).await?.ok()?;
                    ensure!(run.text() == format!("beside a flood {number}\n"), "{run:?}");
                    viewer.recording(&ns.name, &format!("echo beside a flood {number}")).await?;
                }
                let ask = format!(
                    "wget -qO- http://{own}:{ADMIN_PORT}/metrics || curl -s http://{own}:{ADMIN_PORT}/metrics"
                );
                let metrics = ns.shell("attacker", &ask).await?.ok()?.text();
                ensure!(metrics.contains("podwitness_control 1"), "it has lost the control plane: {metrics}");
                let evicted = |line: &str| {
                    line.starts_with("podwitness_connections_evicted_total") && !line.ends_with(" 0")
                };
                ensure!(metrics.lines().any(evicted), "nothing was evicted: {metrics}");
                Ok(())
            };
            tokio::try_join!(ready, recorded).map(drop)
        };
        flooded(ns, &[("witness", &within), ("attacker", &outside)], work).await
    })
    .await
}

/// Its startup probe comes to a port that others fill before it listens.
#[tokio::test]
async fn a_sidecar_that_is_killed_beneath_a_flood_starts_again() -> Result<()> {
    // What goes there comes to the sidecar, whatever its port.
    let api_server = service("default", "kubernetes").await?;
    Namespace::plain(async |plain| {
        Namespace::witnessed(async |ns| {
            ns.allow_all().await?;
            let pod = ns.start(&clients("witness")).await?;
            plain.start(&overseer("overseer", &pod)?).await?;
            let own = address(&pod)?;
            let targets =
                [format!("{own}:{ADMIN_PORT}"), format!("{own}:{PROBE_PORT}"), format!("{api_server}:443")];
            flooded(ns, &[("witness", &targets)], async || {
                let kill = at_sidecar(ns, "kill -9 ${process#/proc/}; echo killed");
                let run = plain.shell("overseer", &kill).await?;
                ensure!(run.text().contains("killed"), "no sidecar is like that: {run:?}");
                eventually("the sidecar runs again and is started", async || {
                    let pod = ns.kubectl.get(&["pod", "witness"]).await?;
                    let sidecar = pod.pointer("/status/initContainerStatuses/0").context("no status")?;
                    let started = sidecar.get("started") == Some(&json!(true));
                    let once = sidecar.get("restartCount") == Some(&json!(1));
                    ensure!(started && once, "{sidecar}");
                    Ok(())
                })
                .await?;
                let get = format!("kubectl -n {} get pods -o name", ns.name);
                let run = eventually("it serves", async || ns.shell("witness", &get).await?.ok()).await?;
                ensure!(run.text().contains("pod/witness"), "{run:?}");
                Ok(())
            })
            .await
        })
        .await
    })
    .await
}
