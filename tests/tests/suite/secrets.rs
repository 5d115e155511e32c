//! A canary in every field that a client can fill is in nothing that is stored, logged, counted or told, inside
//! archives too, and in no encoding.
//!
//! Names are kept, as the docs say, and stay out of it: those of objects, fields, users and clients, and what the API
//! server itself reads of a query.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use podwitness_core::inject;
use podwitness_e2e::{
    Events, Kubectl, Namespace, SYSTEM, Viewer,
    events::{mark, text, with_events_by},
    eventually, grants,
    pods::{clients, installed, overseer, sleeper, witnessed_by},
    schedule::{Class, enter},
};
use serde_json::{Value, json};

/// Requests with a secret as a header, in a query, in a body. Prints a line for each.
const PLANTED: &str = r#"
import base64, gzip, http.client, json, os, ssl
here = "/var/run/secrets/kubernetes.io/serviceaccount"
token = open(here + "/token").read()
context = ssl.create_default_context(cafile=here + "/ca.crt")
ns, canary = os.environ["NS"], os.environ["CANARY"]
encoded = base64.b64encode(canary.encode()).decode()
def connect():
    return http.client.HTTPSConnection("kubernetes.default.svc", 443, context=context)
def ask(method, path, body=None, **headers):
    connection = connect()
    headers = {"Authorization": "Bearer " + token, **{k.replace("_", "-"): v for k, v in headers.items()}}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.read()
    print(method, path.split("?")[0], answer.status)
js = "application/json"
root = f"/api/v1/namespaces/{ns}"
secrets, proxy = root + "/secrets", root + "/services/s/proxy/"
secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "annotations": {"a": canary}}, "stringData": {"p": canary}}
text = json.dumps(secret)

# Bodies: of every verb, in every format, whole and broken, short and compressed; and what answers say of them.
ask("POST", secrets, text, Content_Type=js, Cookie="c=" + canary, X_Secret=canary)
ask("PUT", secrets + "/s", text, Content_Type=js)
ask("GET", secrets + "/s")
ask("GET", secrets)
ask("PATCH", secrets + "/s", json.dumps({"data": {"p": None, "q": encoded}, "metadata": {"labels": {"l": canary}}}), Content_Type="application/merge-patch+json")
ask("PATCH", secrets + "/s", json.dumps({"stringData": {"r": canary}}), Content_Type="application/strategic-merge-patch+json")
ask("PATCH", secrets + "/s", json.dumps([{"op": "add", "path": "/metadata/annotations/b", "value": canary}]), Content_Type="application/json-patch+json")
ask("PATCH", secrets + "/s?fieldManager=m&force=true", f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{y: {canary}}}\n", Content_Type="application/apply-patch+yaml")
ask("POST", secrets, canary, Content_Type=js)
ask("POST", secrets, text[:-1], Content_Type=js)
ask("POST", secrets, gzip.compress(text.encode()), Content_Type=js, Content_Encoding="gzip")
ask("POST", secrets, b"k8s\0" + canary.encode(), Content_Type="application/vnd.kubernetes.protobuf")
ask("POST", secrets, canary, Content_Type="application/cbor")
ask("POST", root + "/configmaps", json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"d": canary}, "binaryData": {"b": encoded}}), Content_Type=js)
ask("POST", root + "/pods?dryRun=All", json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "args": [canary], "env": [{"name": "E", "value": canary}]}]}}), Content_Type=js)
ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": canary}}), Content_Type=js)
ask("POST", root + "/serviceaccounts/default/token", json.dumps({"spec": {"audiences": [canary]}}), Content_Type=js)
ask("DELETE", secrets + "/s", json.dumps({"preconditions": {"uid": canary}}), Content_Type=js)
ask("POST", proxy, canary, Content_Type="text/plain")

# Queries: what the API server does not read.
ask("GET", proxy + f"?token={canary}&password={canary}")
ask("GET", f"/version?access_token={canary}&apiKey={canary}&FieldManager={canary}")

# Headers: credentials of every kind, and all others.
ask("GET", "/version", Authorization="Bearer " + canary)
ask("GET", "/version", Authorization="Basic " + base64.b64encode(b"user:" + canary.encode()).decode())
ask("GET", "/version", Authorization="Negotiate " + canary)
ask("GET", "/version", Proxy_Authorization=canary, X_Forwarded_User=canary, X_Forwarded_For=canary, Forwarded="for=" + canary)
ask("GET", "/version", Sec_WebSocket_Protocol="base64url.bearer.authorization.k8s.io." + canary)
ask("GET", "/version", Sec_WebSocket_Protocol="base64url.bearer.authorization.k8s.io." + encoded, Authorization="")
ask("GET", "/version", Impersonate_User="ana", Impersonate_Uid=canary, Impersonate_Extra_Token=canary)
ask("GET", "/version", X_Remote_User=canary, X_Remote_Group=canary, X_Remote_Extra_Token=canary)
ask("GET", "/version", Kubectl_Session=canary, Kubectl_Command="kubectl " + canary, X_Api_Key=canary, X_Csrf_Token=canary)
ask("GET", "/version", Referer=f"https://x/?t={canary}", Origin="https://" + canary, If_None_Match=f'"{canary}"', From=canary)
ask("GET", "/version", Accept=f"application/json;t={canary}", Content_Type=f"application/json;t={canary}", Accept_Language=canary)

