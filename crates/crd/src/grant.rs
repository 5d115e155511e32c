//! `Grant`: the grant model of the contract as a cluster-scoped object.
//!
//! The specification *is* [`podwitness_core::grant::GrantSpec`]; what is added here are the rules by which the API
//! server refuses a grant that could not mean what its author thinks.

#![expect(clippy::duplicated_attributes, reason = "each printed column has a type of its own")]

use kube::CustomResource;
use podwitness_core::grant::{API_VERBS, Grant as NamedGrant, GrantSpec, MAX_LEAD, METHODS};
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
    printcolumn(
        name = "Src",
        type_ = "string",
        json_path = ".spec.src",
        description = "Whose requests",
        priority = 1
    ),
    printcolumn(
        name = "Dst",
        type_ = "string",
        json_path = ".spec.dst",
        description = "From which pods",
        priority = 1
    ),
    printcolumn(
        name = "Priority",
        type_ = "integer",
        json_path = ".spec.priority",
        description = "Higher comes first",
        priority = 1
    ),
    printcolumn(
        name = "Default",
        type_ = "boolean",
        json_path = ".spec.default",
        description = "Whether it applies only where no other does"
    ),
    printcolumn(
        name = "Fails",
        type_ = "string",
        json_path = ".status.fails",
        description = "What holds where a recording cannot be made: open or closed"
    ),
    printcolumn(
        name = "Recorders",
        type_ = "string",
        json_path = ".status.recording",
        description = "Where recordings go, with the replicas of each recorder"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether a recorder that the grant names can take recordings"
    ),
    printcolumn(
        name = "Effective",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Effective')].reason",
        description = "Whether every part of the grant has an effect here, or which has none"
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
    /// `Resolved`: every rule names a recorder, and every tag has one. `Ready`: one that satisfies the grant can take recordings now.
    /// `Effective`: every part of the grant has an effect here.
    #[schemars(transform = schema::conditions)]
    pub conditions: Vec<Condition>,
    /// What holds where a recording cannot be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fails: Option<Fails>,
    /// Recorders and their replicas in one line, or why there are none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub recording: String,
    /// Recorders by tag, in the order in which rules name the tags; at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = recorders)]
    pub recorders: Vec<GrantRecorder>,
}

/// Cap on the recorders that a status names.
pub const MAX_STATUS_RECORDERS: usize = 64;

/// Whether what cannot be recorded happens nevertheless.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fails {
    /// It happens.
    Open,
    /// It does not, as far as a rule with `enforceRecorder` covers it.
    Closed,
}

/// A recorder that has a tag of the grant.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantRecorder {
    /// The tag.
    pub tag: String,
    /// Name of the `Recorder`.
    pub name: String,
    /// Whether it can take recordings.
    pub ready: bool,
    /// How many of its replicas have enrolled.
    pub replicas: u32,
    /// What it says of itself.
    pub message: String,
}

impl Grant {
    /// The grant under its name, as a netmap carries it.
    #[must_use]
    pub fn named(&self) -> NamedGrant {
        NamedGrant { name: self.metadata.name.clone().unwrap_or_default(), spec: self.spec.0.clone() }
    }
}

fn recorders(list: &mut Schema) {
    schema::cap_items(list, &[], MAX_STATUS_RECORDERS as u64);
}

const APP: &str = "app";
const KUBERNETES: &str = "tailscale.com/cap/kubernetes";

/// Rules of the API server for a grant, each with a message that names the remedy.
fn constrain(spec: &mut Schema) {
    schema::rule(
        spec,
        &[],
        "self.src.size() > 0",
        "a grant without src matches no user; write \"*\" for everyone",
    );
    schema::rule(
        spec,
        &[],
        "self.dst.size() > 0",
        "a grant without dst matches no pod; write \"*\" for every pod",
    );
    schema::list(spec, &["src"], 256, 512);
    schema::rule(
        spec,
        &["src"],
        "self.all(s, !s.startsWith('serviceaccount:') || s.matches('^serviceaccount:[a-z0-9*-]+/[a-z0-9*.-]+$'))",
        "write a service account as serviceaccount:NAMESPACE/NAME, in lower case; both may hold *",
    );
    schema::rule(
        spec,
        &["src"],
        "self.all(s, s == '*' || s.startsWith('serviceaccount:') || !s.contains('*'))",
        "names of users and groups are taken as they are; * stands alone, or in serviceaccount:NAMESPACE/NAME",
    );
    schema::rule(
        spec,
        &["src"],
        "self.all(s, !(s in ['user:', 'group:']))",
        "write user:NAME or group:NAME with a name",
    );
    schema::list(spec, &["dst"], 256, 512);
    schema::rule(
        spec,
        &["dst"],
        "self.all(d, !d.startsWith('pod:') || d.matches('^pod:[a-z0-9*-]+/[a-z0-9*.-]+$'))",
        "write pods as pod:NAMESPACE/NAME; both may hold *",
    );
    schema::rule(
        spec,
        &["dst"],
        "self.all(d, !d.startsWith('namespace:') || d.matches('^namespace:[a-z0-9*-]+$'))",
        "write a namespace as namespace:NAME; it may hold *",
    );
    schema::rule(
        spec,
        &["dst"],
        "self.all(d, !d.startsWith('tag:') || d.matches('^tag:[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'))",
        "write a tag of namespaces as tag:NAME; a namespace has it by its label tag.podwitness.dev/NAME",
    );
    schema::list(spec, &["ip"], 256, 512);
    schema::cap_items(spec, &[APP, KUBERNETES], 32);
    constrain_rule(spec);
}

/// CEL: every verb is one that requests have, or a glob; and what to say where one is not.
fn verbs() -> (String, String) {
    let known: Vec<String> = API_VERBS.iter().chain(&METHODS).map(|verb| format!("'{verb}'")).collect();
    (
        format!("self.all(v, v in [{}] || v.matches('^[a-z]*[*][a-z*]*$'))", known.join(", ")),
        format!(
            "verbs are lower-case API verbs: {}, or *; what kubectl does in pods is said by resources, such as pods/exec, pods/attach, pods/portforward, pods/log",
            API_VERBS.join(", ")
        ),
    )
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
    schema::rule(
        spec,
        &at("namespaces"),
        "self.all(n, n.matches('^[a-z0-9*-]+$'))",
        "namespaces are names without a prefix; * is allowed",
    );
    schema::list(spec, &at("verbs"), 32, 32);
    let (verbs, verbs_message) = verbs();
    schema::rule(spec, &at("verbs"), &verbs, &verbs_message);
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
