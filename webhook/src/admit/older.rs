//! Pods that were there before their namespace was labelled: they have no sidecar until they are recreated.

use std::time::Duration;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::ListParams};
use podwitness_core::labels;
use tokio::time::timeout;

use super::{decide::MIRROR, namespaces::Namespace};

/// Pods that are looked at.
const MAX_PODS: u32 = 500;
/// The webhook has 3 s.
const LIMIT: Duration = Duration::from_millis(1500);
/// Pods that still run something.
const RUNNING: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// Owners that replace their pods on `kubectl rollout restart`, and the resource that is restarted.
const RESTARTED: [(&str, &str); 3] =
    [("ReplicaSet", "deployment"), ("StatefulSet", "statefulset"), ("DaemonSet", "daemonset")];

/// What pods without a sidecar there are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct OlderPods {
    /// How many.
    count: usize,
    /// Whether there may be more.
    is_partial: bool,
    /// Resources whose `kubectl rollout restart` replaces them.
    restart: Vec<&'static str>,
    /// How many of them no restart replaces.
    others: usize,
}

/// Asks for the pods of a namespace that have no sidecar; `None` where the API server does not say.
pub(super) async fn find(client: &Client, name: &str, namespace: &Namespace) -> Option<OlderPods> {
    let api: Api<Pod> = Api::namespaced(client.clone(), name);
    let params = ListParams::default().fields(RUNNING).limit(MAX_PODS);
    match timeout(LIMIT, api.list_metadata(&params)).await {
        Ok(Ok(list)) => {
            let is_partial = list.metadata.continue_.is_some_and(|token| !token.is_empty());
            let found = list.items.iter().map(|pod| &pod.metadata);
            Some(OlderPods { is_partial, ..OlderPods::of(found, namespace) })
        }
        Ok(Err(error)) => {
            tracing::info!(namespace = name, %error, "cannot count the pods of a namespace");
            None
        }
        Err(_) => None,
    }
}

impl OlderPods {
    fn of<'a>(pods: impl Iterator<Item = &'a ObjectMeta>, namespace: &Namespace) -> Self {
        let mut found = Self::default();
        for pod in pods.filter(|pod| is_older(pod, namespace)) {
            found.count = found.count.saturating_add(1);
            let owner = pod.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
            let restarted = owner.and_then(|owner| RESTARTED.iter().find(|(kind, _)| *kind == owner.kind));
            match restarted {
                Some((_, resource)) if !found.restart.contains(resource) => found.restart.push(resource),
                Some(_) => {}
                None => found.others = found.others.saturating_add(1),
            }
        }
        found.restart.sort_unstable();
        found
    }

    /// What to say of them, if there are any.
    pub(super) fn warning(&self, name: &str) -> Option<String> {
        if self.count == 0 {
            return None;
        }
        let least = if self.is_partial { "at least " } else { "" };
        let (pods, are, have) = if self.count == 1 { ("pod", "is", "has") } else { ("pods", "are", "have") };
        let restart = (!self.restart.is_empty())
            .then(|| format!("kubectl -n {name} rollout restart {}", self.restart.join(",")));
        let others =
            (self.others > 0).then(|| format!("delete and recreate {} without such an owner", self.others));
        let steps: Vec<String> = restart.into_iter().chain(others).collect();
        Some(format!(
            "podwitness: {least}{} {pods} {are} older than the label and {have} no sidecar, so that nothing is recorded: {}",
            self.count,
            steps.join("; ")
        ))
    }
}

/// Admission writes the annotation; a forged one changes only this count.
fn is_older(pod: &ObjectMeta, namespace: &Namespace) -> bool {
    let has = |key: &str| pod.annotations.as_ref().is_some_and(|all| all.contains_key(key));
    let label = |key: &str| pod.labels.as_ref()?.get(key).map(String::as_str);
    !has(labels::STATUS) && !has(MIRROR) && pod.deletion_timestamp.is_none() && !namespace.exempts(label)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::control::testing::Api as FakeApi;

    const PATH: &str = "/api/v1/namespaces/shop/pods";

    fn pod(owner: &str, annotations: &Value) -> Value {
        let owners =
            json!([{"apiVersion": "x/v1", "kind": owner, "name": "o", "uid": "u", "controller": true}]);
        let owners = if owner.is_empty() { json!([]) } else { owners };
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {
            "name": "p", "labels": {"app": owner}, "annotations": annotations, "ownerReferences": owners}})
    }

    async fn warned(pods: &[Value], more: &str) -> Option<String> {
        let api = FakeApi::default();
        let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
            "metadata": {"continue": more}, "items": pods});
        api.answer("GET", PATH, list);
        let exempt = [(labels::EXEMPT.to_owned(), "app=Job".to_owned())].into();
        let namespace = Namespace::read(&ObjectMeta { annotations: Some(exempt), ..ObjectMeta::default() });
        find(&api.client(), "shop", &namespace).await.unwrap().warning("shop")
    }

    #[tokio::test]
    async fn pods_without_a_sidecar_are_counted_with_the_command_that_restarts_them() {
        let none = json!({});
        let all = [
            pod("ReplicaSet", &none),
            pod("ReplicaSet", &none),
            pod("StatefulSet", &none),
            pod("", &none),
            // Left out, witnessed, and the node's own.
            pod("Job", &none),
            pod("ReplicaSet", &json!({labels::STATUS: "{}"})),
            pod("Node", &json!({MIRROR: "x"})),
        ];
        let said = warned(&all, "").await.unwrap();
        assert_eq!(
            said,
            "podwitness: 4 pods are older than the label and have no sidecar, so that nothing is recorded: kubectl -n shop \
             rollout restart deployment,statefulset; delete and recreate 1 without such an owner"
        );
        assert!(said.len() < 250, "the API server cuts what is longer: {}", said.len());
        let one = warned(&[pod("DaemonSet", &none)], "").await.unwrap();
        assert!(
            one.starts_with("podwitness: 1 pod is older") && one.ends_with("rollout restart daemonset"),
            "{one}"
        );
        let bare = warned(&[pod("", &none)], "more").await.unwrap();
        assert!(
            bare.contains("at least 1 pod") && bare.ends_with("delete and recreate 1 without such an owner"),
            "{bare}"
        );
        assert_eq!(warned(&[pod("ReplicaSet", &json!({labels::STATUS: "{}"}))], "").await, None);
        assert_eq!(warned(&[], "").await, None);
    }

    #[tokio::test]
    async fn where_pods_cannot_be_listed_nothing_is_said() {
        let namespace = Namespace::default();
        assert_eq!(find(&FakeApi::default().client(), "shop", &namespace).await, None);
    }
}
