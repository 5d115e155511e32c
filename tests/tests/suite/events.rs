//! API events: the cluster's own audit log and ours tell the same story, and what has to be recorded first is not done
//! otherwise.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    events::{audited, auditor, has_requests, has_session, mark, text, with_events},
    eventually,
    grants::{self, with_grant},
    pods::{beside, clients, sleeper, witnessed_by},
    schedule::{Class, enter},
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
    enter(Class::Long).await;
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

/// Those of the image that know sessions, with a word that tells one from another.
const EVERY_CLIENT: [(&str, &str); 7] = [
    ("kubectl", "kubectl"),
    ("kubectl-bookworm", "old"),
    ("client-go -over ws", "go-websocket"),
    ("client-go -over spdy", "go-spdy"),
    ("python-client", "python"),
    ("js-client", "javascript"),
    ("kube-rs", "rust"),
];

/// Those that are programs of ours around a library.
const EVERY_PROGRAM: [&str; 4] = ["client-go", "python-client", "js-client", "kube-rs"];

#[tokio::test]
async fn every_client_has_its_events() -> Result<()> {
    enter(Class::Long).await;
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        with_events(ns, "witness", false, async |events| {
            for (client, word) in EVERY_CLIENT {
                let script = format!("{client} -n {} exec target -- echo {word}", plain.name);
                ns.shell("witness", &script).await?.ok().with_context(|| script)?;
            }
            for client in EVERY_PROGRAM {
                let script = format!("{client} -n {} requests {client}", plain.name);
                let run = ns.shell("witness", &script).await?.ok()?;
                ensure!(run.text() == "created\nlisted\nwatched\ndeleted\n", "{client}: {run:?}");
            }
            for script in [curl("--http1.1", "http1"), curl("--http2", "http2")] {
                ns.shell("witness", &script).await?.ok().with_context(|| script)?;
            }
            eventually("every client has its events", async || {
                let seen = events.of(&ns.name).await?;
                EVERY_CLIENT.iter().try_for_each(|(_, word)| has_session(&seen, word))?;
                EVERY_PROGRAM.iter().try_for_each(|name| has_requests(&seen, name))?;
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
