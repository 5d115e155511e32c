//! Status of `Recorder` objects: which replicas have enrolled, whether any can take recordings, and what came of making
//! their objects.
//!
//! Replicas vanish from the status with their pods. The status is also how the control plane remembers replicas over
//! its own restart.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use podwitness_core::{address, control::Taking};
use podwitness_crd::{Condition, ConditionStatus, Recorder, RecorderStatus, Replica, recorder::Device};
use serde_json::json;
use tokio::time::timeout;

use super::{
    desired::VIEW_PORT,
    effect,
    outcome::{Outcome, Outcomes, Problem},
    storage,
};
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

/// What is seen of recorders.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Keys that were enrolled.
    pub enrolments: &'a Enrolments,
    /// What came of making their objects.
    pub outcomes: &'a Outcomes,
    /// Where those outside the cluster were found.
    pub endpoints: &'a Endpoints,
    /// Pods that may be replicas.
    pub pods: &'a [Arc<Pod>],
}

/// Writes the status of every recorder whose status is not what it should be.
pub async fn reconcile(client: &Client, recorders: &[Arc<Recorder>], seen: &Seen<'_>, now: i64) {
    for recorder in recorders {
        let status = match external::finding(recorder, seen.endpoints) {
            Some(finding) => outside(recorder, finding, now),
            None => {
                let outcome = seen.outcomes.of(recorder);
                desired(recorder, &seen.enrolments.lock(), outcome.as_ref(), seen.pods, now)
            }
        };
        if recorder.status.as_ref() != Some(&status) {
            write(client, &recorder.name_any(), &status).await;
        }
    }
}

/// What the status should be.
fn desired(
    recorder: &Recorder,
    registry: &Registry,
    outcome: Option<&Outcome>,
    pods: &[Arc<Pod>],
    now: i64,
) -> RecorderStatus {
    let name = recorder.name_any();
    let mut replicas = Vec::new();
    let mut serving: usize = 0;
    for (uid, key) in registry.replicas(&name) {
        let pod = pods.iter().find(|pod| pod.uid() == uid && !pod.finished());
        let state = registry.get(uid).and_then(|entry| entry.taking).or_else(|| before(recorder, uid));
        if let Some((pod, replica)) = pod.and_then(|pod| Some((pod, replica(key, pod, state)?))) {
            replicas.push(replica);
            serving = serving.saturating_add(usize::from(pod.serves()));
        }
    }
    replicas.sort_by(|a, b| a.pod.cmp(&b.pod));
    let conditions = conditions(recorder, outcome, (serving, replicas.as_slice()), now);
    of_cluster(recorder, serving, RecorderStatus { conditions, replicas, ..RecorderStatus::default() })
}

/// What the status of a recorder outside the cluster should be.
fn outside(recorder: &Recorder, finding: Finding, now: i64) -> RecorderStatus {
    let Finding { status, reason, message, found } = finding;
    let ready = condition("Ready", status, generation(recorder), reason, message);
    let conditions = dated(recorder, vec![ready, effective(recorder)], now);
    let storage = Some("external".to_owned());
    RecorderStatus { conditions, storage, external: found, ..RecorderStatus::default() }
}

/// What is known of a recorder because its replicas are made here.
fn of_cluster(recorder: &Recorder, serving: usize, status: RecorderStatus) -> RecorderStatus {
    let spec = &recorder.spec;
    // What `kubectl port-forward` opens: nobody else reaches the viewer.
    let url = spec.enable_ui.then(|| format!("http://localhost:{VIEW_PORT}"));
    let device = |replica: &Replica| Device {
        hostname: replica.pod.clone(),
        tailnet_ips: vec![replica.address.clone()],
        url: url.clone(),
    };
    RecorderStatus {
        devices: status.replicas.iter().map(device).collect(),
        serving: Some(format!("{serving}/{}", spec.replicas)),
        storage: Some(storage::in_words(&spec.storage)),
        ack: Some(spec.storage.ack()),
        url,
        ..status
    }
}

/// What a replica took when it was last heard of, before a restart of the control plane.
fn before(recorder: &Recorder, uid: &str) -> Option<Taking> {
    recorder.status.as_ref()?.replicas.iter().find(|replica| replica.pod_uid == uid)?.state
}

fn replica(key: &str, pod: &Pod, state: Option<Taking>) -> Option<Replica> {
    Some(Replica {
        pod: pod.name().to_owned(),
        pod_uid: pod.uid().to_owned(),
        key: key.to_owned(),
        address: address::of_key(&address::parse_key(key).ok()?).to_string(),
        endpoint: sources::endpoint(pod)?.to_string(),
        ack: Some(pod.ack_level()),
        state,
    })
}

