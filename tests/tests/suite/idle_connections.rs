//! Clients that leak their connections, and those that bring a credential for each of many users, are served as by the API
//! server itself.

use anyhow::{Context as _, Result, ensure};
use podwitness_core::labels;
use podwitness_e2e::{
    Namespace, eventually,
    pods::clients,
    schedule::{Class, enter},
};
use serde_json::{Value, json};

/// Asks once on each of so many connections, keeps them all, and tells when the last one was ended.
const LEAK: &str = r#"
import http.client, resource, select, ssl, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536) if most > 0 else 65536,) * 2)
here = "/var/run/secrets/kubernetes.io/serviceaccount"
context = ssl.create_default_context(cafile=here + "/ca.crt")
leaked = {}
for number in range(int(sys.argv[1])):
    connection = http.client.HTTPSConnection("kubernetes.default.svc", 443, context=context, timeout=60)
    connection.request("GET", "/version")
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    answer.read()
    leaked[connection.sock.fileno()] = connection
print("leaked", len(leaked), flush=True)
poll = select.poll()
for number in leaked:
    poll.register(number, select.POLLIN)
while leaked:
    for number, _ in poll.poll():
        poll.unregister(number)
        leaked.pop(number).close()
print("ended", flush=True)
"#;

/// Asks with so many credentials, one after the other and on one connection.
const MANY: &str = r#"
import http.client, json, os, ssl, sys
here = "/var/run/secrets/kubernetes.io/serviceaccount"
token, ns = open(here + "/token").read(), open(here + "/namespace").read()
context = ssl.create_default_context(cafile=here + "/ca.crt")
connection = http.client.HTTPSConnection("kubernetes.default.svc", 443, context=context, timeout=60)
def ask(method, path, bearer, body=None):
    headers = {"Authorization": "Bearer " + bearer, "Content-Type": "application/json"}
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()
wanted = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}})
tokens = []
for number in range(int(sys.argv[1])):
    status, said = ask("POST", f"/api/v1/namespaces/{ns}/serviceaccounts/default/token", token, wanted)
    assert status == 201, (number, status, said)
    tokens.append(json.loads(said)["status"]["token"])
assert len(set(tokens)) == len(tokens)
for number, each in enumerate(tokens):
    status, said = ask("GET", f"/api/v1/namespaces/{ns}/configmaps/kube-root-ca.crt", each)
    assert status == 200, (number, status, said)
print("served", len(tokens))
"#;

/// A pod whose sidecar has as little memory as one may have: 256 places for connections, and 256 connections to the API
/// server.
fn small() -> Result<Value> {
    let mut pod = clients("witness");
    let metadata = pod.pointer_mut("/metadata").and_then(Value::as_object_mut).context("no metadata")?;
    metadata.insert("annotations".into(), json!({labels::MEMORY_LIMIT: "64Mi"}));
    Ok(pod)
}

async fn with_small(test: impl AsyncFnOnce(&Namespace) -> Result<()>) -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.allow_all().await?;
        ns.start(&small()?).await?;
        test(ns).await
    })
    .await
}

#[tokio::test]
async fn connections_that_a_client_leaks_are_ended_as_at_the_api_server_and_that_is_said() -> Result<()> {
    enter(Class::Long).await;
    with_small(async |ns| {
        let script = LEAK.replace('\'', "\"");
        let start = format!("nohup python3 -c '{script}' 400 >/tmp/leak 2>&1 &");
        ns.shell("witness", &start).await?.ok()?;
        let says = async |what: &str, word: &str| {
            eventually(what, async || {
                let said = ns.shell("witness", "cat /tmp/leak").await?.ok()?.text();
                ensure!(said.contains(word), "{said:?}");
                Ok(())
            })
            .await
        };
        says("four hundred connections are leaked", "leaked 400").await?;
        let run = ns.shell("witness", "kubectl get configmap kube-root-ca.crt -o name").await?.ok()?;
        ensure!(run.text() == "configmap/kube-root-ca.crt\n", "{run:?}");
        eventually("the pod has an Event", async || {
            let events = ns.kubectl.get(&["events", "--field-selector=involvedObject.name=witness"]).await?;
            let items = events.get("items").and_then(Value::as_array).context("no list")?;
            let is = |event: &Value| event.get("reason") == Some(&json!("ConnectionsExhausted"));
            ensure!(items.iter().any(is), "{items:?}");
            Ok(())
        })
        .await?;
        says("all of them are ended", "ended").await
    })
    .await
}

#[tokio::test]
async fn as_many_credentials_as_there_are_users_are_served_one_after_the_other() -> Result<()> {
    enter(Class::Long).await;
    with_small(async |ns| {
        let script = MANY.replace('\'', "\"");
        let run = ns.shell("witness", &format!("python3 -c '{script}' 300")).await?.ok()?;
        ensure!(run.text() == "served 300\n", "{run:?}");
        Ok(())
    })
    .await
}
