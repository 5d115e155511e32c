//! API events: the cluster's own audit log and ours tell the same story, no secret is in ours, and what has to be
//! recorded first is not done otherwise.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Events, Kubectl, Namespace, Run, SYSTEM,
    events::{audited, auditor, text},
    eventually,
    grants::{self, with_grant},
    pods::{beside, clients, sleeper, witnessed_by},
};
use serde_json::Value;

/// What people do with kubectl all day. `$NS` is another namespace, with a pod `target`.
const DAY: &str = r#"
cd /tmp
kubectl -n $NS create configmap c --from-literal=a=b --dry-run=client -o yaml >c.yaml
kubectl -n $NS apply -f c.yaml
KUBE_EDITOR='sed -i s/a:.b/a:\ c/' kubectl -n $NS edit configmap c
kubectl -n $NS patch configmap c -p '{"data":{"x":"1"}}'
kubectl -n $NS patch configmap c --type=json -p '[{"op":"remove","path":"/data/x"}]'
kubectl -n $NS apply --server-side --force-conflicts -f c.yaml
kubectl -n $NS label configmap c l=1
kubectl -n $NS get configmap c -o yaml
kubectl -n $NS get pods -l app=target --field-selector=metadata.name=target
kubectl -n $NS logs target
timeout 3 kubectl -n $NS logs -f target
timeout 3 kubectl -n $NS get pods --watch
kubectl -n $NS top pods
kubectl auth can-i create pods -n $NS
kubectl auth can-i --list
kubectl auth whoami
kubectl get grants
kubectl get grant nothing
kubectl -n $NS exec target -- echo hello
KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false kubectl -n $NS exec target -- echo hello
timeout 3 kubectl -n $NS port-forward pod/target 18080:8080
kubectl -n $NS get pod nothing
kubectl get --raw /api/v1/nonsense
kubectl get --raw /healthz
kubectl --server https://kubernetes.default.svc version
export KUBECONFIG=/tmp/kubeconfig; here=/var/run/secrets/kubernetes.io/serviceaccount
kubectl config set-cluster c --server=https://kubernetes.default.svc --certificate-authority=$here/ca.crt
kubectl config set-credentials u --token=$(cat $here/token); kubectl config set-context x --cluster=c --user=u
kubectl config use-context x
kubectl --as=nobody -n $NS get secrets
kubectl --as=ana@example.org --as-group=system:masters -n $NS get secrets
kubectl -n $NS delete configmap c
kubectl -n $NS delete configmaps -l nothing=here
"#;

/// A request that marks a moment in both logs.
async fn mark(ns: &Namespace, pod: &str, word: &str) -> Result<Run> {
    ns.shell(pod, &format!("kubectl get --raw '/version?fieldManager={word}'")).await?.ok()
}

/// Runs `test` with a grant for a namespace, once a request from its pod has an event by that grant.
async fn with_events(
    ns: &Namespace,
    pod: &str,
    enforce: bool,
    test: impl AsyncFnOnce(&mut Events) -> Result<()>,
) -> Result<()> {
    let mut events = Events::from_now().await?;
    with_grant(&grants::events(&ns.name, "tag:podwitness", enforce), async || {
        eventually("requests have events by the grant", async || {
            mark(ns, pod, "effective").await?;
            let seen = events.of(&ns.name).await?;
            let by = |event: &Value| text(event, "/podwitness/grants/0") == ns.name;
            ensure!(seen.iter().any(by), "{} events, none by the grant", seen.len());
            Ok(())
        })
        .await?;
        test(&mut events).await
    })
    .await
}

/// What stands between the marks `begin` and `end`.
fn between(entries: &[Value], uri: &str) -> Result<Vec<Value>> {
    let at = |word: &str| {
        let wanted = |entry: &Value| text(entry, uri) == format!("/version?fieldManager={word}");
        entries.iter().position(wanted).with_context(|| format!("no mark {word}"))
    };
    let (begin, end) = (at("begin")?, at("end")?);
    Ok(entries.get(begin + 1..end).context("the marks are in the wrong order")?.to_vec())
}

