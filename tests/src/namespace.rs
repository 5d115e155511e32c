//! A temporary namespace, deleted at the end of its test.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use podwitness_core::labels;
use serde_json::{Value, json};

use crate::{Kubectl, SYSTEM, eventually};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A namespace of one test and a kubectl that works in it.
#[derive(Debug)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// `kubectl -n NAME`.
    pub kubectl: Kubectl,
}

impl Namespace {
    /// Runs `test` in a fresh namespace with these labels; deletes it afterwards, and shows what the cluster says
    /// where the test failed.
    ///
    /// # Errors
    /// Those of `test`.
    pub async fn with(labels: &[(&str, &str)], test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let namespace = Self::create(labels).await?;
        let result = test(&namespace).await;
        if result.is_err() {
            namespace.dump().await;
        }
        namespace.delete().await;
        result
    }

    /// The same with `podwitness.dev/inject: required`.
    ///
    /// # Errors
    /// Those of `test`.
    pub async fn witnessed(test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        Self::with(&[(labels::INJECT, "required")], test).await
    }

    /// The same without injection.
    ///
    /// # Errors
    /// Those of `test`.
    pub async fn plain(test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        Self::with(&[], test).await
    }

    async fn create(labels: &[(&str, &str)]) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e-{}-{number}", std::process::id());
        let mut all = json!({"pod-security.kubernetes.io/enforce": "privileged"});
        for (key, value) in labels {
            if let Some(slot) = all.as_object_mut() {
                slot.insert((*key).to_owned(), Value::from(*value));
            }
        }
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": all}});
        Kubectl::default().create(&object, &[]).await?.ok()?;
        let namespace = Self { kubectl: Kubectl::with(&["-n", &name]), name };
        eventually("the namespace has its service account", async || {
            namespace.kubectl.get(&["serviceaccount", "default"]).await?;
            namespace.kubectl.get(&["configmap", "kube-root-ca.crt"]).await
        })
        .await?;
        Ok(namespace)
    }

    /// Lets the namespace's default service account do everything that tests do through kubectl in a pod.
    ///
    /// # Errors
    /// Where the binding cannot be made.
    pub async fn allow_all(&self) -> Result<()> {
        let user = format!("--serviceaccount={}:default", self.name);
        let args = ["create", "clusterrolebinding", &self.name, "--clusterrole=cluster-admin", &user];
        Kubectl::default().run(&args).await?.ok()?;
        Ok(())
    }

    async fn delete(&self) {
        let kubectl = Kubectl::default();
        let _ = kubectl.run(&["delete", "clusterrolebinding", &self.name, "--ignore-not-found"]).await;
        let _ = kubectl.run(&["delete", "namespace", &self.name, "--wait=false"]).await;
    }

    async fn dump(&self) {
        self.show(&["get", "pods,events", "-o", "wide"]).await;
        self.show(&["logs", "-l", "app", "-c", "podwitness", "--tail=60", "--prefix"]).await;
        let system = Kubectl::with(&["-n", SYSTEM]);
        for args in [
            &["get", "pods", "-o", "wide"][..],
            &[
                "logs",
                "-l",
                "app.kubernetes.io/part-of=podwitness",
                "--all-containers",
                "--tail=40",
                "--prefix",
            ],
        ] {
            if let Ok(run) = system.run(args).await {
                println!("--- {SYSTEM}: {}\n{}{}", args.join(" "), run.text(), run.stderr);
            }
        }
    }

    async fn show(&self, args: &[&str]) {
        if let Ok(run) = self.kubectl.run(args).await {
            println!("--- {}: {}\n{}{}", self.name, args.join(" "), run.text(), run.stderr);
        }
    }
}
