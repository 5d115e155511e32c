//! Parts of a pod's specification: what tells a replica from a sidecar, and a pod that admission made from one that it
//! did not.

use serde::{Deserialize, Serialize};

/// Part of a pod's specification.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Node on which it runs.
    pub node_name: String,
    /// Its service account.
    pub service_account_name: String,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Init containers; in the cache only ours.
    pub init_containers: Vec<Container>,
    /// Containers; in the cache none.
    pub containers: Vec<Container>,
    /// Debug containers; in the cache none.
    pub ephemeral_containers: Vec<Container>,
    /// Volumes; in the cache only [`super::RECORDINGS_VOLUME`].
    pub volumes: Vec<Volume>,
}

/// Part of a container.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// Override of the image's entry point.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// `Always` for a native sidecar.
    pub restart_policy: String,
    /// User and privileges.
    pub security_context: SecurityContext,
    /// Environment; in the cache none.
    pub env: Vec<Variable>,
    /// Environment out of other objects; in the cache none.
    pub env_from: Vec<Present>,
    /// Commands at its start and end.
    pub lifecycle: Option<Present>,
    /// Mounts; in the cache none.
    pub volume_mounts: Vec<Mount>,
}

/// Part of a container's security context.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityContext {
    /// User id of its processes.
    pub run_as_user: Option<i64>,
    /// Whether it is nearly a process of the node.
    pub privileged: bool,
    /// Whether processes may gain more than their parent had.
    pub allow_privilege_escalation: Option<bool>,
    /// Whether it cannot write to its image.
    pub read_only_root_filesystem: bool,
    /// Capabilities.
    pub capabilities: Capabilities,
}

/// Capabilities of a container.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Capabilities {
    /// Those beside what the runtime gives.
    pub add: Vec<String>,
}

/// Part of an environment variable.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Value, where it is written out.
    pub value: String,
}

/// Part of a mount.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Name of the volume.
    pub name: String,
    /// Where it is mounted.
    pub mount_path: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

/// Part of a volume.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Name.
    pub name: String,
    /// Present where the volume outlives the pod.
    pub persistent_volume_claim: Option<Present>,
    /// Present where it is the pod's own.
    pub empty_dir: Option<Present>,
    /// Of the node.
    pub host_path: Option<HostPath>,
    /// Of several sources.
    pub projected: Option<Projected>,
}

/// A volume of the node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct HostPath {
    /// Path on the node.
    pub path: String,
}

/// A volume of several sources.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Projected {
    /// Its sources.
    pub sources: Vec<Source>,
}

/// A source of a projected volume.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// A token of the pod's service account.
    pub service_account_token: Option<Token>,
}

/// A token that the kubelet asks for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Token {
    /// For whom it is; empty for the API server.
    pub audience: String,
}

/// Something of which only the presence matters.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Present {}

impl Container {
    /// The same without what is only needed to judge the shape of its pod.
    pub(super) fn slim(&mut self) {
        self.env = Vec::new();
        self.env_from = Vec::new();
        self.volume_mounts = Vec::new();
    }
}
