//! Containers of one pod that keep their sidecar busy, each in a way of its own, do not hold up the others: they share
//! its credential, and with it the sidecar's connections to the API server.

use anyhow::{Context as _, Result, ensure};
use podwitness_core::labels;
use podwitness_e2e::{
    Events, Namespace, Run,
    events::{text, with_events},
    eventually,
    pods::{clients, sleeper, witnessed_by},
    schedule::{Class, enter},
};
use serde_json::{Value, json};

/// Watches that one container has open.
const COUNT: usize = 500;

/// Asks with the pod's own token, on a connection of its own unless told otherwise. A watch that the API server gives up,
/// as a busy one may with an event that says so, is begun again.
const ASKING: &str = r#"
import http.client, os, ssl, subprocess, threading
here = "/var/run/secrets/kubernetes.io/serviceaccount"
token = open(here + "/token").read()
context = ssl.create_default_context(cafile=here + "/ca.crt")
ns = os.environ["NS"]
maps = f"/api/v1/namespaces/{ns}/configmaps"
def connect():
    return http.client.HTTPSConnection("kubernetes.default.svc", 443, context=context)
def ask(path, bearer=token, connection=None):
    connection = connection or connect()
    connection.request("GET", path, headers={"Authorization": "Bearer " + bearer})
    return connection.getresponse()
def watch(who):
    answer = ask(f"{maps}?watch=true&fieldManager={who}")
    assert answer.status == 200, answer.status
    return answer
def sees_last(watch):
    while b'"name":"last"' not in (line := watch.readline()):
        assert line, "the watch ended"
        if b'"type":"ERROR"' in line:
            return False
    return True
def until_last(one, who):
    began = 1
    while not sees_last(one):
        one, began = watch(who), began + 1
    return began
"#;

/// Has many watches open, each of which sees what is made at the end. Says how many it has begun.
const MANY: &str = r#"
print(sum(until_last(one, "many") for one in [watch("many") for n in range(int(os.environ["COUNT"]))]))
"#;

/// Never reads answers that are larger than all windows and buffers, in either version of HTTP.
const UNREAD: &str = r#"
unread = [ask("/openapi/v2") for n in range(20)]
assert all(answer.status == 200 for answer in unread)
curl = ["curl", "-s", "--http2", "--cacert", here + "/ca.crt", "-H", "Authorization: Bearer " + token]
curls = [subprocess.Popen(curl + ["https://kubernetes.default.svc/openapi/v2"], stdout=subprocess.PIPE) for n in range(5)]
until_last(watch("unread"), "unread")
for one in curls:
    assert one.poll() is None, "an answer that nobody reads came to its end"
    one.kill()
"#;

/// Asks with a token that is no longer good, and in between, on the same connection, with one that is.
const STALE: &str = r#"
over, asked = threading.Event(), 0
def wait(one):
    until_last(one, "waits")
    over.set()
threading.Thread(target=wait, args=(watch("waits"),)).start()
while asked < 20 or not over.wait(0.05):
    connection = connect()
    for bearer, status in ((os.environ["GONE"], 401), (token, 200)):
        answer = ask(maps + "?fieldManager=stale", bearer, connection)
        assert answer.status == status, (answer.status, status)
        answer.read()
    asked += 1
print(asked)
"#;

/// A pod with a container for each of them beside `app`.
fn crowd() -> Result<Value> {
    let mut pod = clients("witness");
    // Hundreds of watches take more than the least that a sidecar is given.
    let metadata = pod.pointer_mut("/metadata").and_then(Value::as_object_mut).context("no metadata")?;
    metadata.insert("annotations".to_owned(), json!({labels::MEMORY_LIMIT: "256Mi"}));
    let all = pod.pointer_mut("/spec/containers").and_then(Value::as_array_mut).context("no containers")?;
    let app = all.first().context("no container")?.clone();
    for name in ["many", "unread", "stale"] {
        let mut more = app.clone();
        *more.get_mut("name").context("no name")? = name.into();
        all.push(more);
    }
    Ok(pod)
}