/// What both say of one request.
type Said = BTreeMap<&'static str, String>;

fn by_audit_log(entry: &Value) -> Said {
    let object = |key: &str| text(entry, &format!("/objectRef/{key}")).to_owned();
    let user = match text(entry, "/impersonatedUser/username") {
        "" => text(entry, "/user/username"),
        user => user,
    };
    Said::from([
        ("verb", text(entry, "/verb").to_owned()),
        ("group", object("apiGroup")),
        ("resource", object("resource")),
        ("subresource", object("subresource")),
        ("namespace", object("namespace")),
        ("name", object("name")),
        ("user", user.to_owned()),
        ("code", entry.pointer("/responseStatus/code").map(Value::to_string).unwrap_or_default()),
    ])
}

fn by_event(event: &Value) -> Said {
    let asked = |key: &str| text(event, &format!("/kubernetes/{key}")).to_owned();
    let of_resource = event.pointer("/kubernetes/IsResourceRequest") == Some(&Value::Bool(true));
    let resource = |key: &str| if of_resource { asked(key) } else { String::new() };
    // The API server takes the name of what is created from the body, and so do we.
    let name = match resource("Name") {
        name if name.is_empty() => text(event, "/podwitness/body/name").to_owned(),
        name => name,
    };
    Said::from([
        ("verb", asked("Verb")),
        ("group", resource("APIGroup")),
        ("resource", resource("Resource")),
        ("subresource", resource("Subresource")),
        ("namespace", resource("Namespace")),
        ("name", name),
        ("user", text(event, "/podwitness/caller/effective/name").to_owned()),
        ("code", event.pointer("/podwitness/answer/code").map(Value::to_string).unwrap_or_default()),
    ])
}

#[tokio::test]
async fn the_audit_log_and_the_events_say_the_same() -> Result<()> {
    beside(&sleeper("target"), async |ns, plain| {
        auditor(plain).await?;
        with_events(ns, "witness", false, async |events| {
            mark(ns, "witness", "begin").await?;
            ns.shell("witness", &format!("NS={}{DAY}", plain.name)).await?;
            mark(ns, "witness", "end").await?;
            let user = format!("system:serviceaccount:{}:default", ns.name);
            eventually("both say the same", async || {
                let mut theirs = between(&audited(plain, &user).await?, "/requestURI")?;
                theirs.retain(|entry| !text(entry, "/userAgent").starts_with("podwitness/"));
                let ours = between(&events.of(&ns.name).await?, "/request/path")?;
                agree(&theirs, &ours)
            })
            .await
        })
        .await
    })
    .await
}

/// Whether every request of one is one of the other, and both say the same of it.
fn agree(theirs: &[Value], ours: &[Value]) -> Result<()> {
    ensure!(theirs.len() > 50, "only {} requests in the audit log", theirs.len());
    let theirs: BTreeMap<_, _> =
        theirs.iter().map(|entry| (text(entry, "/auditID"), by_audit_log(entry))).collect();
    let complete = ours.iter().filter(|event| text(event, "/podwitness/stage") == "complete");
    let mut found = BTreeMap::new();
    for event in complete {
        let id = text(event, "/podwitness/auditId");
        ensure!(found.insert(id, by_event(event)).is_none(), "two events of one request: {event}");
    }
    for (id, said) in &theirs {
        let ours = found.get(id).with_context(|| format!("there is no event of {said:?}"))?;
        let mut said = said.clone();
        if ours.get("name").is_some_and(String::is_empty) {
            // Of a review or a list the API server knows a name by its answer alone.
            said.insert("name", String::new());
        }
        ensure!(*ours == said, "the audit log says {said:?}, the event {ours:?}");
    }
    let more = found.iter().find(|(id, _)| !theirs.contains_key(**id));
    ensure!(more.is_none(), "an event of nothing: {more:?}");
    Ok(())
}

