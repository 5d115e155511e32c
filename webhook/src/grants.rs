//! Status of `Grant` objects: whether every recorder tag has a recorder, and which parts have no effect here.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use podwitness_core::grant::GrantSpec;
use podwitness_crd::{Condition, ConditionStatus, Grant, GrantStatus, Recorder};
use serde_json::json;
use tokio::time::timeout;

use crate::{control::FIELD_MANAGER, recorders::date};

/// For one write; what fails is tried again with the next look at the world.
const LIMIT: Duration = Duration::from_secs(5);
/// Prefixes of a Tailscale `src` that mean nothing in a cluster.
const SRC_WITHOUT_EFFECT: [&str; 4] = ["autogroup:", "ipset:", "svc:", "tag:"];

/// Writes the status of every grant whose status is not what it should be.
pub async fn reconcile(client: &Client, grants: &[Arc<Grant>], recorders: &[Arc<Recorder>], now: i64) {
    let tags: BTreeSet<&str> =
        recorders.iter().flat_map(|recorder| &recorder.spec.tags).map(String::as_str).collect();
    for grant in grants {
        let status = desired(grant, &tags, now);
        if grant.status.as_ref() != Some(&status) {
            write(client, &grant.name_any(), &status).await;
        }
    }
}

/// What the status should be.
fn desired(grant: &Grant, tags: &BTreeSet<&str>, now: i64) -> GrantStatus {
    let mut conditions = grant.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    for (kind, (holds, reason, message)) in
        [("Resolved", resolved(&grant.spec.0, tags)), ("Effective", effective(&grant.spec.0))]
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
    GrantStatus { conditions }
}

type Finding = (bool, &'static str, String);

fn resolved(spec: &GrantSpec, tags: &BTreeSet<&str>) -> Finding {
    let named: BTreeSet<&str> =
        spec.app.kubernetes.iter().flat_map(|rule| &rule.recorder).map(String::as_str).collect();
    let missing: Vec<&str> = named.difference(tags).copied().collect();
    if named.is_empty() {
        return (
            false,
            "NoRecorderNamed",
            "the grant names no recorder, so that nothing is recorded".to_owned(),
        );
    }
    if !missing.is_empty() {
        return (false, "NoRecorder", format!("no Recorder has {}", missing.join(", ")));
    }
    (true, "Resolved", "every recorder tag has a Recorder".to_owned())
}

fn effective(spec: &GrantSpec) -> Finding {
    let parts = without_effect(spec);
    if parts.is_empty() {
        return (true, "Effective", "every part has an effect".to_owned());
    }
    (false, "PartsWithoutEffect", format!("without effect here: {}", parts.join(", ")))
}

fn without_effect(spec: &GrantSpec) -> Vec<String> {
    let src = spec.src.iter().filter(|src| SRC_WITHOUT_EFFECT.iter().any(|prefix| src.starts_with(prefix)));
    let dst = spec.dst.iter().filter(|dst| {
        *dst != "*" && !["namespace:", "pod:", "tag:"].iter().any(|prefix| dst.starts_with(prefix))
    });
    let mut parts: Vec<String> = src.map(|src| format!("src {src}")).collect();
    parts.extend(dst.map(|dst| format!("dst {dst}")));
    parts.extend((!spec.ip.is_empty()).then(|| "ip".to_owned()));
    let impersonates = spec.app.kubernetes.iter().any(|rule| rule.impersonate.is_some());
    parts.extend(impersonates.then(|| "impersonate".to_owned()));
    parts
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
mod tests {
    use serde_json::Value;

    use super::*;

    fn grant(spec: &Value) -> Grant {
        serde_json::from_value(json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Grant",
            "metadata": {"name": "g", "generation": 4}, "spec": spec}))
        .unwrap()
    }

    fn rule(rule: &Value) -> Value {
        json!({"src": ["*"], "dst": ["*"], "app": {"tailscale.com/cap/kubernetes": [rule]}})
    }

    fn finding(spec: &Value, kind: &str) -> (ConditionStatus, String) {
        let tags = ["tag:a", "tag:b"].into();
        let status = desired(&grant(spec), &tags, 1_800_000_000);
        let condition = status.conditions.iter().find(|condition| condition.kind == kind).unwrap();
        assert_eq!(
            (condition.observed_generation, condition.last_transition_time.as_str()),
            (4, "2027-01-15T08:00:00Z")
        );
        (condition.status, condition.message.clone())
    }

    #[test]
    fn a_grant_is_resolved_if_every_tag_has_a_recorder() {
        let (status, _) = finding(&rule(&json!({"recorder": ["tag:a", "tag:b"]})), "Resolved");
        assert_eq!(status, ConditionStatus::True);
        let (status, message) = finding(&rule(&json!({"recorder": ["tag:a", "tag:x"]})), "Resolved");
        assert_eq!((status, message.as_str()), (ConditionStatus::False, "no Recorder has tag:x"));
        assert_eq!(finding(&rule(&json!({})), "Resolved").0, ConditionStatus::False);
    }

    #[test]
    fn parts_without_effect_are_named() {
        let mut spec = rule(&json!({"recorder": ["tag:a"], "impersonate": {"groups": ["g"]}}));
        assert_eq!(finding(&spec, "Effective").1, "without effect here: impersonate");
        spec["src"] = json!(["autogroup:member", "ana@example.com", "group:sre"]);
        spec["dst"] = json!(["namespace:shop", "autogroup:internet"]);
        spec["ip"] = json!(["tcp:443"]);
        let expected = "without effect here: src autogroup:member, dst autogroup:internet, ip, impersonate";
        assert_eq!(finding(&spec, "Effective").1, expected);
        assert_eq!(finding(&rule(&json!({"recorder": ["tag:a"]})), "Effective").0, ConditionStatus::True);
    }

    #[test]
    fn a_status_that_is_right_is_not_written_again() {
        let tags = ["tag:a"].into();
        let mut grant = grant(&rule(&json!({"recorder": ["tag:a"]})));
        grant.status = Some(desired(&grant, &tags, 1_800_000_000));
        assert_eq!(grant.status, Some(desired(&grant, &tags, 1_900_000_000)));
    }
}