/// A token of a service account that is no more.
async fn stale_token(ns: &Namespace) -> Result<String> {
    ns.kubectl.run(&["create", "serviceaccount", "gone"]).await?.ok()?;
    let token = ns.kubectl.run(&["create", "token", "gone"]).await?.ok()?.text();
    ns.kubectl.run(&["delete", "serviceaccount", "gone"]).await?.ok()?;
    Ok(token.trim().to_owned())
}

/// How many events of requests that were marked with `who` have this stage and code.
fn count(seen: &[Value], who: &str, stage: &str, code: u16) -> usize {
    let is = |event: &&Value| {
        text(event, "/request/queryParameters/fieldManager/0") == who
            && text(event, "/podwitness/stage") == stage
            && event.pointer("/podwitness/answer/code") == Some(&code.into())
    };
    seen.iter().filter(is).count()
}

/// What the container `app` does once the others are at it.
async fn work(ns: &Namespace, plain: &Namespace, events: &mut Events) -> Result<()> {
    eventually("the others are busy", async || {
        let seen = events.of(&ns.name).await?;
        let (many, unread) = (count(&seen, "many", "started", 200), count(&seen, "unread", "started", 200));
        let stale = count(&seen, "stale", "complete", 401);
        ensure!(many >= COUNT && unread > 0 && stale > 0, "{many} watches, {unread} unread, {stale} stale");
        Ok(())
    })
    .await?;
    let kubectl = format!("kubectl -n {}", plain.name);
    for n in 0..3 {
        ns.shell("witness", &format!("{kubectl} create configmap c{n}")).await?.ok()?;
        let run = ns.shell("witness", &format!("{kubectl} get configmap c{n} -o name")).await?.ok()?;
        ensure!(run.text() == format!("configmap/c{n}\n"), "{run:?}");
        let run = ns.shell("witness", &format!("{kubectl} exec target -- echo hello {n}")).await?.ok()?;
        ensure!(run.text() == format!("hello {n}\n"), "{run:?}");
    }
    ns.shell("witness", &format!("{kubectl} create configmap last")).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn a_busy_container_holds_none_of_the_others_up() -> Result<()> {
    enter(Class::Long).await;
    witnessed_by(&crowd()?, &sleeper("target"), async |ns, plain| {
        let gone = format!("GONE={}", stale_token(plain).await?);
        let (of, many) = (format!("NS={}", plain.name), format!("COUNT={COUNT}"));
        with_events(ns, "witness", false, async |events| {
            let python = async |container: &str, script: &str| -> Result<Run> {
                let args = [
                    "exec", "-i", "witness", "-c", container, "--", "env", &of, &many, &gone, "python3", "-",
                ];
                let run = ns.kubectl.run_with_stdin(&args, format!("{ASKING}{script}").as_bytes()).await?;
                run.ok().context(container.to_owned())
            };
            let (many, _, stale, ()) = tokio::try_join!(
                python("many", MANY),
                python("unread", UNREAD),
                python("stale", STALE),
                work(ns, plain, events)
            )?;
            let (begun, asked): (usize, usize) = (many.text().trim().parse()?, stale.text().trim().parse()?);
            eventually("every request has its events", async || {
                let seen = events.of(&ns.name).await?;
                let (started, ended) =
                    (count(&seen, "many", "started", 200), count(&seen, "many", "complete", 200));
                ensure!(
                    (started, ended) == (begun, begun),
                    "{begun} watches: {started} began, {ended} ended"
                );
                let (bad, good) =
                    (count(&seen, "stale", "complete", 401), count(&seen, "stale", "complete", 200));
                ensure!((bad, good) == (asked, asked), "{asked} times: {bad} were denied, {good} answered");
                Ok(())
            })
            .await
        })
        .await
    })
    .await
}
