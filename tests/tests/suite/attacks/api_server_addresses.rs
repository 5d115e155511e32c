//! No address leads past the recorder: that of a node on the API server's port, or a Service of another name that
//! somebody made. What goes there runs recorded or not at all, and what passed raw ends with the rule that let it pass.

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use podwitness_e2e::{
    Kubectl, Namespace, Viewer, eventually,
    grants::{enforced, with_grant},
    pods::{clients, sleeper, witnessed_by},
    schedule::{Class, enter},
};
use serde_json::{Value, json};

/// Opens a connection, says a few bytes, and tells when it ends.
const OPEN: &str = r"
import socket, sys, time
host, port = sys.argv[1], int(sys.argv[2])
connection = socket.create_connection((host, port), 30)
connection.sendall(bytes.fromhex(sys.argv[3]))
print('open', flush=True)
try:
    while connection.recv(4096): pass
except OSError as error:
    print(error, flush=True)
print('ended', flush=True)
";

/// Takes connections and says nothing on them.
const TAKE: &str = r"
import socket, sys
listener = socket.create_server(('', int(sys.argv[1])))
print('listening', flush=True)
taken = []
while True: taken.append(listener.accept())
";

/// A ClientHello as a client of an unknown server says it.
const HELLO: &str = r"
import ssl
said, heard = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = ssl.create_default_context().wrap_bio(heard, said, server_hostname='example.org')
try: tls.do_handshake()
except ssl.SSLWantReadError: pass
print(said.read().hex())
";

/// The address and port of the API server itself.
pub(super) async fn endpoint() -> Result<(String, u64)> {
    let slice = Kubectl::default().get(&["endpointslices", "-n", "default", "kubernetes"]).await?;
    let ip = slice.pointer("/endpoints/0/addresses/0").and_then(Value::as_str).context("no endpoint")?;
    let port = slice.pointer("/ports/0/port").and_then(Value::as_u64).context("no port")?;
    Ok((ip.to_owned(), port))
}

/// A Service of another name on 443 that leads to the API server, and its address.
pub(super) async fn another_service(plain: &Namespace) -> Result<String> {
    let (ip, port) = endpoint().await?;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "elsewhere"},
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]}});
    plain.kubectl.create(&service, &[]).await?.ok()?;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "elsewhere-1", "labels": {"kubernetes.io/service-name": "elsewhere"}},
        "addressType": if ip.contains(':') { "IPv6" } else { "IPv4" },
        "ports": [{"name": "https", "port": port}], "endpoints": [{"addresses": [ip]}]});
    plain.kubectl.create(&slice, &[]).await?.ok()?;
    let made = plain.kubectl.get(&["service", "elsewhere"]).await?;
    Ok(made.pointer("/spec/clusterIP").and_then(Value::as_str).context("no address")?.to_owned())
}

/// The node as a pod sees it: its address, and its end of the pod's network.
pub(super) async fn node_addresses(ns: &Namespace) -> Result<Vec<String>> {
    let gateway = r#"python3 -c "
import socket, struct
for line in open('/proc/net/route').read().splitlines()[1:]:
    fields = line.split()
    if fields[1] == '00000000': print(socket.inet_ntoa(struct.pack('<L', int(fields[2], 16))))
""#;
    let gateways = ns.shell("witness", gateway).await?.ok()?.text();
    let (ip, _) = endpoint().await?;
    Ok(std::iter::once(ip).chain(gateways.split_whitespace().take(1).map(ToOwned::to_owned)).collect())
}

/// A command that leaves a mark, through this server. It ran recorded, or it did not run.
async fn recorded_or_refused(
    (ns, plain): (&Namespace, &Namespace),
    viewer: &Viewer,
    (server, options): (&str, &str),
    mark: &str,
) -> Result<bool> {
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let script = format!(
        "kubectl --server=https://{server} {options} --token=\"$(cat {account}/token)\" --request-timeout=20s \
         -n {} exec target -- sh -c 'touch /tmp/{mark}; echo {mark}-'",
        plain.name
    )
    .replace("ACCOUNT", account);
    let run = ns.shell("witness", &script).await?;
    let ran = plain.shell("target", &format!("test -e /tmp/{mark}")).await?.code == 0;
    ensure!(ran == (run.code == 0), "what ran is not what was told: {run:?}");
    if ran {
        viewer
            .recording(&ns.name, &format!("{mark};"))
            .await
            .with_context(|| format!("{server} {options}"))?;
    }
    Ok(ran)
}