# The target of a request with a user before the host, and what stands behind a body.
ask("GET", f"https://user:{canary}@kubernetes.default.svc/version")
connection = connect()
connection.putrequest("POST", secrets)
for name, value in (("Authorization", "Bearer " + token), ("Content-Type", js), ("Transfer-Encoding", "chunked"), ("Trailer", "X-Late")):
    connection.putheader(name, value)
connection.endheaders()
connection.send(f"2\r\n{{}}\r\n0\r\nX-Late: {canary}\r\n\r\n".encode())
print("trailer", connection.getresponse().status)
"#;

/// How many lines [`PLANTED`] prints.
const REQUESTS: usize = 34;

/// Sessions that are given a secret: as input, as a file, as a flag, and through a forwarded port.
const SESSIONS: &str = r#"
set -e
printf %s "$CANARY" >/tmp/file
kubectl -n $NS exec -i target -- sh -c 'cat >/tmp/input' </tmp/file
kubectl -n $NS exec -i target -- sh -c 'stty -echo 2>/dev/null; read -r x; echo read' </tmp/file
kubectl -n $NS cp /tmp/file target:/tmp/copied
kubectl -n $NS exec target -- true --password=$CANARY
kubectl -n $NS exec target -- sh -c "true --password $CANARY"
kubectl -n $NS port-forward pod/target 18080:8080 >/tmp/forward 2>&1 & forward=$!
until grep -q 127.0.0.1:18080 /tmp/forward; do sleep 0.1; done
exec 3<>/dev/tcp/127.0.0.1/18080; printf 'GET /?%s HTTP/1.0\r\n\r\n' "$CANARY" >&3; cat <&3 >/dev/null || true
kill $forward || true
kubectl -n $NS exec target -- echo over
"#;

/// Looks for any of the arguments in every file that a process of ours sees, but for those of the kernel.
const SEARCH: &str = r#"
for process in /proc/[0-9]*; do
    case $(cat $process/comm 2>/dev/null) in podwitness-*) ;; *) continue ;; esac
    echo searched
    find $process/root/ \( -path $process/root/proc -o -path $process/root/sys \) -prune -o -type f -print 2>/dev/null |
        while read -r file; do
            for needle; do ! grep -qF "$needle" "$file" 2>/dev/null || echo "found in $file"; done
        done
done
"#;

/// What a secret looks like in text, and in base64 that it stands anywhere in.
fn traces(secret: &str) -> Vec<String> {
    let shifted = (0..3).map(|shift| {
        let encoded = STANDARD.encode([vec![0; shift], secret.as_bytes().to_vec()].concat());
        // The first and the last characters hold bits of what stands beside it.
        let (begin, end) = ((shift * 4).div_ceil(3), (shift + secret.len()) * 4 / 3);
        encoded.get(begin..end).unwrap_or_default().to_owned()
    });
    shifted.chain([secret.to_owned()]).collect()
}

/// What is looked for.
struct Search {
    traces: Vec<String>,
}

impl Search {
    fn in_text(&self, what: &str, text: &str) -> Result<()> {
        ensure!(!text.is_empty(), "there is no {what}");
        let found = self.traces.iter().find(|trace| text.contains(trace.as_str()));
        ensure!(found.is_none(), "{found:?} is in {what}");
        Ok(())
    }

    /// Events and recordings, as they are inside their archives.
    async fn in_the_store(&self, ns: &Namespace, events: &mut Events) -> Result<()> {
        let everything = String::from_utf8_lossy(&events.everything().await?).into_owned();
        ensure!(everything.contains("stringData.p"), "no field is named");
        self.in_text("the events", &everything)?;
        let viewer = Viewer::open().await?;
        let sessions = viewer.sessions(&ns.name).await?;
        self.in_text("the list of sessions", &serde_json::to_string(&sessions)?)?;
        ensure!(sessions.len() >= 6, "only {} sessions are recorded", sessions.len());
        for session in sessions {
            let cast = viewer.get(&format!("/api/v1/sessions/{}/cast?raw", text(&session, "/id"))).await?;
            self.in_text("a recording", &String::from_utf8_lossy(&cast))?;
        }
        Ok(())
    }

