//! Pods as the control plane needs them: a few fields of `core/v1 Pod`, the rest is dropped while it is read, so that
//! the cache of a large cluster stays small.

mod shape;
mod spec;

pub use shape::Shape;
pub use spec::{Container, PodSpec, Volume};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource, runtime::watcher::Event};
use podwitness_core::{grant::AckLevel, inject, labels};
use serde::{Deserialize, Serialize};

/// Volume of a recorder pod on which recordings lie.
pub const RECORDINGS_VOLUME: &str = "recordings";

/// A pod.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Resource, Serialize)]
#[resource(inherit = core::Pod)]
#[serde(default)]
pub struct Pod {
    /// Name, namespace, uid, owners, and of the labels only ours.
    pub metadata: ObjectMeta,
    /// What was asked for.
    pub spec: PodSpec,
    /// What is.
    pub status: PodStatus,
    /// Its shape, of a pod in the cache, whose specification is no longer whole.
    #[serde(skip)]
    shape: Option<Shape>,
}

/// Part of a pod's status.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Phase.
    pub phase: String,
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// Conditions.
    pub conditions: Vec<PodCondition>,
}

/// Part of a pod's condition.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// Name of the condition.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When it last changed.
    pub last_transition_time: Option<String>,
}

/// What tells one sandbox of a pod from the next. Unknown parts are `None` and tell nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sandbox {
    /// Address of the pod.
    pub ip: Option<String>,
    /// When the sandbox became ready (condition `PodReadyToStartContainers`, KEP-3085).
    pub ready_since: Option<String>,
}

impl Pod {
    /// Namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Name of the `Recorder` whose replica it says it is.
    #[must_use]
    pub fn recorder(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(labels::RECORDER).map(String::as_str)
    }

    /// The injected container.
    #[must_use]
    pub fn sidecar(&self) -> Option<&Container> {
        self.spec.init_containers.iter().find(|container| container.name == inject::CONTAINER)
    }

    /// How binding injection was when it was admitted.
    ///
    /// # Errors
    /// What tells it from a pod that admission made.
    pub fn shape(&self) -> Shape {
        self.shape.unwrap_or_else(|| shape::of(&self.spec))
    }

    /// Whether it is a pod that may ever enrol.
    #[must_use]
    pub fn concerns_us(&self) -> bool {
        self.recorder().is_some() || self.sidecar().is_some()
    }

    /// Whether its containers have ended for good.
    #[must_use]
    pub fn finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether it can serve: ready, and not about to go.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.metadata.deletion_timestamp.is_none()
            && self.status.phase == "Running"
            && self.condition("Ready").is_some_and(|condition| condition.status == "True")
    }

    /// Its sandbox.
    #[must_use]
    pub fn sandbox(&self) -> Sandbox {
        let ready =
            self.condition("PodReadyToStartContainers").filter(|condition| condition.status == "True");
        Sandbox {
            ip: self.status.pod_ip.clone(),
            ready_since: ready.and_then(|condition| condition.last_transition_time.clone()),
        }
    }

    /// What an acknowledgement of a recorder in this pod survives: where it acknowledges what is in its bucket, the
    /// node; a claim outlives the pod, anything else does not.
    #[must_use]
    pub fn ack_level(&self) -> AckLevel {
        let label = self.metadata.labels.as_ref().and_then(|labels| labels.get(labels::ACK));
        if label.is_some_and(|level| level == AckLevel::Object.as_str()) {
            return AckLevel::Object;
        }
        let lasting =
            |volume: &Volume| volume.name == RECORDINGS_VOLUME && volume.persistent_volume_claim.is_some();
        let chosen_less = label.is_some_and(|level| level == AckLevel::Process.as_str());
        let lasts = self.spec.volumes.iter().any(lasting) && !chosen_less;
        if lasts { AckLevel::Volume } else { AckLevel::Process }
    }

    fn condition(&self, kind: &str) -> Option<&PodCondition> {
        self.status.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Drops what is not needed.
    fn strip(mut self) -> Self {
        let is_replica = self.recorder().is_some();
        self.shape = Some(self.shape());
        let ObjectMeta {
            name,
            namespace,
            uid,
            resource_version,
            deletion_timestamp,
            labels,
            owner_references,
            ..
        } = self.metadata;
        let ours = |key: &str| [labels::RECORDER, labels::ACK].contains(&key);
        let labels = labels.map(|labels| labels.into_iter().filter(|(key, _)| ours(key)).collect());
        self.metadata = ObjectMeta {
            name,
            namespace,
            uid,
            resource_version,
            deletion_timestamp,
            labels,
            // Only of recorders: those of other pods tell nothing, and there are many.
            owner_references: owner_references.filter(|_| is_replica),
            ..ObjectMeta::default()
        };
        self.spec.init_containers.retain(|container| container.name == inject::CONTAINER);
        self.spec.init_containers.iter_mut().for_each(Container::slim);
        (self.spec.containers, self.spec.ephemeral_containers) = (Vec::new(), Vec::new());
        self.spec.volumes.retain(|volume| volume.name == RECORDINGS_VOLUME);
        self
    }
}

impl Sandbox {
    /// Whether `later` is surely another sandbox than this.
    #[must_use]
    pub fn replaced_by(&self, later: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        differ(&self.ip, &later.ip) || differ(&self.ready_since, &later.ready_since)
    }

    /// Fills unknown parts from what was seen later.
    pub fn learn(&mut self, later: Self) {
        self.ip = self.ip.take().or(later.ip);
        self.ready_since = self.ready_since.take().or(later.ready_since);
    }
}