const INSECURE: &str = "--insecure-skip-tls-verify";
const NAMED: &str = "--certificate-authority=ACCOUNT/ca.crt --tls-server-name=kubernetes.default.svc";

/// Every server, by clients that verify its certificate and by those that do not, at the same time.
async fn try_all(both: (&Namespace, &Namespace), servers: &[String], round: &str) -> Result<()> {
    let viewer = Viewer::open().await?;
    let tries = servers.iter().enumerate().flat_map(|(number, server)| {
        [("insecure", INSECURE), ("named", NAMED)].map(|(way, options)| {
            let (viewer, mark) = (&viewer, format!("{round}-{way}-{number}"));
            async move { recorded_or_refused(both, viewer, (server, options), &mark).await }
        })
    });
    try_join_all(tries).await.map(drop)
}

/// Waits until sidecars have heard of the Service: no handshake shows the API server's own certificate any more.
pub(super) async fn is_known(ns: &Namespace, server: &str) -> Result<()> {
    let own = "python3 -c \"import os, ssl; print(ssl.get_server_certificate((os.environ['KUBERNETES_SERVICE_HOST'], \
               int(os.environ['KUBERNETES_SERVICE_PORT']))))\"";
    let there = format!("python3 -c \"import ssl; print(ssl.get_server_certificate(('{server}', 443)))\"");
    eventually("the Service of another name is intercepted", async || {
        let there = ns.shell("witness", &there).await?.ok()?.text();
        let here = ns.shell("witness", own).await?.ok()?.text();
        ensure!(there == here, "it shows another certificate than the sidecar's:\n{there}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn no_address_of_the_api_server_goes_round_under_fail_open_or_closed() -> Result<()> {
    enter(Class::Long).await;
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        let (_, port) = endpoint().await?;
        let service = another_service(plain).await?;
        is_known(ns, &service).await?;
        let nodes = node_addresses(ns).await?;
        let mut servers: Vec<String> = nodes.iter().map(|ip| format!("{ip}:{port}")).collect();
        servers.push(format!("{service}:443"));
        try_all((ns, plain), &servers, "open").await?;
        with_grant(&enforced(&ns.name, "tag:podwitness"), async || {
            eventually("the grant is enforced", async || {
                let run = ns.shell("witness", "speak --path /api/%zz").await?;
                ensure!(run.stderr.contains("podwitness: "), "{run:?}");
                Ok(())
            })
            .await?;
            try_all((ns, plain), &servers, "closed").await
        })
        .await
    })
    .await
}

/// A server that shows no certificate may be the API server: under fail open it is connected to, until a grant fails
/// closed.
#[tokio::test]
async fn a_raw_connection_ends_when_a_grant_comes_that_enforces() -> Result<()> {
    witnessed_by(&clients("witness"), &clients("taker"), async |ns, plain| {
        let (_, port) = endpoint().await?;
        let start = |script: &str, arguments: &str, output: &str| {
            let quoted = script.replace('\'', "\"");
            format!("nohup python3 -c '{quoted}' {arguments} >/tmp/{output} 2>&1 &")
        };
        plain.shell("taker", &start(TAKE, &port.to_string(), "taken")).await?.ok()?;
        eventually("the server listens", async || {
            let said = plain.shell("taker", "cat /tmp/taken").await?.ok()?.text();
            ensure!(said.contains("listening"), "{said:?}");
            Ok(())
        })
        .await?;
        let taker = plain.kubectl.get(&["pod", "taker"]).await?;
        let ip = taker.pointer("/status/podIP").and_then(Value::as_str).context("no address")?;
        let hello = ns.shell("witness", &format!("python3 -c \"{HELLO}\"")).await?.ok()?.text();
        let arguments = format!("{ip} {port} {}", hello.trim());
        ns.shell("witness", &start(OPEN, &arguments, "raw")).await?.ok()?;
        let raw_is = async |word: &str| {
            eventually(&format!("the raw connection is {word}"), async || {
                let said = ns.shell("witness", "cat /tmp/raw").await?.ok()?.text();
                ensure!(said.contains(word), "{said:?}");
                Ok(said)
            })
            .await
        };
        let said = raw_is("open").await?;
        ensure!(!said.contains("ended"), "it was not let pass: {said:?}");
        with_grant(&enforced(&ns.name, "tag:podwitness"), async || raw_is("ended").await.map(drop)).await
    })
    .await
}
