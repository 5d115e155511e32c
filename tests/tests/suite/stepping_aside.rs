//! The sidecar poses as the API server of its cluster, by every name of that, and as no other: interception steps aside for
//! a client that refuses its certificate, and for that client alone.

use anyhow::{Context as _, Result, ensure};
use podwitness_core::labels;
use podwitness_e2e::{
    Kubectl, Namespace, Viewer, eventually,
    grants::{enforced, with_grant},
    pods::{clients, sleeper},
    schedule::{Class, enter},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

/// Serves what an API server says of its version, with a certificate of its own: `ADDRESS PORT`.
const SERVE: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b'{"major": "1", "minor": "33", "gitVersion": "v1.33.0-other"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tmp/other-api.crt", "/tmp/other-api.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
open("/tmp/serving", "w").close()
server.serve_forever()
"#;

/// The names of the API server's certificate besides those that every cluster has.
const NAMES: &str = r#"
import os, ssl, tempfile
pem = ssl.get_server_certificate((os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])))
with tempfile.NamedTemporaryFile("w") as file:
    file.write(pem)
    file.flush()
    for kind, name in ssl._ssl._test_decode_cert(file.name)["subjectAltName"]:
        if kind == "DNS" and "*" not in name and name != "localhost" and not name.startswith("kubernetes"):
            print(name)
"#;

const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

async fn optional(test: impl AsyncFnOnce(&Namespace) -> Result<()>) -> Result<()> {
    Namespace::with(&[(labels::INJECT, "optional")], test).await
}

/// Writes a file in a pod.
async fn put(ns: &Namespace, pod: &str, path: &str, text: &str) -> Result<()> {
    ns.shell(pod, &format!("cat >{path} <<'END_OF_FILE'\n{text}\nEND_OF_FILE")).await?.ok().map(drop)
}

#[tokio::test]
async fn a_client_that_refuses_the_certificate_leaves_every_other_recorded() -> Result<()> {
    Namespace::plain(async |plain| {
        plain.start(&sleeper("target")).await?;
        optional(async |ns| {
            ns.allow_all().await?;
            ns.start(&clients("witness")).await?;
            let roots = ns.kubectl.get(&["configmap", "kube-root-ca.crt"]).await?;
            let roots = roots.pointer("/data/ca.crt").and_then(Value::as_str).context("no CA")?;
            put(ns, "witness", "/tmp/cluster.crt", roots).await?;
            let refusing = "curl -sS --cacert /tmp/cluster.crt https://kubernetes.default.svc/version";
            let refused = ns.shell("witness", refusing).await?;
            ensure!(refused.code == 60, "it takes the certificate: {refused:?}");
            eventually("interception steps aside for it", async || {
                let run = ns.shell("witness", refusing).await?.ok()?;
                ensure!(run.text().contains("gitVersion"), "{run:?}");
                Ok(())
            })
            .await?;
            eventually("the pod has an Event", async || {
                let reasons = ns.event_reasons("witness").await?;
                ensure!(reasons.iter().any(|reason| reason == "PassesUnrecorded"), "{reasons:?}");
                Ok(())
            })
            .await?;
            let viewer = Viewer::open().await?;
            // By another program under the same name, by the same address without one, and by another name.
            for (number, server) in
                ["--server=https://kubernetes.default.svc", "", "--server=https://kubernetes.default"]
                    .into_iter()
                    .enumerate()
            {
                let options = match server {
                    "" => String::new(),
                    server => {
                        let token = format!("--token=\"$(cat {ACCOUNT}/token)\"");
                        format!("{server} --certificate-authority={ACCOUNT}/ca.crt {token}")
                    }
                };
                let mark = format!("beside-{number}");
                let script =
                    format!("kubectl {options} -n {} exec target -- sh -c 'echo {mark};'", plain.name);
                let run = ns.shell("witness", &script).await?.ok()?;
                ensure!(run.text() == format!("{mark}\n"), "{run:?}");
                viewer.recording(&ns.name, &format!("{mark};")).await.context(server)?;
            }
            Ok(())
        })
        .await
    })
    .await
}

/// The API server of another cluster, and what its clients trust.
struct Other {
    ca: String,
    certificate: String,
    key: String,
}

