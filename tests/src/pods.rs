//! Pods that tests start, and what they look like once admitted.

use anyhow::{Context, Result, ensure};
use podwitness_core::inject;
use serde_json::{Value, json};

use crate::{CLIENTS, CLIENTS_JAVA, Kubectl, Namespace, Run, SYSTEM, TOOLBOX, cluster, eventually};

/// Sleeps until it is told to end, without work meanwhile.
const SLEEP: &str = "trap exit TERM; sleep 1000000 & wait";

/// A toolbox pod that sleeps.
#[must_use]
pub fn sleeper(name: &str) -> Value {
    sleeping(name, TOOLBOX)
}

fn sleeping(name: &str, image: &str) -> Value {
    running(name, image, SLEEP)
}

/// A pod that runs a shell script.
#[must_use]
pub fn running(name: &str, image: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "app", "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", script]
            }]
        }
    })
}

/// A pod with other people's clients that sleeps.
#[must_use]
pub fn clients(name: &str) -> Value {
    sleeping(name, CLIENTS)
}

/// A pod with the client that runs in a Java runtime, that sleeps.
#[must_use]
pub fn clients_java(name: &str) -> Value {
    sleeping(name, CLIENTS_JAVA)
}

/// The sidecar in a pod, if it has one.
#[must_use]
pub fn sidecar(pod: &Value) -> Option<&Value> {
    let containers = pod.pointer("/spec/initContainers")?.as_array()?;
    containers.iter().find(|container| container.get("name") == Some(&Value::from(inject::CONTAINER)))
}

impl Namespace {
    /// Creates a pod and waits until every container of it is ready.
    ///
    /// # Errors
    /// Where it is refused or does not become ready.
    pub async fn start(&self, pod: &Value) -> Result<Value> {
        cluster::create(&format!("{}/pods", self.path()), pod).await?;
        let name = pod.pointer("/metadata/name").and_then(Value::as_str).context("the pod has no name")?;
        self.ready(name).await
    }

    /// Waits until a pod is ready.
    ///
    /// # Errors
    /// Where it does not become so.
    pub async fn ready(&self, name: &str) -> Result<Value> {
        eventually(&format!("pod {name} is ready"), async || {
            let pod = cluster::get(&format!("{}/pods/{name}", self.path())).await?;
            let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned();
            let ready = conditions.unwrap_or_default().iter().any(|c| {
                c.get("type") == Some(&Value::from("Ready")) && c.get("status") == Some(&Value::from("True"))
            });
            ensure!(ready, "its status is {}", pod.get("status").unwrap_or(&Value::Null));
            Ok(pod)
        })
        .await
    }

    /// Runs a shell command in container `app` of a pod, from outside.
    ///
    /// # Errors
    /// Where it cannot be started or the connection is lost.
    pub async fn shell(&self, pod: &str, script: &str) -> Result<Run> {
        cluster::exec(&self.name, pod, "app", &["sh", "-c", script]).await
    }

    /// Reasons of the Events of a pod.
    ///
    /// # Errors
    /// Where they cannot be listed.
    pub async fn event_reasons(&self, pod: &str) -> Result<Vec<String>> {
        let field = format!("--field-selector=involvedObject.name={pod}");
        let events = self.kubectl.get(&["events", &field]).await?;
        let items = events.get("items").and_then(Value::as_array).context("no list")?;
        let reasons = items.iter().filter_map(|event| event.get("reason")?.as_str());
        Ok(reasons.map(ToOwned::to_owned).collect())
    }

    /// A kubectl that runs inside a pod of this namespace: `kubectl exec POD -- kubectl …`.
    #[must_use]
    pub fn inside(&self, pod: &str) -> Kubectl {
        Kubectl::with(&["-n", &self.name, "exec", "-i", pod, "-c", "app", "--", "kubectl"])
    }
}

/// Runs `test` with a witnessed namespace that has a pod `witness`, which may do everything, and a plain one that has
/// this pod.
///
/// # Errors
/// Those of `test`, and where a pod does not start.
pub async fn beside(pod: &Value, test: impl AsyncFnOnce(&Namespace, &Namespace) -> Result<()>) -> Result<()> {
    witnessed_by(&sleeper("witness"), pod, test).await
}

/// The same with another pod in the witnessed namespace.
///
/// # Errors
/// As [`beside`].
pub async fn witnessed_by(
    witness: &Value,
    pod: &Value,
    test: impl AsyncFnOnce(&Namespace, &Namespace) -> Result<()>,
) -> Result<()> {
    Namespace::plain(async |plain| {
        plain.start(pod).await?;
        Namespace::witnessed(async |ns| {
            ns.allow_all().await?;
            ns.start(witness).await?;
            test(ns, plain).await
        })
        .await
    })
    .await
}

/// The pods of the installation, as `pod/NAME`. Recorders of other tests come and go meanwhile.
///
/// # Errors
/// Where there are fewer than an installation has.
pub async fn installed() -> Result<Vec<String>> {
    let selected =
        format!("/api/v1/namespaces/{SYSTEM}/pods?labelSelector=app.kubernetes.io%2Fpart-of%3Dpodwitness");
    let pods = cluster::get(&selected).await?;
    let pods = pods.get("items").and_then(Value::as_array).context("no list of pods")?;
    let names = pods.iter().filter_map(|pod| pod.pointer("/metadata/name")?.as_str());
    let names: Vec<_> =
        names.filter(|name| name.starts_with("podwitness-")).map(|name| format!("pod/{name}")).collect();
    ensure!(names.len() >= 3, "{names:?}");
    Ok(names)
}

/// The same pod on the control plane node, where the API server answers on every address of the node.
///
/// # Errors
/// Where there is no such node.
pub async fn on_control_plane(mut pod: Value) -> Result<Value> {
    let nodes = Kubectl::default().get(&["nodes", "-l", "node-role.kubernetes.io/control-plane"]).await?;
    let node = nodes.pointer("/items/0/metadata/name").context("no control plane node")?;
    let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
    spec.insert("nodeName".into(), node.clone());
    spec.insert("tolerations".into(), json!([{"operator": "Exists"}]));
    Ok(pod)
}

/// A pod that sees every process of the node on which another one runs, and may end it.
///
/// # Errors
/// Where the other is on no node.
pub fn overseer(name: &str, of: &Value) -> Result<Value> {
    let node = of.pointer("/spec/nodeName").context("the pod is on no node")?;
    let mut pod = sleeper(name);
    let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
    spec.extend([("nodeName".into(), node.clone()), ("hostPID".into(), true.into())]);
    spec.insert("tolerations".into(), json!([{"operator": "Exists"}]));
    let app = spec.get_mut("containers").and_then(|all| all.get_mut(0)).and_then(Value::as_object_mut);
    app.context("no container")?.insert("securityContext".into(), json!({"privileged": true}));
    Ok(pod)
}
