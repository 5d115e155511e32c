//! What a `Recorder` says of itself, as far as grants care.

use kube::ResourceExt as _;
use podwitness_core::grant::AckLevel;

use crate::{ConditionStatus, Recorder};

/// A recorder and whether it can take recordings.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RecorderState {
    /// Name of the object.
    pub name: String,
    /// Whether any replica can take recordings.
    pub ready: bool,
    /// Whether it is outside the cluster, where no pod is its replica.
    pub external: bool,
    /// Pods that have enrolled.
    pub replicas: Vec<String>,
    /// What acknowledgements of its replicas survive, at best; `None` where they do not say.
    pub ack: Option<AckLevel>,
    /// What it says of its readiness.
    pub message: String,
}

impl RecorderState {
    /// The state of a recorder.
    #[must_use]
    pub fn of(recorder: &Recorder) -> Self {
        let status = recorder.status.as_ref();
        let ready = status.and_then(|status| status.conditions.iter().find(|is| is.kind == "Ready"));
        let replicas = || status.iter().flat_map(|status| &status.replicas);
        let silent = replicas().any(|replica| replica.ack.is_none());
        Self {
            name: recorder.name_any(),
            ready: ready.is_some_and(|condition| condition.status == ConditionStatus::True),
            external: recorder.spec.external.is_some(),
            replicas: replicas().map(|replica| replica.pod.clone()).collect(),
            ack: replicas().filter_map(|replica| replica.ack).max().filter(|_| !silent),
            message: ready.map_or_else(
                || "the control plane has not looked at it yet".to_owned(),
                |condition| condition.message.clone(),
            ),
        }
    }

    /// Those that have a tag, by name.
    #[must_use]
    pub fn with_tag<'a>(tag: &str, recorders: impl IntoIterator<Item = &'a Recorder>) -> Vec<Self> {
        let has = |recorder: &&Recorder| recorder.spec.tags.iter().any(|has| has == tag);
        let mut found: Vec<Self> = recorders.into_iter().filter(has).map(Self::of).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Whether it acknowledges as strongly as is required; who does not say how strongly is asked and not passed over.
    #[must_use]
    pub fn acknowledges(&self, required: Option<AckLevel>) -> bool {
        self.ack.is_none_or(|ack| required.is_none_or(|required| ack >= required))
    }

    /// Why it cannot serve, if so.
    #[must_use]
    pub fn obstacle(&self, required: Option<AckLevel>) -> Option<String> {
        if !self.ready {
            return Some(format!("recorder {} is not ready: {}", self.name, self.message));
        }
        let required = required.filter(|_| !self.acknowledges(required))?;
        let (name, has) = (&self.name, self.ack.map_or("nothing", AckLevel::as_str));
        Some(format!("recorder {name} acknowledges {has}, and {} is required", required.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn recorder(name: &str, tags: &[&str], ready: &str, acks: &[Value]) -> Recorder {
        let replica = |(n, ack): (usize, &Value)| {
            json!({"pod": format!("{name}-{n}"), "podUID": "u", "key": "k", "address": "fd70::1",
                "endpoint": "10.0.0.1:51820", "ack": ack})
        };
        serde_json::from_value(json!({
            "apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "metadata": {"name": name},
            "spec": {"tags": tags},
            "status": {
                "replicas": acks.iter().enumerate().map(replica).collect::<Vec<_>>(),
                "conditions": [{"type": "Ready", "status": ready, "reason": "R", "message": "as it is",
                    "lastTransitionTime": "2027-01-15T08:00:00Z"}]}}))
        .unwrap()
    }

    #[test]
    fn recorders_are_found_by_tag() {
        let all = [
            recorder("b", &["tag:x", "tag:y"], "True", &[json!("volume")]),
            recorder("a", &["tag:x"], "False", &[]),
        ];
        let names =
            |tag| RecorderState::with_tag(tag, &all).into_iter().map(|state| state.name).collect::<Vec<_>>();
        assert_eq!(names("tag:x"), ["a", "b"]);
        assert_eq!(names("tag:y"), ["b"]);
        assert!(names("tag:z").is_empty());
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let level = Some(AckLevel::Volume);
        let of = |ready, acks: &[Value]| RecorderState::of(&recorder("r", &["tag:x"], ready, acks));
        assert_eq!(of("True", &[json!("process"), json!("volume")]).obstacle(level), None);
        assert_eq!(of("True", &[json!("process")]).obstacle(None), None);
        assert_eq!(of("True", &[Value::Null, json!("process")]).obstacle(level), None);
        let weak = of("True", &[json!("process")]).obstacle(level).unwrap();
        assert_eq!(weak, "recorder r acknowledges process, and volume is required");
        let down = of("False", &[json!("volume")]).obstacle(level).unwrap();
        assert_eq!(down, "recorder r is not ready: as it is");
        let mut unseen = recorder("r", &["tag:x"], "True", &[]);
        unseen.status = None;
        assert!(RecorderState::of(&unseen).obstacle(None).unwrap().contains("has not looked"));
    }
}
