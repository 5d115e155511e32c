//! TLS that does not look like TLS. A server may understand what a detector does not, so towards an address of the API
//! server whatever does not begin with a whole ClientHello is closed with an alert, fail open or closed.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Kubectl, Namespace, eventually,
    grants::{enforced, with_grant},
    pods::{clients, sleeper, witnessed_by},
};
use serde_json::Value;

/// Says a ClientHello to each address in every way that is none, and prints a line with the way and the first bytes of the
/// answer. Those that take their time do so together. What `speak` makes of a hello is sent up to its first pause.
const SAY: &str = r#"cat >/tmp/hello.py <<'END'
import importlib.machinery, importlib.util, itertools, socket, ssl, sys, threading

loader = importlib.machinery.SourceFileLoader("speak", "/usr/local/bin/speak")
speak = importlib.util.module_from_spec(importlib.util.spec_from_loader("speak", loader))
loader.exec_module(speak)

def hello():
    said, heard = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(heard, said, server_hostname="kubernetes.default.svc")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return said.read()

def at_once(pieces):
    return b"".join(itertools.takewhile(lambda piece: isinstance(piece, bytes), pieces))

WAYS = {
    **{way: at_once(change(hello())) for way, change in speak.HELLOS.items()},
    "one-byte": b"\x16",
    "sslv2": bytes([0x80, 46, 1, 3, 1, 0, 33, 0, 0, 0, 16]) + bytes(33),
    "http": b"GET /version HTTP/1.1\r\nHost: kubernetes\r\n\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}

def attempt(way, address):
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), 30) as connection:
        try:
            connection.sendall(WAYS[way])
            answer = connection.recv(64)
        except OSError as error:
            answer = repr(error).encode()
        print(way, address, answer[:7].hex() or "nothing", flush=True)

threads = [threading.Thread(target=attempt, args=(way, address)) for way in WAYS for address in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
END
python3 /tmp/hello.py"#;

/// The Service and the endpoint behind it.
async fn addresses() -> Result<Vec<String>> {
    let kubectl = Kubectl::default();
    let service = kubectl.get(&["service", "-n", "default", "kubernetes"]).await?;
    let slice = kubectl.get(&["endpointslices", "-n", "default", "kubernetes"]).await?;
    let text = |from: &Value, at: &str| from.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let ip = text(&service, "/spec/clusterIP").context("the Service has no address")?;
    let endpoint = text(&slice, "/endpoints/0/addresses/0").context("no endpoint")?;
    let port = slice.pointer("/ports/0/port").context("no port")?;
    Ok(vec![format!("{ip}:443"), format!("{endpoint}:{port}")])
}

/// Every way ends with an alert of ours, and a whole hello is answered.
async fn each_is_closed_with_an_alert(ns: &Namespace, addresses: &[String]) -> Result<()> {
    let said = ns.shell("witness", &format!("{SAY} {}", addresses.join(" "))).await?.ok()?.text();
    let mut wrong = Vec::new();
    for line in said.lines() {
        let is_whole = line.starts_with("whole ") || line.starts_with("in-records ");
        let answer = line.split(' ').nth(2).unwrap_or_default();
        let is_alert = answer.len() == 14 && answer.starts_with("150303000202");
        if is_whole != answer.starts_with("16") || is_whole == is_alert {
            wrong.push(line);
        }
    }
    ensure!(said.lines().count() == 18 * addresses.len(), "not all were tried: {said}");
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[tokio::test]
async fn what_is_not_tls_is_closed_with_an_alert_under_fail_open_and_closed() -> Result<()> {
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, _| {
        let addresses = addresses().await?;
        eventually("the netmap is known", async || each_is_closed_with_an_alert(ns, &addresses).await)
            .await?;
        with_grant(&enforced(&ns.name, "tag:podwitness"), async || {
            eventually("the grant is enforced", async || {
                let run = ns.shell("witness", "speak --path /api/%zz").await?;
                ensure!(run.stderr.contains("podwitness: "), "{run:?}");
                Ok(())
            })
            .await?;
            each_is_closed_with_an_alert(ns, &addresses).await
        })
        .await
    })
    .await
}
