//! What the cluster says: grants and recorders, the namespace and the pod.

use k8s_openapi::{
    api::{
        core::v1::{self, Namespace},
        events::v1::Event,
    },
    jiff::Timestamp,
};
use kube::{Api, ResourceExt as _, api::ListParams};
use podwitness_core::{allow::Allow, grant, inject::Inject, labels};
use podwitness_crd::{Grant, Recorder};

use super::{Pod, PodFacts};
use crate::cluster::{Cluster, ClusterError};

/// Events of a namespace that are looked through.
const MAX_EVENTS: u32 = 500;
/// Reason of the Event on what runs without a sidecar where one is wanted (`webhook/src/admit/events.rs`).
const NOT_WITNESSED: &str = "NotWitnessed";

/// What has to be known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// All grants.
    pub grants: Vec<grant::Grant>,
    /// All recorders.
    pub recorders: Vec<Recorder>,
    /// Grant tags of the namespace, without prefix.
    pub tags: Vec<String>,
    /// The namespace's label that asks for injection.
    pub inject: Option<String>,
    /// What the namespace accepts beyond Pod Security baseline.
    pub allow: Vec<String>,
    /// The namespace's annotation that leaves pods out.
    pub exempt: Option<String>,
    /// The namespace's annotation that suspends recording.
    pub bypass_until: Option<String>,
    /// The pod, if there is one of this name.
    pub pod: Option<PodFacts>,
    /// Why admission let the pod through without a sidecar, if an Event says so.
    pub let_through: Option<String>,
    /// What could not be found out.
    pub unknown: Vec<String>,
    /// The time, in seconds since 1970.
    pub now: i64,
}

impl Facts {
    /// What the namespace accepts of its pods beyond the baseline, if it holds them to it.
    #[must_use]
    pub fn accepted(&self) -> &[String] {
        if self.requires() { &self.allow } else { &[] }
    }

    /// Whether the namespace refuses pods that cannot be injected.
    #[must_use]
    pub fn requires(&self) -> bool {
        self.inject.as_deref() == Some(Inject::Required.as_str())
    }

    /// Asks the cluster.
    ///
    /// # Errors
    /// Where grants, recorders or the namespace cannot be read.
    pub async fn read(cluster: &Cluster, pod: &Pod) -> Result<Self, ClusterError> {
        let grants: Vec<Grant> = cluster.all("grants.podwitness.dev").await?;
        let recorders = cluster.all("recorders.podwitness.dev").await?;
        let api: Api<Namespace> = Api::all(cluster.client());
        let what = format!("read namespace {}", pod.namespace);
        let namespace = cluster.within(&what, api.get_opt(&pod.namespace)).await?;
        let namespace = namespace.ok_or_else(|| ClusterError::NoNamespace(pod.namespace.clone()))?;
        let mut facts = Self {
            grants: grants.iter().map(Grant::named).collect(),
            recorders,
            now: Timestamp::now().as_second(),
            ..Self::of(&namespace)
        };
        let api: Api<v1::Pod> = Api::namespaced(cluster.client(), &pod.namespace);
        match cluster.within(&format!("read pod {}", pod.name), api.get_opt(&pod.name)).await {
            Ok(found) => facts.pod = found.as_ref().map(PodFacts::of),
            Err(error) => facts.unknown.push(format!("whether the pod exists is not known: {error}")),
        }
        if facts.inject.is_some() && facts.pod.as_ref().is_some_and(|pod| !pod.witnessed) {
            facts.find_event(cluster, pod).await;
        }
        Ok(facts)
    }

    /// What a namespace says.
    pub(super) fn of(namespace: &Namespace) -> Self {
        let keys = namespace.labels().keys();
        let tags = keys.filter_map(|key| key.strip_prefix(labels::TAG_PREFIX)).map(ToOwned::to_owned);
        let annotation = |key: &str| namespace.annotations().get(key).cloned();
        let (allow, _) = Allow::parse(annotation(labels::ALLOW).as_deref().unwrap_or_default());
        Self {
            tags: tags.collect(),
            inject: namespace.labels().get(labels::INJECT).cloned(),
            allow: allow.items().iter().map(ToString::to_string).collect(),
            exempt: annotation(labels::EXEMPT).filter(|terms| !terms.trim().is_empty()),
            bypass_until: annotation(labels::BYPASS_UNTIL),
            ..Self::default()
        }
    }

    /// Events last an hour; where there is none, the answer goes by what the pod looks like.
    async fn find_event(&mut self, cluster: &Cluster, pod: &Pod) {
        let api: Api<Event> = Api::namespaced(cluster.client(), &pod.namespace);
        let params = ListParams::default().fields(&format!("reason={NOT_WITNESSED}")).limit(MAX_EVENTS);
        match cluster.within("list events", api.list(&params)).await {
            Ok(events) => {
                self.let_through = self.pod.as_ref().and_then(|found| note(&events.items, &pod.name, found));
            }
            Err(error) => {
                self.unknown.push(format!("whether admission let the pod through is not known: {error}"));
            }
        }
    }
}

/// What the latest Event on a pod or its owner says of why it has no sidecar.
pub(super) fn note(events: &[Event], name: &str, pod: &PodFacts) -> Option<String> {
    let owner = pod.owner.as_ref();
    let regards = |event: &&Event| {
        event.regarding.as_ref().is_some_and(|object| {
            let (kind, on) = (object.kind.as_deref(), object.name.as_deref());
            (kind, on) == (Some("Pod"), Some(name))
                || owner.is_some_and(|owner| (kind, on) == (Some(&*owner.kind), Some(&*owner.name)))
        })
    };
    let latest = events.iter().filter(regards).max_by_key(|event| {
        let last = event.series.as_ref().map(|series| series.last_observed_time.0);
        last.or_else(|| event.event_time.as_ref().map(|time| time.0))
    })?;
    let note = latest.note.as_deref()?;
    // The Event begins with what is said here anyhow.
    Some(note.split_once("recorded: ").map_or(note, |(_, why)| why).to_owned())
}