/// Keeps pods that concern us out of a stream of events about all of them. One that ceases to (a label was removed)
/// is as good as deleted.
#[must_use]
pub fn relevant(event: Event<Pod>) -> Option<Event<Pod>> {
    Some(match event {
        Event::Apply(pod) if pod.concerns_us() => Event::Apply(pod.strip()),
        Event::Apply(pod) | Event::Delete(pod) => Event::Delete(pod.strip()),
        Event::InitApply(pod) if pod.concerns_us() => Event::InitApply(pod.strip()),
        Event::InitApply(_) => return None,
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    })
}

#[cfg(test)]
pub(crate) mod testing {
    use serde_json::{Value, json};

    use super::*;

    /// A pod from JSON.
    pub fn pod(json: Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    /// A running pod `shop/till` with our container.
    pub fn injected() -> Value {
        json!({
            "metadata": {"name": "till", "namespace": "shop", "uid": "uid-till", "labels": {"app": "till"},
                "annotations": {"note": "x"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "till", "containers": [{"name": "app", "image": "a"}],
                "initContainers": [
                    {"name": "podwitness", "image": "podwitness.dev/sidecar:dev", "restartPolicy": "Always",
                        "securityContext": {"runAsUser": 64321, "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}},
                        "env": [{"name": "PODWITNESS_INJECT", "value": "required"}]},
                    {"name": "setup", "image": "b"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": [
                {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"}]}
        })
    }

    /// A running replica of the recorder `podwitness`.
    pub fn replica() -> Value {
        json!({
            "metadata": {"name": "podwitness-0", "namespace": "podwitness-system", "uid": "uid-rec",
                "labels": {"podwitness.dev/recorder": "podwitness"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "podwitness",
                    "uid": "uid-set", "controller": true}]},
            "spec": {"nodeName": "n2", "serviceAccountName": "podwitness",
                "volumes": [{"name": "recordings", "emptyDir": {}}, {"name": "other", "emptyDir": {}}]},
            "status": {"phase": "Running", "podIP": "10.0.1.9", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"}]}
        })
    }
}

#[cfg(test)]
mod tests {
    use podwitness_core::inject::Inject;
    use serde_json::json;

    use super::{testing::*, *};

    #[test]
    fn only_what_is_needed_of_a_pod_is_kept() {
        let Some(Event::Apply(kept)) = relevant(Event::Apply(pod(injected()))) else { panic!("not kept") };
        assert_eq!((kept.spec.init_containers.len(), kept.spec.containers.len()), (1, 0));
        assert!(kept.spec.init_containers[0].env.is_empty());
        assert_eq!(kept.shape(), Ok(Inject::Required));
        assert_eq!(kept.metadata.annotations, None);
        assert_eq!(kept.metadata.labels, Some([].into()));
        assert_eq!((kept.namespace(), kept.name(), kept.uid()), ("shop", "till", "uid-till"));
    }

    /// What would tell it is dropped from the cache; what was told is kept.
    #[test]
    fn a_look_alike_in_the_cache_stays_one() {
        let mut forged = injected();
        forged["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "podwitness-identity", "mountPath": "/x"}]);
        let told = pod(forged.clone()).shape();
        assert!(told.is_err());
        let Some(Event::Apply(kept)) = relevant(Event::Apply(pod(forged))) else { panic!("not kept") };
        assert_eq!((kept.spec.containers.len(), kept.shape()), (0, told));
    }

    #[test]
    fn pods_that_do_not_concern_us_are_never_kept() {
        let stranger = || pod(json!({"metadata": {"name": "x", "namespace": "y"}}));
        assert!(relevant(Event::InitApply(stranger())).is_none());
        assert!(matches!(relevant(Event::Apply(stranger())), Some(Event::Delete(_))));
        assert!(matches!(relevant(Event::InitApply(pod(replica()))), Some(Event::InitApply(_))));
    }

    #[test]
    fn a_sandbox_is_new_only_where_a_known_part_changed() {
        let known = pod(injected()).sandbox();
        let unknown = Sandbox::default();
        assert!(!known.replaced_by(&known) && !known.replaced_by(&unknown) && !unknown.replaced_by(&known));
        assert!(known.replaced_by(&Sandbox { ip: Some("10.0.0.8".into()), ..known.clone() }));
        assert!(
            known.replaced_by(&Sandbox {
                ready_since: Some("2026-01-02T00:00:00Z".into()),
                ..unknown.clone()
            })
        );
        let mut learned = unknown;
        learned.learn(known.clone());
        assert_eq!(learned, known);
    }

    #[test]
    fn a_pod_serves_while_it_is_ready_and_not_about_to_go() {
        assert!(pod(replica()).serves());
        let mut going = replica();
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!pod(going).serves());
        let mut unready = replica();
        unready["status"]["conditions"][0]["status"] = json!("False");
        assert!(!pod(unready).serves());
    }

    #[test]
    fn an_acknowledgement_survives_what_its_volume_survives() {
        assert_eq!(pod(replica()).ack_level(), AckLevel::Process);
        let mut claimed = replica();
        claimed["spec"]["volumes"][0] =
            json!({"name": "recordings", "persistentVolumeClaim": {"claimName": "c"}});
        assert_eq!(pod(claimed.clone()).ack_level(), AckLevel::Volume);
        claimed["metadata"]["labels"][labels::ACK] = json!("process");
        assert_eq!(pod(claimed.clone()).ack_level(), AckLevel::Process);
        claimed["metadata"]["labels"][labels::ACK] = json!("object");
        assert_eq!(pod(claimed).ack_level(), AckLevel::Object);
        let mut volatile = replica();
        volatile["metadata"]["labels"][labels::ACK] = json!("volume");
        assert_eq!(pod(volatile).ack_level(), AckLevel::Process);
    }
}
