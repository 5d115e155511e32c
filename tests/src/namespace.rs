//! A temporary namespace, deleted at the end of its test.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use podwitness_core::labels;
use serde_json::{Value, json};

use crate::{Kubectl, SYSTEM, cluster, eventually, report::Report};

/// Where the API has bindings of cluster roles.
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
/// Selects the pods of the installation.
const INSTALLED: &str = "app.kubernetes.io/part-of=podwitness";

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
    /// Runs `test` in a fresh namespace with these labels; deletes it afterwards, and reports what the cluster says
    /// where the test failed.
    ///
    /// # Errors
    /// Those of `test`.
    pub async fn with(labels: &[(&str, &str)], test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let namespace = Self::create(labels).await?;
        let mut result = test(&namespace).await;
        if let Err(error) = result {
            let report = Report::of_this_test();
            let error = report.summary(error);
            namespace.dump(&report).await;
            result = Err(error);
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
        cluster::create("/api/v1/namespaces", &object).await?;
        let namespace = Self { kubectl: Kubectl::with(&["-n", &name]), name };
        let path = namespace.path();
        eventually("the namespace has its service account", async || {
            cluster::get(&format!("{path}/serviceaccounts/default")).await?;
            cluster::get(&format!("{path}/configmaps/kube-root-ca.crt")).await
        })
        .await?;
        Ok(namespace)
    }

    /// Where the API has what is in it.
    pub(crate) fn path(&self) -> String {
        format!("/api/v1/namespaces/{}", self.name)
    }

    /// Lets the namespace's default service account do everything that tests do through kubectl in a pod.
    ///
    /// # Errors
    /// Where the binding cannot be made.
    pub async fn allow_all(&self) -> Result<()> {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": self.name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "namespace": self.name, "name": "default"}]
        });
        cluster::create(BINDINGS, &binding).await.map(drop)
    }

    /// Most tests have no binding; a namespace that stays is told by hack/test.
    async fn delete(&self) {
        let _ = cluster::delete(&format!("{BINDINGS}/{}", self.name)).await;
        let _ = cluster::delete(&self.path()).await;
    }

    async fn dump(&self, report: &Report) {
        let sidecars = ["logs", "-l", "app", "-c", "podwitness", "--tail=60", "--prefix"];
        let installed = ["logs", "-l", INSTALLED, "--all-containers", "--tail=40", "--prefix"];
        let system = Kubectl::with(&["-n", SYSTEM]);
        for (name, kubectl, args) in [
            (self.name.as_str(), &self.kubectl, &["get", "pods,events", "-o", "wide"][..]),
            (&self.name, &self.kubectl, &sidecars),
            (SYSTEM, &system, &["get", "pods", "-o", "wide"]),
            (SYSTEM, &system, &installed),
        ] {
            if let Ok(run) = kubectl.run(args).await {
                let title = format!("{name}: {}", args.join(" "));
                report.add(&title, &format!("{}{}", run.text(), run.stderr));
            }
        }
    }
}