/// Requests with a secret in every place that is none of the API's names: as a header, in a query, in a body.
const PLANTED: &str = r#"
import http.client, json, os, ssl
here = "/var/run/secrets/kubernetes.io/serviceaccount"
token = open(here + "/token").read()
context = ssl.create_default_context(cafile=here + "/ca.crt")
ns, canary = os.environ["NS"], os.environ["CANARY"]
def ask(method, path, body=None, **headers):
    connection = http.client.HTTPSConnection("kubernetes.default.svc", 443, context=context)
    headers = {"Authorization": "Bearer " + token, **{k.replace("_", "-"): v for k, v in headers.items()}}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.read()
    print(method, path.split("?")[0], answer.status)
secrets = f"/api/v1/namespaces/{ns}/secrets"
secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "annotations": {"a": canary}}, "stringData": {"p": canary}}
js = "application/json"
ask("POST", secrets, json.dumps(secret), Content_Type=js, Cookie="c=" + canary, X_Secret=canary)
ask("PUT", secrets + "/s", json.dumps(secret), Content_Type=js)
ask("PATCH", secrets + "/s", json.dumps({"data": {"p": None, "q": "Y2FuYXJ5"}, "metadata": {"labels": {"l": canary}}}), Content_Type="application/merge-patch+json")
ask("PATCH", secrets + "/s", json.dumps([{"op": "add", "path": "/metadata/annotations/b", "value": canary}]), Content_Type="application/json-patch+json")
ask("POST", secrets, canary, Content_Type=js)
ask("GET", f"/api/v1/namespaces/{ns}/services/s/proxy/?token={canary}&password={canary}")
ask("GET", "/version", Authorization="Bearer " + canary)
ask("GET", "/version", Authorization="Basic " + canary)
ask("GET", "/version", Proxy_Authorization=canary, X_Forwarded_User=canary)
ask("GET", "/version", Sec_WebSocket_Protocol="base64url.bearer.authorization.k8s.io." + canary, Authorization="Bearer " + token)
ask("POST", f"/api/v1/namespaces/{ns}/serviceaccounts/default/token", json.dumps({"spec": {"audiences": [canary]}}), Content_Type=js)
ask("DELETE", secrets + "/s")
"#;

/// That a secret is in nothing that is logged, counted or told.
async fn nowhere_else(ns: &Namespace, canary: &str) -> Result<()> {
    let sidecar = ns.kubectl.run(&["logs", "witness", "-c", "podwitness"]).await?.ok()?.text();
    let port = podwitness_core::inject::ADMIN_PORT;
    let read = format!(
        "import os, urllib.request as r, socket; a = socket.gethostbyname(socket.gethostname()); print(r.urlopen(f'http://{{a}}:{port}/metrics').read().decode())"
    );
    let run = ns.kubectl.run(&["exec", "witness", "-c", "app", "--", "python3", "-c", &read]).await?.ok()?;
    let metrics = run.text();
    ensure!(metrics.contains("podwitness_events_written"), "no metrics: {metrics}");
    let system = Kubectl::with(&["-n", SYSTEM]);
    let all = ["logs", "-l", "app.kubernetes.io/part-of=podwitness", "--all-containers", "--tail=-1"];
    let logs = system.run(&all).await?.ok()?.text();
    ensure!(logs.contains("enrolled"), "no logs: {logs}");
    let told = ns.kubectl.run(&["get", "events", "-o", "yaml"]).await?.ok()?.text();
    for (what, text) in [("sidecar's log", sidecar), ("metrics", metrics), ("logs", logs), ("Events", told)] {
        ensure!(!text.contains(canary), "the canary is in the {what}");
    }
    Ok(())
}

