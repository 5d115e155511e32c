//! `Grant`: the grant model of the contract as a cluster-scoped object.
//!
//! The specification *is* [`podwitness_core::grant::GrantSpec`]; what is added here are the rules by which the API
//! server refuses a grant that could not mean what its author thinks.

use kube::CustomResource;
use podwitness_core::grant::{Grant as NamedGrant, GrantSpec, MAX_LEAD};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::{Condition, schema};

/// Who is recorded where, and what holds when recording fails.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "podwitness.dev",
    version = "v1alpha1",
    kind = "Grant",
    status = "GrantStatus",
    derive = "PartialEq",
    category = "podwitness",
    doc = "A grant says whose requests from which pods are recorded where, and what holds when recording fails.",
    printcolumn(name = "Default", type_ = "boolean", json_path = ".spec.default"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(
        name = "Resolved",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Resolved')].status",
        description = "Whether every recorder tag has a recorder"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(transparent)]
#[schemars(transform = constrain)]
pub struct GrantObjectSpec(pub GrantSpec);

/// What is known about a grant.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantStatus {
    /// `Resolved`: every recorder tag has a recorder. `Effective`: every part of the grant has an effect here.
    #[schemars(transform = schema::conditions)]
    pub conditions: Vec<Condition>,
}

impl Grant {
    /// The grant under its name, as a netmap carries it.
    #[must_use]
    pub fn named(&self) -> NamedGrant {
        NamedGrant { name: self.metadata.name.clone().unwrap_or_default(), spec: self.spec.0.clone() }
    }
}

const APP: &str = "app";
const KUBERNETES: &str = "tailscale.com/cap/kubernetes";

/// Rules of the API server for a grant, each with a message that names the remedy.
fn constrain(spec: &mut Schema) {
    schema::rule(
        spec,
        &[],
        "self.src.size() > 0",
        "a grant without src means nobody; write \"*\" for everyone",
    );
    schema::rule(
        spec,
        &[],
        "self.dst.size() > 0",
        "a grant without dst means no pod; write \"*\" for every pod",
    );
    schema::list(spec, &["src"], 256, 512);
    schema::rule(
        spec,
        &["src"],
        "self.all(s, !s.startsWith('serviceaccount:') || s.matches('^serviceaccount:[^/]+/[^/]+$'))",
        "write a service account as serviceaccount:NAMESPACE/NAME; both may hold *",
    );
    schema::list(spec, &["dst"], 256, 512);
    schema::rule(
        spec,
        &["dst"],
        "self.all(d, !d.startsWith('pod:') || d.matches('^pod:[^/]+/[^/]+$'))",
        "write pods as pod:NAMESPACE/NAME; both may hold *",
    );
    schema::list(spec, &["ip"], 256, 512);
    schema::cap_items(spec, &[APP, KUBERNETES], 32);
    constrain_rule(spec);
}

/// Rules for one entry of the Kubernetes capability.
fn constrain_rule(spec: &mut Schema) {
    let at = |field| [APP, KUBERNETES, "[]", field];
    schema::rule(
        spec,
        &[APP, KUBERNETES, "[]"],
        "!self.enforceRecorder || self.recorder.size() > 0",
        "enforceRecorder without a recorder would refuse every request; name a tag in recorder",
    );
    schema::list(spec, &at("recorder"), 16, 128);
    schema::rule(spec, &at("recorder"), schema::TAGS, schema::TAGS_MESSAGE);
    schema::list(spec, &at("namespaces"), 64, 253);
    schema::list(spec, &at("verbs"), 32, 32);
    schema::rule(
        spec,
        &at("verbs"),
        "self.all(v, v.matches('^[a-z*]+$'))",
        "verbs are lower-case API verbs such as get, list, create or *",
    );
    schema::list(spec, &at("resources"), 64, 128);
    schema::rule(
        spec,
        &at("resources"),
        "self.all(r, r.matches('^[a-z0-9*.-]+(/[a-z0-9*.-]+)?$'))",
        "resources are plural names with an optional subresource, such as pods or pods/exec; * is allowed",
    );
    schema::list(spec, &at("maskFlags"), 32, 64);
    schema::rule(
        spec,
        &at("maskFlags"),
        "self.all(f, f.matches('^(-[A-Za-z0-9]|--[A-Za-z0-9][A-Za-z0-9_.-]*|[A-Za-z_][A-Za-z0-9_]+)$'))",
        "maskFlags are flags such as --password or -p, or variables such as PGPASSWORD, without a value",
    );
    schema::range(spec, &at("lead"), 1, MAX_LEAD);
    schema::list(spec, &[APP, KUBERNETES, "[]", "impersonate", "groups"], 256, 512);
}