impl Other {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let names = ["kubernetes", "kubernetes.default.svc", "tenant.example", "localhost", "127.0.0.1"];
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names.map(ToOwned::to_owned))?.signed_by(&key, &ca)?;
        Ok(Self { ca: ca.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Serves in a pod.
    async fn serve(&self, ns: &Namespace, pod: &str, address: &str, port: u64) -> Result<()> {
        put(ns, pod, "/tmp/other-api.crt", &self.certificate).await?;
        put(ns, pod, "/tmp/other-api.key", &self.key).await?;
        put(ns, pod, "/tmp/other-ca.crt", &self.ca).await?;
        put(ns, pod, "/tmp/serve.py", SERVE).await?;
        let start = format!("nohup python3 /tmp/serve.py {address} {port} >/tmp/served 2>&1 &");
        ns.shell(pod, &start).await?.ok()?;
        eventually("the other API server serves", async || {
            ns.shell(pod, "cat /tmp/served; ls /tmp/serving").await?.ok()
        })
        .await
        .map(drop)
    }
}

/// The address and port of the API server itself.
async fn endpoint() -> Result<(String, u64)> {
    let slice = Kubectl::default().get(&["endpointslices", "-n", "default", "kubernetes"]).await?;
    let ip = slice.pointer("/endpoints/0/addresses/0").and_then(Value::as_str).context("no endpoint")?;
    let port = slice.pointer("/ports/0/port").and_then(Value::as_u64).context("no port")?;
    Ok((ip.to_owned(), port))
}

fn host(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

/// A client of the other cluster in a pod `client`, by every name and address.
async fn reaches_the_other(ns: &Namespace, tenant: &str, port: u64) -> Result<()> {
    for (server, name) in [
        (tenant, "kubernetes"),
        (tenant, "kubernetes.default.svc"),
        (tenant, "tenant.example"),
        ("127.0.0.1", ""),
        ("localhost", ""),
    ] {
        let options = format!("--tls-server-name={name} --certificate-authority=/tmp/other-ca.crt --token=x");
        let script = format!(
            "kubectl --server=https://{server}:{port} {options} --request-timeout=30s get --raw /version"
        );
        let run = ns.shell("client", &script).await?;
        ensure!(run.text().contains("v1.33.0-other"), "{server} {name:?}: {run:?}");
    }
    let reasons = ns.event_reasons("client").await?;
    let about = ["CertificateRefused", "PassesUnrecorded", "UnknownServer"];
    ensure!(!reasons.iter().any(|reason| about.contains(&reason.as_str())), "{reasons:?}");
    Ok(())
}

#[tokio::test]
async fn an_api_server_of_another_cluster_is_reached_as_without_a_sidecar() -> Result<()> {
    enter(Class::Long).await;
    let (_, port) = endpoint().await?;
    let other = Other::new()?;
    Namespace::plain(async |plain| {
        let tenant = plain.start(&clients("tenant")).await?;
        let tenant = tenant.pointer("/status/podIP").and_then(Value::as_str).context("no address")?;
        let any = if tenant.contains(':') { "::" } else { "0.0.0.0" };
        other.serve(plain, "tenant", any, port).await?;
        let tenant = host(tenant);
        optional(async |ns| {
            ns.start(&clients("client")).await?;
            other.serve(ns, "client", "127.0.0.1", port).await?;
            reaches_the_other(ns, &tenant, port).await.context("optional")
        })
        .await?;
        Namespace::witnessed(async |ns| {
            ns.start(&clients("client")).await?;
            other.serve(ns, "client", "127.0.0.1", port).await?;
            reaches_the_other(ns, &tenant, port).await.context("required")?;
            with_grant(&enforced(&ns.name, "tag:podwitness"), async || {
                eventually("the grant is enforced", async || {
                    let run = ns.shell("client", "speak --path /api/%zz").await?;
                    ensure!(run.stderr.contains("podwitness: "), "{run:?}");
                    Ok(())
                })
                .await?;
                reaches_the_other(ns, &tenant, port).await.context("enforced")
            })
            .await
        })
        .await
    })
    .await
}

/// A pod whose kubelet names the API server by this name.
fn named(name: &str, ip: &str, port: u64) -> Result<Value> {
    let mut pod = clients("witness");
    let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
    spec.insert("hostAliases".into(), json!([{"ip": ip, "hostnames": [name]}]));
    let app = spec.get_mut("containers").and_then(|all| all.get_mut(0)).and_then(Value::as_object_mut);
    let env = json!([{"name": "KUBERNETES_SERVICE_HOST", "value": name},
        {"name": "KUBERNETES_SERVICE_PORT", "value": port.to_string()}]);
    app.context("no container")?.insert("env".into(), env);
    Ok(pod)
}

#[tokio::test]
async fn another_name_of_the_api_servers_certificate_works_and_is_recorded() -> Result<()> {
    let (ip, port) = endpoint().await?;
    Namespace::plain(async |plain| {
        plain.start(&clients("target")).await?;
        put(plain, "target", "/tmp/names.py", NAMES).await?;
        let names = plain.shell("target", "python3 /tmp/names.py").await?.ok()?.text();
        let name = names.lines().next().context("the API server's certificate has no other name")?;
        let pod = named(name, &ip, port)?;
        let recorded = async |ns: &Namespace, mark: &str| {
            ns.allow_all().await?;
            ns.start(&pod).await?;
            let script = format!("kubectl -n {} exec target -- sh -c 'echo {mark};'", plain.name);
            let run = ns.shell("witness", &script).await?.ok()?;
            ensure!(run.text() == format!("{mark}\n"), "{run:?}");
            Viewer::open().await?.recording(&ns.name, &format!("{mark};")).await?;
            let reasons = ns.event_reasons("witness").await?;
            ensure!(!reasons.iter().any(|reason| reason == "PassesUnrecorded"), "{reasons:?}");
            anyhow::Ok(())
        };
        Namespace::witnessed(async |ns| recorded(ns, "by-name-required").await).await?;
        optional(async |ns| recorded(ns, "by-name-optional").await).await
    })
    .await
}
