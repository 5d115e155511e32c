//! What a Recorder adds to the StatefulSet and the pods that the control plane makes.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An object of Kubernetes that is handed on as it is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Verbatim(pub Map<String, Value>);

/// Additions to the StatefulSet.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetTemplate {
    /// Labels of the StatefulSet. Ours win.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the StatefulSet.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Additions to the pods.
    #[serde(skip_serializing_if = "PodTemplate::is_default")]
    pub pod: PodTemplate,
}

/// Additions to the pods.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Labels of the pods. Ours win.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `affinity` of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Verbatim>,
    /// `securityContext` of the pods: what it names replaces ours, except for the sysctl that recordings need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Verbatim>,
    /// Secrets of the system namespace with which images are pulled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalReference>,
    /// `nodeSelector` of the pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// `tolerations` of the pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Verbatim>,
    /// The pods' service account, which is made, too.
    #[serde(skip_serializing_if = "ServiceAccountTemplate::is_default")]
    pub service_account: ServiceAccountTemplate,
    /// Additions to the containers.
    #[serde(skip_serializing_if = "ContainerTemplate::is_default")]
    pub container: ContainerTemplate,
}

/// An object of the same namespace.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct LocalReference {
    /// Its name.
    pub name: String,
}

/// The pods' service account.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAccountTemplate {
    /// Its name; by default that of the Recorder. It may not be there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its annotations, such as those by which a platform gives it an identity.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Additions to the containers.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerTemplate {
    /// Further environment of both containers. It does not replace variables that the control plane sets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Image of both containers; stands above `spec.image`. An image of tsrecorder is left aside, since it is another
    /// program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// When the image is pulled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// `resources` of the container that takes recordings, in place of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Verbatim>,
    /// `securityContext` of both containers: what it names replaces ours, except for the one capability that the tunnel
    /// needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Verbatim>,
}

/// A variable with a plain value.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value.
    #[serde(default)]
    pub value: String,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// Never.
    Never,
    /// Where the node does not have it.
    IfNotPresent,
}

impl StatefulSetTemplate {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl PodTemplate {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl ServiceAccountTemplate {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl ContainerTemplate {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl JsonSchema for Verbatim {
    fn schema_name() -> Cow<'static, str> {
        "Verbatim".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    }
}
