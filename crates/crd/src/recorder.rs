//! `Recorder`: a set of recorder replicas under tags that grants name.
//!
//! The fields of the reference's `tailscale.com/v1alpha1 Recorder` stand here under the same names, with the same
//! defaults and rules; what is ours is added. What is only handed on to Kubernetes is kept as it is ([`Verbatim`]) and
//! checked where it is used, so that fields of later versions pass.

mod external;
mod rules;
mod stateful_set;
mod status;
mod storage;

pub use external::{External, ExternalStatus, Reached};
pub use stateful_set::{
    ContainerTemplate, EnvVar, LocalReference, PodTemplate, PullPolicy, ServiceAccountTemplate,
    StatefulSetTemplate, Verbatim,
};
pub use status::{Device, RecorderStatus, Replica};
pub use storage::{
    CaSource, ClaimMetadata, ClaimTemplate, Credentials, Encryption, Filesystem, KeyReference, Retention, S3,
    SecretReference, Storage,
};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tag of a recorder that names none, and recorder of the shipped grant.
pub const DEFAULT_TAG: &str = "tag:podwitness";

/// A recorder: its replicas are the pods of a StatefulSet of the same name in the system namespace, which the control
/// plane makes and keeps as this says.
#[derive(Clone, CustomResource, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "podwitness.dev",
    version = "v1alpha1",
    kind = "Recorder",
    status = "RecorderStatus",
    derive = "PartialEq",
    category = "podwitness",
    shortname = "rec",
    doc = "A recorder takes recordings under the tags that grants name.",
    validation = kube::core::Rule::new(rules::NAME).message(rules::NAME_MESSAGE),
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
        json_path = ".status.serving",
        description = "Replicas that can take recordings, of those that there should be"
    ),
    printcolumn(
        name = "Storage",
        type_ = "string",
        json_path = ".status.storage",
        description = "Where recordings lie"
    ),
    printcolumn(
        name = "URL",
        type_ = "string",
        json_path = ".status.url",
        description = "The viewer, behind kubectl -n podwitness-system port-forward statefulset/NAME 8081"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = rules::constrain)]
pub struct RecorderSpec {
    /// Tags by which grants name this recorder, such as `tag:podwitness`.
    pub tags: Vec<String>,
    /// Where the recorder is, if it is no pod of this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Whether each replica has a viewer, with which recordings are found and played. Needed without `storage.s3`.
    #[serde(rename = "enableUI")]
    pub enable_ui: bool,
    /// How many replicas there are. More than one needs `storage.s3`, where they meet.
    pub replicas: u32,
    /// Image of the recorder; by default the one that came with the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Where recordings lie. Empty means the disk of the replica's node, for as long as the pod lives.
    #[serde(skip_serializing_if = "Storage::is_default")]
    pub storage: Storage,
    /// Additions to the objects that the control plane makes.
    #[serde(skip_serializing_if = "StatefulSetTemplate::is_default")]
    pub stateful_set: StatefulSetTemplate,
    /// Without effect here; accepted so that manifests of the reference work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tailnet: Option<String>,
}

impl Default for RecorderSpec {
    fn default() -> Self {
        Self {
            tags: vec![DEFAULT_TAG.to_owned()],
            enable_ui: false,
            replicas: 1,
            image: None,
            storage: Storage::default(),
            stateful_set: StatefulSetTemplate::default(),
            tailnet: None,
            external: None,
        }
    }
}

/// Whether the control plane makes the replicas of this recorder.
#[must_use]
pub const fn runs_in_cluster(spec: &RecorderSpec) -> bool {
    spec.external.is_none()
}
