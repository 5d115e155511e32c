//! Recorders of one test, beside the one that is installed: those that go wrong on command (`tests/faulty`), and real
//! ones whose volume is small. Each is a `Recorder` of its own, whose pods the control plane makes.

use anyhow::{Context as _, Result};
use hyper::Method;
use serde_json::{Value, json};

use crate::{Forward, Viewer, recorders};

/// Port on the pod's loopback where the fault is chosen.
const COMMAND_PORT: u16 = 8090;
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
        recorders::with_recorders(&[(name, spec(kind))], async || {
            let recorder = Self::of(name, kind).await?;
            test(&recorder).await
        })
        .await
    }

    async fn of(name: &str, kind: Kind) -> Result<Self> {
        let viewer = Viewer::of(name).await?;
        let command = match kind {
            Kind::Faulty => Some(Forward::open(&format!("statefulset/{name}"), COMMAND_PORT).await?),
            Kind::Small => None,
        };
        Ok(Self { name: name.to_owned(), tag: recorders::tag(name), viewer, command })
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
    recorders::change(recorder, &json!({"tags": tags})).await
}

fn spec(kind: Kind) -> Value {
    let container = match kind {
        Kind::Faulty => json!({"image": "podwitness.dev/faulty-recorder:dev"}),
        // So small that shares of it would be none.
        Kind::Small => json!({"env": [
            {"name": "PODWITNESS_FREE_SPACE", "value": "1Mi"}, {"name": "PODWITNESS_SHARES", "value": "false"},
        ]}),
    };
    let storage = match kind {
        Kind::Faulty => json!({}),
        Kind::Small => json!({"filesystem": {"emptyDir": {"medium": "Memory", "sizeLimit": "1280Ki"}}}),
    };
    json!({"enableUI": true, "storage": storage, "statefulSet": {"pod": {"container": container}}})
}
