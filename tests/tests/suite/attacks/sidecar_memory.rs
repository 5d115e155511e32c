//! A program of the pod does not take its sidecar down: neither by its memory, with requests that it does not finish and
//! answers that it does not read, nor by its port, once the sidecar has died of something else.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Namespace, eventually,
    pods::{clients, overseer},
};
use serde_json::json;

use super::exhaustion::{at_sidecar, state};

/// Sends 300 heads without an end and asks for 1,000 answers that it does not read, three times over. Connections that
/// are ended meanwhile are not opened again.
const FLOOD: &str = r#"
import resource, socket, ssl, threading
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536) if most > 0 else 65536,) * 2)
here = "/var/run/secrets/kubernetes.io/serviceaccount"
token = open(here + "/token").read()
context = ssl.create_default_context(cafile=here + "/ca.crt")
half = b"GET /version HTTP/1.1\r\nHost: kubernetes\r\nX-Long: " + b"a" * 900000
whole = f"GET /openapi/v2 HTTP/1.1\r\nHost: kubernetes\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
held, sent = [], 0
def send(what):
    global sent
    try:
        stream = socket.create_connection(("kubernetes.default.svc", 443), timeout=20)
        stream = context.wrap_socket(stream, server_hostname="kubernetes.default.svc")
        held.append(stream)
        stream.sendall(what)
        sent += 1
    except OSError:
        pass
def send_all(what, count):
    for _ in range(count):
        send(what)
for turn in range(3):
    threads = [threading.Thread(target=send_all, args=each) for each in [(half, 100)] * 3 + [(whole, 250)] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held.clear()
print("sent", sent, flush=True)
"#;

/// Takes the port at which the sidecar listens as soon as it is free, and counts the connections that come to it, for
/// as long as it is told. It makes connections to the API server meanwhile.
const TAKE: &str = r#"
import errno, os, socket, sys, time
ports = set()
for line in open("/proc/net/tcp").read().splitlines()[1:]:
    fields = line.split()
    if fields[3] == "0A" and fields[1].startswith("0100007F:"):
        ports.add(int(fields[1][9:], 16))
assert ports, "nothing listens on loopback"
refused, taken, accepted = 0, {}, 0
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    for port in ports - set(taken):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
            listener.setblocking(False)
            taken[port] = listener
        except OSError as error:
            assert error.errno == errno.EADDRINUSE, error
            refused += 1
            open("/tmp/waiting", "w").close()
    try:
        socket.create_connection((os.environ["KUBERNETES_SERVICE_HOST"], 443), timeout=0.2).close()
    except OSError:
        pass
    for listener in taken.values():
        try:
            listener.accept()
            accepted += 1
        except BlockingIOError:
            pass
    time.sleep(0.02)
print("refused", refused > 0, "accepted", accepted, flush=True)
"#;

/// A witnessed pod with other people's clients, and one that sees the processes of its node.
async fn with_overseer(test: impl AsyncFnOnce(&Namespace, &Namespace) -> Result<()>) -> Result<()> {
    Namespace::plain(async |plain| {
        Namespace::witnessed(async |ns| {
            ns.allow_all().await?;
            let pod = ns.start(&clients("witness")).await?;
            plain.start(&overseer("overseer", &pod)?).await?;
            test(ns, plain).await
        })
        .await
    })
    .await
}

async fn kubectl_works(ns: &Namespace) -> Result<()> {
    let get = format!("kubectl -n {} get pods -o name", ns.name);
    let run = eventually("kubectl works", async || ns.shell("witness", &get).await?.ok()).await?;
    ensure!(run.text().contains("pod/witness"), "{run:?}");
    Ok(())
}

#[tokio::test]
async fn half_sent_heads_and_unread_answers_leave_a_sidecar_within_its_memory() -> Result<()> {
    with_overseer(async |ns, plain| {
        let args = ["exec", "witness", "-c", "app", "--", "python3", "-c", FLOOD];
        let run = ns.kubectl.run(&args).await?.ok()?.text();
        ensure!(run.contains("sent") && !run.contains("sent 0"), "it sent nothing: {run}");
        kubectl_works(ns).await?;
        let now = state(&ns.kubectl.get(&["pod", "witness"]).await?)?;
        ensure!(now.ready && now.restarts == 0, "{now:?}");
        // Its own cgroup is what its container sees, in either version of cgroups.
        let count =
            "c=$process/root/sys/fs/cgroup; cat $c/memory.events $c/memory/memory.oom_control 2>/dev/null";
        let counts = plain.shell("overseer", &at_sidecar(ns, count)).await?.ok()?.text();
        ensure!(counts.lines().any(|line| line == "oom_kill 0"), "{counts}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_program_that_waits_for_the_death_of_its_sidecar_is_given_no_connection() -> Result<()> {
    with_overseer(async |ns, plain| {
        let args = ["exec", "witness", "-c", "app", "--", "python3", "-c", TAKE, "60"];
        let take = async {
            let run = ns.kubectl.run(&args).await?.ok()?.text();
            ensure!(run.contains("refused True accepted 0"), "{run}");
            Ok(())
        };
        let kill = async {
            let waits = "test -e /tmp/waiting";
            eventually("the program waits", async || ns.shell("witness", waits).await?.ok()).await?;
            let kill = at_sidecar(ns, "kill -9 ${process#/proc/}; echo killed");
            let run = plain.shell("overseer", &kill).await?;
            ensure!(run.text().contains("killed"), "no sidecar is like that: {run:?}");
            eventually("the sidecar runs again and is started", async || {
                let pod = ns.kubectl.get(&["pod", "witness"]).await?;
                let sidecar = pod.pointer("/status/initContainerStatuses/0").context("no status")?;
                let started = sidecar.get("started") == Some(&json!(true));
                ensure!(started && sidecar.get("restartCount") == Some(&json!(1)), "{sidecar}");
                Ok(())
            })
            .await?;
            kubectl_works(ns).await
        };
        tokio::try_join!(take, kill).map(drop)
    })
    .await
}