/// All conditions there should be of a recorder that runs here.
fn conditions(
    recorder: &Recorder,
    outcome: Option<&Outcome>,
    replicas: (usize, &[Replica]),
    now: i64,
) -> Vec<Condition> {
    let before = recorder.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut conditions = vec![ready(recorder, outcome, replicas), effective(recorder)];
    conditions.extend(made(outcome, before));
    conditions.extend(outcome.and_then(conflict));
    dated(recorder, conditions, now)
}

/// The same, each with the time at which it last changed.
fn dated(recorder: &Recorder, mut conditions: Vec<Condition>, now: i64) -> Vec<Condition> {
    let before = recorder.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    for condition in &mut conditions {
        let same = |old: &&Condition| old.kind == condition.kind && old.status == condition.status;
        let since = before.iter().find(same).map(|old| old.last_transition_time.clone());
        condition.last_transition_time = since.unwrap_or_else(|| date(now));
    }
    conditions
}

fn condition(
    kind: &str,
    status: ConditionStatus,
    generation: i64,
    reason: &str,
    message: String,
) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status,
        observed_generation: generation,
        last_transition_time: String::new(),
        reason: reason.to_owned(),
        message,
    }
}

fn ready(
    recorder: &Recorder,
    outcome: Option<&Outcome>,
    (serving, replicas): (usize, &[Replica]),
) -> Condition {
    let (enrolled, unwell) = (replicas.len(), unwell(replicas));
    let problem = outcome.and_then(|outcome| outcome.problem.as_ref());
    let (status, reason, message) = match (serving, enrolled, problem) {
        (0, 0, Some(problem)) => (ConditionStatus::False, problem.reason(), problem.to_string()),
        (0, 0, None) if recorder.spec.replicas == 0 => {
            (ConditionStatus::False, "NoReplica", "there are to be no replicas".to_owned())
        }
        (0, 0, None) => (
            ConditionStatus::False,
            "NoReplica",
            "no replica has enrolled yet; its pods say why: kubectl -n podwitness-system describe pods -l podwitness.dev/recorder"
                .to_owned(),
        ),
        (0, _, _) => (ConditionStatus::False, "NotReady", format!("none of {enrolled} replicas is ready{unwell}")),
        _ => (ConditionStatus::True, "Serving", format!("{serving} of {enrolled} replicas are ready{unwell}")),
    };
    condition("Ready", status, generation(recorder), reason, message)
}

/// Replicas that say that something is wrong.
fn unwell(replicas: &[Replica]) -> String {
    let said = replicas.iter().filter_map(|replica| Some((&replica.pod, replica.state?)));
    let said = said.filter(|(_, state)| *state != Taking::Accepting);
    said.map(|(pod, state)| format!("; {pod} is {}", state.as_str())).collect()
}

/// The reference's condition. It is of the generation that was worked on, so that waiting for it waits for the work;
/// without an outcome yet, what was known before a restart stays.
fn made(outcome: Option<&Outcome>, before: &[Condition]) -> Option<Condition> {
    const KIND: &str = "RecorderReady";
    let Some(Outcome { generation, problem }) = outcome else {
        return before.iter().find(|old| old.kind == KIND).cloned();
    };
    let (status, reason, message) = match problem {
        None => (ConditionStatus::True, "RecorderCreated", "its objects are as they should be".to_owned()),
        Some(problem) => (ConditionStatus::False, problem.reason(), problem.to_string()),
    };
    Some(condition(KIND, status, *generation, reason, message))
}

fn conflict(outcome: &Outcome) -> Option<Condition> {
    let problem = outcome.problem.as_ref().filter(|problem| matches!(problem, Problem::Conflict { .. }))?;
    let message = problem.to_string();
    Some(condition("Conflict", ConditionStatus::True, outcome.generation, "NotOwned", message))
}

fn effective(recorder: &Recorder) -> Condition {
    let parts = effect::without_effect(recorder);
    let (status, reason, message) = if parts.is_empty() {
        (ConditionStatus::True, "Effective", "every part has an effect".to_owned())
    } else {
        (ConditionStatus::False, "PartsWithoutEffect", format!("without effect here: {}", parts.join(", ")))
    };
    condition("Effective", status, generation(recorder), reason, message)
}

fn generation(recorder: &Recorder) -> i64 {
    recorder.metadata.generation.unwrap_or_default()
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
