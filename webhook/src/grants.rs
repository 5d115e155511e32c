//! Status of `Grant` objects: which recorders take its recordings or why none does, and which parts have no effect.

mod findings;

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use podwitness_crd::{Condition, ConditionStatus, Grant, GrantStatus, Recorder};
use serde_json::json;
use tokio::time::timeout;

use self::findings::{Findings, effective};
use crate::{control::FIELD_MANAGER, recorders::date};

/// For one write; what fails is tried again with the next look at the world.
const LIMIT: Duration = Duration::from_secs(5);

/// Writes the status of every grant whose status is not what it should be.
pub async fn reconcile(client: &Client, grants: &[Arc<Grant>], recorders: &[Arc<Recorder>], now: i64) {
    for grant in grants {
        let status = desired(grant, recorders, now);
        if grant.status.as_ref() != Some(&status) {
            write(client, &grant.name_any(), &status).await;
        }
    }
}

/// What the status should be.
fn desired(grant: &Grant, recorders: &[Arc<Recorder>], now: i64) -> GrantStatus {
    let mut conditions = grant.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    let spec = &grant.spec.0;
    let findings = Findings::of(spec, recorders);
    for (kind, (holds, reason, message)) in
        [("Resolved", findings.resolved()), ("Ready", findings.ready()), ("Effective", effective(spec))]
    {
        let condition = Condition {
            kind: kind.to_owned(),
            status: if holds { ConditionStatus::True } else { ConditionStatus::False },
            observed_generation: grant.metadata.generation.unwrap_or_default(),
            last_transition_time: date(now),
            reason: reason.to_owned(),
            message,
        };
        Condition::set(&mut conditions, condition);
    }
    GrantStatus {
        conditions,
        fails: Some(findings.fails()),
        recording: findings.recording(),
        recorders: findings.recorders(),
    }
}

async fn write(client: &Client, name: &str, status: &GrantStatus) {
    let api: Api<Grant> = Api::all(client.clone());
    let patch = json!({
        "apiVersion": "podwitness.dev/v1alpha1", "kind": "Grant", "metadata": {"name": name}, "status": status
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match timeout(LIMIT, api.patch_status(name, &params, &Patch::Apply(&patch))).await {
        Ok(Ok(_)) => tracing::info!(grant = name, "grant status written"),
        // Deleted in the meantime.
        Ok(Err(kube::Error::Api(error))) if error.code == 404 => {}
        Ok(Err(error)) => tracing::warn!(%error, grant = name, "cannot write the status of a grant"),
        Err(_) => tracing::warn!(grant = name, "the API server does not take a grant's status in time"),
    }
}

#[cfg(test)]
mod tests;
