//! `Recorder`: a set of recorder replicas under tags that grants name.

#![expect(clippy::duplicated_attributes, reason = "each printed column has a type of its own")]

use kube::CustomResource;
use podwitness_core::grant::AckLevel;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

mod external;

pub use external::{External, ExternalStatus, Reached};

use crate::{Condition, schema};

/// Tag of a recorder that names none, and recorder of the shipped grant.
pub const DEFAULT_TAG: &str = "tag:podwitness";

/// A recorder. Its replicas are the pods of the system namespace that carry its name in the label
/// `podwitness.dev/recorder` and run under the service account `podwitness-recorder`.
#[derive(Clone, CustomResource, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "podwitness.dev",
    version = "v1alpha1",
    kind = "Recorder",
    status = "RecorderStatus",
    derive = "PartialEq",
    category = "podwitness",
    doc = "A recorder takes recordings under the tags that grants name.",
    printcolumn(name = "Tags", type_ = "string", json_path = ".spec.tags"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether any replica can take recordings"
    ),
    printcolumn(
        name = "Replicas",
        type_ = "string",
        json_path = ".status.replicas[*].pod",
        description = "Pods that have enrolled"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = constrain)]
pub struct RecorderSpec {
    /// Tags by which grants name this recorder, such as `tag:podwitness`.
    pub tags: Vec<String>,
    /// Where the recorder is, if it is no pod of this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

impl Default for RecorderSpec {
    fn default() -> Self {
        Self { tags: vec![DEFAULT_TAG.to_owned()], external: None }
    }
}

/// What is known about a recorder.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecorderStatus {
    /// `Ready`: at least one replica has enrolled and its pod is ready.
    #[schemars(transform = schema::conditions)]
    pub conditions: Vec<Condition>,
    /// Replicas that have enrolled and whose pods live.
    #[schemars(transform = replicas)]
    pub replicas: Vec<Replica>,
    /// Where a recorder outside the cluster was last found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalStatus>,
}

/// One enrolled replica.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// WireGuard public key, base64.
    pub key: String,
    /// Address in the tunnel, derived from the key.
    pub address: String,
    /// UDP address of the WireGuard end.
    pub endpoint: String,
    /// What acknowledgements of this replica survive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckLevel>,
}

fn constrain(spec: &mut Schema) {
    schema::list(spec, &["tags"], 64, 128);
    schema::rule(spec, &["tags"], "self.size() > 0", "a recorder without a tag can be named by no grant");
    schema::rule(spec, &["tags"], schema::TAGS, schema::TAGS_MESSAGE);
}

fn replicas(list: &mut Schema) {
    schema::map_by(list, "pod");
    schema::cap_items(list, &[], 256);
}
