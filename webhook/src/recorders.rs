//! Status of `Recorder` objects: which replicas have enrolled, and whether any can take recordings.
//!
//! Replicas vanish from the status with their pods. The status is also how the control plane remembers replicas over
//! its own restart.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use podwitness_core::address;
use podwitness_crd::{Condition, ConditionStatus, Recorder, RecorderStatus, Replica};
use serde_json::json;
use tokio::time::timeout;

use crate::control::{
    FIELD_MANAGER,
    enrolments::Enrolments,
    external::{self, Endpoints, Finding},
    pod::Pod,
    registry::Registry,
    sources,
};

/// For one write; what fails is tried again with the next look at the world.
const LIMIT: Duration = Duration::from_secs(5);

/// Writes the status of every recorder whose status is not what it should be.
pub async fn reconcile(
    client: &Client,
    recorders: &[Arc<Recorder>],
    enrolments: &Enrolments,
    pods: &[Arc<Pod>],
    endpoints: &Endpoints,
    now: i64,
) {
    for recorder in recorders {
        let status = match external::finding(recorder, endpoints) {
            Some(finding) => outside(recorder, finding, now),
            None => desired(recorder, &enrolments.lock(), pods, now),
        };
        if recorder.status.as_ref() != Some(&status) {
            write(client, &recorder.name_any(), &status).await;
        }
    }
}

/// What the status of a recorder outside the cluster should be.
fn outside(recorder: &Recorder, finding: Finding, now: i64) -> RecorderStatus {
    let before = recorder.status.as_ref();
    let mut conditions = before.map(|status| status.conditions.clone()).unwrap_or_default();
    let Finding { status, reason, message, found } = finding;
    Condition::set(&mut conditions, condition(recorder, (status, reason, message), now));
    RecorderStatus { conditions, external: found, ..RecorderStatus::default() }
}

/// What the status should be.
fn desired(recorder: &Recorder, registry: &Registry, pods: &[Arc<Pod>], now: i64) -> RecorderStatus {
    let name = recorder.name_any();
    let mut replicas = Vec::new();
    let mut serving: usize = 0;
    for (uid, key) in registry.replicas(&name) {
        let pod = pods.iter().find(|pod| pod.uid() == uid && !pod.finished());
        if let Some((pod, replica)) = pod.and_then(|pod| Some((pod, replica(key, pod)?))) {
            replicas.push(replica);
            serving = serving.saturating_add(usize::from(pod.serves()));
        }
    }
    replicas.sort_by(|a, b| a.pod.cmp(&b.pod));
    let mut conditions = recorder.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    Condition::set(&mut conditions, ready(recorder, serving, replicas.len(), now));
    RecorderStatus { conditions, replicas, ..RecorderStatus::default() }
}

fn replica(key: &str, pod: &Pod) -> Option<Replica> {
    Some(Replica {
        pod: pod.name().to_owned(),
        pod_uid: pod.uid().to_owned(),
        key: key.to_owned(),
        address: address::of_key(&address::parse_key(key).ok()?).to_string(),
        endpoint: sources::endpoint(pod)?.to_string(),
        ack: Some(pod.ack_level()),
    })
}

fn ready(recorder: &Recorder, serving: usize, enrolled: usize, now: i64) -> Condition {
    let said = match (serving, enrolled) {
        (0, 0) => (
            ConditionStatus::False,
            "NoReplica",
            "no pod has enrolled; is there a pod with this name in its label podwitness.dev/recorder?"
                .to_owned(),
        ),
        (0, _) => (ConditionStatus::False, "NotReady", format!("none of {enrolled} replicas is ready")),
        _ => (ConditionStatus::True, "Serving", format!("{serving} of {enrolled} replicas are ready")),
    };
    condition(recorder, said, now)
}

type Said = (ConditionStatus, &'static str, String);

fn condition(recorder: &Recorder, (status, reason, message): Said, now: i64) -> Condition {
    Condition {
        kind: "Ready".to_owned(),
        status,
        observed_generation: recorder.metadata.generation.unwrap_or_default(),
        last_transition_time: date(now),
        reason: reason.to_owned(),
        message,
    }
}

/// Unix seconds as RFC 3339.
pub(crate) fn date(now: i64) -> String {
    Timestamp::from_second(now).unwrap_or_default().to_string()
}

async fn write(client: &Client, name: &str, status: &RecorderStatus) {
    let api: Api<Recorder> = Api::all(client.clone());
    // Applied as a whole by one manager: no conflict, and entries that are gone are removed.
    let patch = json!({
        "apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "metadata": {"name": name}, "status": status
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match timeout(LIMIT, api.patch_status(name, &params, &Patch::Apply(&patch))).await {
        Ok(Ok(_)) => {
            tracing::info!(recorder = name, replicas = status.replicas.len(), "recorder status written");
        }
        // Deleted in the meantime.
        Ok(Err(kube::Error::Api(error))) if error.code == 404 => {}
        Ok(Err(error)) => tracing::warn!(%error, recorder = name, "cannot write the status of a recorder"),
        Err(_) => tracing::warn!(recorder = name, "the API server does not take a recorder's status in time"),
    }
}

#[cfg(test)]
mod tests;
