//! Events on pods that run without a sidecar where one is wanted: on what made them, because a pod has no uid yet when it
//! is admitted, and else on the pod by its name.
//!
//! Anybody in the cluster may send a review. What is published is therefore limited by namespace, and says nothing but
//! why a pod of the reviewed shape gets no sidecar.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Client,
    runtime::events::{Event, EventType},
};
use serde::Deserialize as _;
use serde_json::Value;
use tokio::time::Duration;

use super::{
    pod::{items, text},
    refusal::Refusal,
};
use crate::{
    control::limits::{Buckets, Rate},
    events::{self, EventQueue, Publisher},
};

const REPORTER: &str = "podwitness-admit";
const REASON: &str = "NotWitnessed";
/// Longest note (`k8s.io/kubernetes/pkg/apis/core/validation/events.go`).
const MAX_NOTE: usize = 1024;
/// Events of one namespace.
const RATE: Rate = Rate { burst: 16, every: Duration::from_secs(10) };
/// Namespaces that are told apart.
const NAMESPACES: usize = 1024;

/// Where Events are handed in. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Events {
    queue: EventQueue,
    limits: Arc<Mutex<Buckets<String>>>,
}

/// Both ends.
pub(super) fn channel(client: Client) -> (Events, Publisher) {
    let (queue, publisher) = events::channel(client, REPORTER);
    (Events { queue, limits: Arc::new(Mutex::new(Buckets::new(RATE, NAMESPACES))) }, publisher)
}

impl Events {
    /// A pod of an `optional` namespace is let through as it is.
    pub(super) fn let_through(&self, namespace: &str, pod: &Value, refusal: &Refusal) {
        let Some(regarding) = regarding(namespace, pod) else { return };
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if limits.take(namespace.to_owned()).is_err() {
            tracing::debug!(namespace, "an Event is dropped: its namespace has had enough");
            return;
        }
        let said = format!("a pod runs without a witness, so that nothing of it is recorded: {refusal}");
        let event = Event {
            type_: EventType::Warning,
            reason: REASON.to_owned(),
            note: Some(said.get(..said.floor_char_boundary(MAX_NOTE)).unwrap_or_default().to_owned()),
            action: "Admit".to_owned(),
            secondary: None,
        };
        self.queue.hand_in(event, regarding);
    }
}

/// What controls the pod, or the pod where it has a name; one with neither gets its name after it was admitted.
fn regarding(namespace: &str, pod: &Value) -> Option<ObjectReference> {
    let metadata = pod.get("metadata")?;
    let owners = items(Some(metadata), "ownerReferences").iter();
    let owner = owners
        .filter_map(|owner| OwnerReference::deserialize(owner).ok())
        .find(|owner| owner.controller == Some(true));
    let name = text(metadata, "name");
    let reference = match owner {
        Some(OwnerReference { api_version, kind, name, uid, .. }) => ObjectReference {
            api_version: Some(api_version),
            kind: Some(kind),
            name: Some(name),
            uid: Some(uid),
            ..ObjectReference::default()
        },
        None if name.is_empty() => return None,
        None => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name.to_owned()),
            ..ObjectReference::default()
        },
    };
    Some(ObjectReference { namespace: Some(namespace.to_owned()), ..reference })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{admit::refusal::Reason, control::testing::Api};

    const PATH: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

    async fn published(pods: &[Value], message: &str) -> Vec<Value> {
        let api = Api::default();
        api.answer("POST", PATH, json!({"metadata": {}, "eventTime": null}));
        let (events, publisher) = channel(api.client());
        pods.iter().for_each(|pod| events.let_through("shop", pod, &Reason::Quota.because(message)));
        drop(events);
        publisher.run().await;
        api.bodies("POST", PATH)
    }

    fn named(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    #[tokio::test]
    async fn a_pod_that_is_let_through_is_an_event_on_what_made_it() {
        let owned = json!({"metadata": {"generateName": "web-", "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "u0"},
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u1", "controller": true}]}});
        let sent = &published(&[owned], "there is no room").await[0];
        assert_eq!(
            sent["regarding"],
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
            "namespace": "shop", "uid": "u1"})
        );
        assert_eq!((&sent["type"], &sent["reason"]), (&json!("Warning"), &json!("NotWitnessed")));
        assert!(sent["note"].as_str().unwrap().ends_with("there is no room"), "{sent}");
    }

    #[tokio::test]
    async fn a_pod_of_its_own_is_named() {
        let sent = published(&[named("app"), json!({"metadata": {"generateName": "x-"}})], "x").await;
        assert_eq!(
            (sent.len(), &sent[0]["regarding"]["kind"], &sent[0]["regarding"]["name"]),
            (1, &json!("Pod"), &json!("app"))
        );
    }

    #[tokio::test]
    async fn a_long_reason_is_cut_to_what_an_event_holds() {
        let sent = published(&[named("app")], &"é".repeat(2000)).await;
        let note = sent[0]["note"].as_str().unwrap();
        assert!(note.len() <= MAX_NOTE && note.len() > MAX_NOTE - 4, "{}", note.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_has_no_more_than_its_share() {
        let pods: Vec<Value> = (0..100).map(|number| named(&format!("app-{number}"))).collect();
        assert_eq!(published(&pods, "x").await.len(), 16);
    }
}
