//! Recorders of one test, beside the one that is installed: those that go wrong on command (`tests/faulty`), and real
//! ones whose volume is small. Each is a `Recorder` of its own, whose pods the control plane makes.

use anyhow::{Context as _, Result};
use hyper::Method;
use serde_json::{Value, json};

use crate::{Forward, Kubectl, SYSTEM, Viewer, recorders};

/// Port on the pod's loopback where the fault is chosen.
const COMMAND_PORT: u16 = 8082;
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
            let args = ["logs", &format!("statefulset/{name}"), "--all-containers", "--tail=60", "--prefix"];
            if let Ok(run) = system().run(&args).await {
                println!("--- recorder {name}:\n{}{}", run.text(), run.stderr);
            }
        }
        let args = ["delete", "recorder", name, "--ignore-not-found", "--wait=false"];
        let _ = system().run(&args).await;
        result
    }

    async fn deploy(name: &str, kind: Kind) -> Result<Self> {
        let tag = format!("tag:{name}");
        system().create(&recorder(name, &tag, kind), &[]).await?.ok()?;
        recorders::condition(name, "Ready", "True").await?;
        let viewer = Viewer::of(name).await?;
        let command = match kind {
            Kind::Faulty => Some(Forward::open(&format!("statefulset/{name}"), COMMAND_PORT).await?),
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

/// A recorder of this name.
fn recorder(name: &str, tag: &str, kind: Kind) -> Value {
    let container = match kind {
        Kind::Faulty => json!({"image": "podwitness.dev/faulty-recorder:dev"}),
        Kind::Small => json!({"env": [{"name": "PODWITNESS_FREE_SPACE", "value": "1Mi"}]}),
    };
    let storage = match kind {
        Kind::Faulty => json!({}),
        Kind::Small => json!({"filesystem": {"emptyDir": {"medium": "Memory", "sizeLimit": "1280Ki"}}}),
    };
    let spec = json!({"tags": [tag], "enableUI": true, "storage": storage,
        "statefulSet": {"pod": {"container": container}}});
    json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "metadata": {"name": name}, "spec": spec})
}