    /// Logs, metrics and what is told to the cluster.
    async fn in_what_is_told(&self, ns: &Namespace) -> Result<()> {
        let log = ns.kubectl.run(&["logs", "witness", "-c", "podwitness"]).await?.ok()?.text();
        self.in_text("the sidecar's log", &log)?;
        let system = Kubectl::with(&["-n", SYSTEM]);
        let pods = installed().await?;
        for pod in &pods {
            let logs = system.run(&["logs", pod, "--all-containers", "--tail=-1"]).await?.ok()?.text();
            ensure!(!logs.is_empty(), "{pod} has no log");
            self.in_text("the system's logs", &logs)?;
        }
        let port = inject::ADMIN_PORT;
        let metrics = format!("/api/v1/namespaces/{}/pods/witness:{port}/proxy/metrics", ns.name);
        let metrics = ns.kubectl.run(&["get", "--raw", &metrics]).await?.ok()?.text();
        ensure!(metrics.contains("podwitness_events_written"), "no metrics: {metrics}");
        self.in_text("the sidecar's metrics", &metrics)?;
        for pod in &pods {
            let metrics =
                format!("/api/v1/namespaces/{SYSTEM}/{}:8080/proxy/metrics", pod.replace("pod/", "pods/"));
            let metrics = system.run(&["get", "--raw", &metrics]).await?.ok()?.text();
            self.in_text(pod, &metrics)?;
        }
        let told =
            Kubectl::default().run(&["get", "events,grants,recorders", "-A", "-o", "yaml"]).await?.ok()?;
        self.in_text("Events and statuses", &told.text())
    }

    /// Every file of every process of ours, on every node.
    async fn on_every_disk(&self, plain: &Namespace) -> Result<()> {
        let nodes = Kubectl::default().get(&["nodes"]).await?;
        let nodes = nodes.pointer("/items").and_then(Value::as_array).context("no nodes")?;
        let mut searched = 0;
        for (number, node) in nodes.iter().enumerate() {
            let name = format!("overseer-{number}");
            let there = json!({"spec": {"nodeName": text(node, "/metadata/name")}});
            plain.start(&overseer(&name, &there)?).await?;
            let mut args = vec!["exec", &name, "--", "sh", "-c", SEARCH, "search"];
            args.extend(self.traces.iter().map(String::as_str));
            let run = plain.kubectl.run(&args).await?.ok()?.text();
            ensure!(!run.contains("found"), "on node {number}: {run}");
            searched += run.matches("searched").count();
        }
        ensure!(searched >= 4, "only {searched} processes of ours were found");
        Ok(())
    }
}

/// Fills every field, and waits until everything is stored.
async fn plant(ns: &Namespace, plain: &Namespace, canary: &str, events: &mut Events) -> Result<()> {
    let (of, canary) = (format!("NS={}", plain.name), format!("CANARY={canary}"));
    let exec = ["exec", "-i", "witness", "-c", "app", "--", "env", &of, &canary];
    let python = [&exec[..], &["python3", "-"]].concat();
    let run = ns.kubectl.run_with_stdin(&python, PLANTED.as_bytes()).await?.ok()?;
    ensure!(run.text().lines().count() == REQUESTS, "{run:?}");
    ns.kubectl.run(&[&exec[..], &["bash", "-c", SESSIONS]].concat()).await?.ok()?;
    let viewer = Viewer::open().await?;
    for needle in
        ["cat >/tmp/input", "read -r x", "--password=[withheld]", "--password [withheld]", "echo over"]
    {
        viewer.recording(&ns.name, needle).await?;
    }
    mark(ns, "witness", "end").await?;
    eventually("the last event is there", async || {
        let seen = events.of(&ns.name).await?;
        let last = |event: &Value| text(event, "/request/path") == "/version?fieldManager=end";
        ensure!(seen.iter().any(last), "{} events", seen.len());
        let reads = |event: &Value| text(event, "/kubernetes/Resource") == "secrets";
        ensure!(seen.iter().any(reads), "none of them is of a secret");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn no_secret_is_in_what_is_kept() -> Result<()> {
    enter(Class::Long).await;
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        let rule = json!({"recorder": ["tag:podwitness"], "enableEvents": true, "maskFlags": ["--password"]});
        let grant = grants::grant(&ns.name, &format!("namespace:{}", ns.name), &rule);
        with_events_by(&grant, ns, "witness", async |events| {
            let canary = format!("canary{}x{}", std::process::id(), ns.name.replace('-', ""));
            plant(ns, plain, &canary, events).await?;
            let search = Search { traces: traces(&canary) };
            search.in_the_store(ns, events).await?;
            search.in_what_is_told(ns).await?;
            search.on_every_disk(plain).await
        })
        .await
    })
    .await
}
