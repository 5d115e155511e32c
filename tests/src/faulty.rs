//! Recorders of one test, beside the one that is installed: those that go wrong on command (`tests/faulty`), and real
//! ones whose volume is small. Their Deployments are that of the installed recorder, changed where they differ.

use anyhow::{Context, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};

use crate::{Forward, Kubectl, SYSTEM, Viewer, eventually};

/// Port on the pod's loopback where the fault is chosen.
const COMMAND_PORT: u16 = 8082;
const INSTALLED: &str = "podwitness-recorder";
/// Tag of the installed recorder.
pub const INSTALLED_TAG: &str = "tag:podwitness";

/// What kind of recorder it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// One that goes wrong on command.
    Faulty,
    /// A real one that has 256 KiB to fill. What has to stay free is as much as it ever writes at once, so that a
    /// volume on which that has failed counts as full.
    Small,
}

/// A recorder of a test.
#[derive(Debug)]
pub struct TestRecorder {
    name: String,
    /// Tag by which grants name it.
    pub tag: String,
    /// What it has stored.
    pub viewer: Viewer,
    command: Option<Forward>,
}

impl TestRecorder {
    /// Runs `test` with a recorder of this name, and takes it away afterwards.
    ///
    /// # Errors
    /// Those of `test`, and where the recorder does not become ready.
    pub async fn with(name: &str, kind: Kind, test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let result = async {
            let recorder = Self::deploy(name, kind).await?;
            test(&recorder).await
        };
        let result = result.await;
        if result.is_err() {
            let args = ["logs", &format!("deployment/{name}"), "--all-containers", "--tail=60", "--prefix"];
            if let Ok(run) = system().run(&args).await {
                println!("--- recorder {name}:\n{}{}", run.text(), run.stderr);
            }
        }
        for object in ["deployment", "recorder"] {
            let args = ["delete", object, name, "--ignore-not-found", "--wait=false"];
            let _ = system().run(&args).await;
        }
        result
    }

    async fn deploy(name: &str, kind: Kind) -> Result<Self> {
        let tag = format!("tag:{name}");
        let recorder = json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder",
            "metadata": {"name": name}, "spec": {"tags": [&tag]}});
        system().create(&recorder, &[]).await?.ok()?;
        let installed = system().get(&["deployment", INSTALLED]).await?;
        system().create(&deployment(&installed, name, kind)?, &[]).await?.ok()?;
        eventually("the recorder of the test is ready", async || {
            let recorder = system().get(&["recorder", name]).await?;
            let conditions = recorder.pointer("/status/conditions").cloned().unwrap_or_default();
            let ready = |condition: &Value| {
                condition.get("type") == Some(&json!("Ready"))
                    && condition.get("status") == Some(&json!("True"))
            };
            ensure!(conditions.as_array().is_some_and(|all| all.iter().any(ready)), "{conditions}");
            Ok(())
        })
        .await?;
        let viewer = Viewer::of(name).await?;
        let command = match kind {
            Kind::Faulty => Some(Forward::open(&format!("deployment/{name}"), COMMAND_PORT).await?),
            Kind::Small => None,
        };
        Ok(Self { name: name.to_owned(), tag, viewer, command })
    }

    /// Lets this go wrong from now on; `"none"` heals it.
    ///
    /// # Errors
    /// Where it is no fault, or this recorder has none.
    pub async fn set(&self, fault: &Value) -> Result<()> {
        let command = self.command.as_ref().context("a real recorder is not told what to do wrong")?;
        command.ask(Method::PUT, "/fault", fault.to_string()).await.map(drop)
    }

    /// Runs `test` while no grant can name it.
    ///
    /// # Errors
    /// Those of `test`.
    pub async fn unnamed(&self, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        retagged(&self.name, &[&self.tag], &["tag:nobody"], test).await
    }

    /// Runs `test` while the installed recorder stands in for it, too.
    ///
    /// # Errors
    /// Those of `test`.
    pub async fn with_stand_in(&self, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        retagged("podwitness", &[INSTALLED_TAG], &[INSTALLED_TAG, &self.tag], test).await
    }
}

/// Runs `test` while a `Recorder` has tags that it otherwise has not.
async fn retagged(
    recorder: &str,
    usual: &[&str],
    tags: &[&str],
    test: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    tag(recorder, tags).await?;
    let result = test().await;
    tag(recorder, usual).await?;
    result
}

async fn tag(recorder: &str, tags: &[&str]) -> Result<()> {
    let patch = json!({"spec": {"tags": tags}}).to_string();
    system().run(&["patch", "recorder", recorder, "--type=merge", "-p", &patch]).await?.ok().map(drop)
}

fn system() -> Kubectl {
    Kubectl::with(&["-n", SYSTEM])
}

/// The Deployment of a recorder of this name, made of the installed one.
fn deployment(installed: &Value, name: &str, kind: Kind) -> Result<Value> {
    let mut spec = installed.get("spec").context("no spec")?.clone();
    *at(&mut spec, "/selector/matchLabels")? = json!({"app.kubernetes.io/name": name});
    *at(&mut spec, "/template/metadata/labels/app.kubernetes.io~1name")? = name.into();
    *at(&mut spec, "/template/metadata/labels/podwitness.dev~1recorder")? = name.into();
    *at(&mut spec, "/template/spec/terminationGracePeriodSeconds")? = 1.into();
    let container = named(&mut spec, "/template/spec/containers", "ingest")?;
    match kind {
        Kind::Faulty => {
            *at(container, "/image")? = "podwitness.dev/faulty-recorder:dev".into();
            *at(container, "/args")? = json!([]);
        }
        Kind::Small => {
            let env = at(container, "/env")?.as_array_mut().context("env is no list")?;
            env.push(json!({"name": "PODWITNESS_FREE_SPACE", "value": "1Mi"}));
            let volume = named(&mut spec, "/template/spec/volumes", "recordings")?;
            *volume = json!({"name": "recordings", "emptyDir": {"medium": "Memory", "sizeLimit": "1280Ki"}});
        }
    }
    Ok(json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec,
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "podwitness"}}}))
}

fn at<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Value> {
    value.pointer_mut(pointer).with_context(|| format!("the installed recorder has no {pointer}"))
}

/// The object of this name in a list.
fn named<'a>(value: &'a mut Value, pointer: &str, name: &str) -> Result<&'a mut Value> {
    let list = at(value, pointer)?.as_array_mut().context("it is no list")?;
    let found = list.iter_mut().find(|entry| entry.get("name") == Some(&json!(name)));
    found.with_context(|| format!("nothing in {pointer} is called {name}"))
}