#[tokio::test]
async fn no_secret_is_in_what_is_kept() -> Result<()> {
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        with_events(ns, "witness", false, async |events| {
            let canary = format!("canary{}x{}", std::process::id(), ns.name.replace('-', ""));
            let run = ns
                .kubectl
                .run_with_stdin(
                    &[
                        "exec",
                        "-i",
                        "witness",
                        "-c",
                        "app",
                        "--",
                        "env",
                        &format!("NS={}", plain.name),
                        &format!("CANARY={canary}"),
                        "python3",
                        "-",
                    ],
                    PLANTED.as_bytes(),
                )
                .await?
                .ok()?;
            ensure!(run.text().lines().count() == 12, "{run:?}");
            mark(ns, "witness", "end").await?;
            eventually("the last event is there", async || {
                let seen = events.of(&ns.name).await?;
                let last = |event: &Value| text(event, "/request/path") == "/version?fieldManager=end";
                ensure!(seen.iter().any(last), "{} events", seen.len());
                let reads = |event: &Value| text(event, "/kubernetes/Resource") == "secrets";
                ensure!(seen.iter().any(reads), "none of them is of a secret");
                Ok(())
            })
            .await?;
            let everything = String::from_utf8_lossy(&events.everything().await?).into_owned();
            ensure!(everything.contains("stringData.p"), "no field is named");
            ensure!(!everything.contains(&canary), "the canary is in the events");
            nowhere_else(ns, &canary).await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn under_fail_closed_nothing_is_asked_that_cannot_be_recorded() -> Result<()> {
    beside(&sleeper("target"), async |ns, plain| {
        auditor(plain).await?;
        let grant = grants::events(&ns.name, "tag:nobody", true);
        with_grant(&grant, async || {
            let refused = eventually("requests are refused", async || {
                let run =
                    ns.shell("witness", "kubectl get --raw '/version?fieldManager=before' 2>&1").await?;
                ensure!(run.code != 0, "{run:?}");
                Ok(run.text())
            })
            .await?;
            ensure!(
                refused.contains("asks for a record of every request") && refused.contains(&ns.name),
                "{refused}"
            );
            let run =
                ns.shell("witness", &format!("kubectl -n {} delete pod target 2>&1", plain.name)).await?;
            ensure!(run.code != 0, "{run:?}");
            plain.kubectl.get(&["pod", "target"]).await?;
            let user = format!("system:serviceaccount:{}:default", ns.name);
            let asked = audited(plain, &user).await?;
            ensure!(!asked.iter().any(|entry| text(entry, "/verb") == "delete"), "{asked:?}");
            Ok(())
        })
        .await?;
        with_events(ns, "witness", true, async |events| {
            ns.shell("witness", &format!("kubectl -n {} get pod target -o name", plain.name)).await?.ok()?;
            eventually("the request is there before its answer", async || {
                let seen = events.of(&ns.name).await?;
                let of = |stage: &str| {
                    let it = |event: &&Value| {
                        text(event, "/kubernetes/Name") == "target"
                            && text(event, "/podwitness/stage") == stage
                    };
                    seen.iter().find(it).map(|event| text(event, "/podwitness/event").to_owned())
                };
                let (requested, complete) = (of("requested").context("not requested")?, of("complete"));
                ensure!(complete == Some(requested), "not complete");
                Ok(())
            })
            .await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_auditors_questions_are_answered_by_duckdb() -> Result<()> {
    let python =
        std::env::var("PODWITNESS_DUCKDB").context("PODWITNESS_DUCKDB names no python with duckdb")?;
    beside(&sleeper("target"), async |ns, plain| {
        with_events(ns, "witness", false, async |events| {
            ns.shell("witness", &format!("kubectl -n {0} get secrets; kubectl -n {0} exec target -- true; kubectl -n {0} get pod nothing", plain.name)).await?;
            mark(ns, "witness", "end").await?;
            eventually("the last event is there", async || {
                let seen = events.of(&ns.name).await?;
                ensure!(seen.iter().any(|event| text(event, "/request/path") == "/version?fieldManager=end"), "{}", seen.len());
                Ok(())
            })
            .await?;
            let folder = std::env::temp_dir().join(format!("podwitness-events-{}", std::process::id()));
            events.save(&folder)?;
            let asked = Command::new(python)
                .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/ask_duckdb.py"))
                .args([concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md"), &folder.to_string_lossy(), &ns.name])
                .output()?;
            std::fs::remove_dir_all(&folder)?;
            let (said, wrong) = (String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr));
            ensure!(asked.status.success(), "{said}{wrong}");
            Ok(())
        })
        .await
    })
    .await
}

/// Asks for the version with curl, which speaks either version of HTTP, with this option.
fn curl(option: &str, word: &str) -> String {
    format!(
        "here=/var/run/secrets/kubernetes.io/serviceaccount; curl -sf {option} --cacert $here/ca.crt \
         -H \"Authorization: Bearer $(cat $here/token)\" 'https://kubernetes.default.svc/version?fieldManager={word}'"
    )
}

#[tokio::test]
async fn every_client_has_its_events() -> Result<()> {
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        with_events(ns, "witness", false, async |events| {
            let exec =
                |client: &str, word: &str| format!("{client} -n {} exec target -- echo {word}", plain.name);
            for script in [
                exec("kubectl", "kubectl"),
                exec("kubectl-bookworm", "old"),
                exec("client-go -over ws", "go-websocket"),
                exec("client-go -over spdy", "go-spdy"),
                exec("python-client", "python"),
                exec("kube-rs", "rust"),
                curl("--http1.1", "http1"),
                curl("--http2", "http2"),
            ] {
                ns.shell("witness", &script).await?.ok().with_context(|| script)?;
            }
            eventually("every client has its events", async || {
                let seen = events.of(&ns.name).await?;
                for word in ["kubectl", "old", "go-websocket", "go-spdy", "python", "rust"] {
                    let of = |event: &&Value| text(event, "/request/queryParameters/command/1") == word;
                    let stages: Vec<_> =
                        seen.iter().filter(of).map(|event| text(event, "/podwitness/stage")).collect();
                    ensure!(stages == ["started", "complete"], "{word}: {stages:?}");
                }
                for word in ["http1", "http2"] {
                    let of = |event: &&Value| text(event, "/request/queryParameters/fieldManager/0") == word;
                    let event = seen.iter().find(of).with_context(|| format!("no event of {word}"))?;
                    ensure!(text(event, "/userAgent").starts_with("curl/"), "{event}");
                }
                Ok(())
            })
            .await
        })
        .await
    })
    .await
}

/// Opens watches of which the last is never read, lets somebody else ask, and leaves.
const WATCHES: &str = r#"
import http.client, os, ssl, subprocess, sys
here = "/var/run/secrets/kubernetes.io/serviceaccount"
token = open(here + "/token").read()
context = ssl.create_default_context(cafile=here + "/ca.crt")
ns, count = os.environ["NS"], int(os.environ["COUNT"])
watches = []
for n in range(count):
    connection = http.client.HTTPSConnection("kubernetes.default.svc", 443, context=context)
    connection.request("GET", f"/api/v1/namespaces/{ns}/configmaps?watch=true&fieldManager=many", headers={"Authorization": "Bearer " + token})
    watches.append(connection.getresponse())
    assert watches[-1].status == 200, watches[-1].status
unread = http.client.HTTPSConnection("kubernetes.default.svc", 443, context=context)
unread.request("GET", "/openapi/v2", headers={"Authorization": "Bearer " + token})
for n in range(3):
    subprocess.run(["kubectl", "-n", ns, "create", "configmap", f"c{n}"], check=True)
    for watch in watches:
        assert b'"ADDED"' in watch.readline() or n == 0
"#;

#[tokio::test]
async fn many_watches_have_their_events_and_hold_nobody_up() -> Result<()> {
    const COUNT: usize = 300;
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        with_events(ns, "witness", false, async |events| {
            let (of, count) = (format!("NS={}", plain.name), format!("COUNT={COUNT}"));
            let args = ["exec", "-i", "witness", "-c", "app", "--", "env", &of, &count, "python3", "-"];
            ns.kubectl.run_with_stdin(&args, WATCHES.as_bytes()).await?.ok()?;
            eventually("every watch has its end", async || {
                let seen = events.of(&ns.name).await?;
                let many = |event: &&Value| text(event, "/request/queryParameters/fieldManager/0") == "many";
                let stage = |stage: &str| {
                    seen.iter().filter(many).filter(|event| text(event, "/podwitness/stage") == stage).count()
                };
                let (started, complete) = (stage("started"), stage("complete"));
                ensure!((started, complete) == (COUNT, COUNT), "{started} started, {complete} complete");
                Ok(())
            })
            .await
        })
        .await
    })
    .await
}
