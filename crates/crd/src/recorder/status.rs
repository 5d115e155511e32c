//! What is known about a recorder.

use podwitness_core::{control::Taking, grant::AckLevel};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::ExternalStatus;
use crate::{Condition, schema};

/// What is known about a recorder.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecorderStatus {
    /// `Ready`: at least one replica has enrolled and its pod is ready. `RecorderReady`: the objects of the recorder are
    /// as its `spec` says. `Effective`: every part of the `spec` has an effect here. `Conflict`, where there is one: an
    /// object that is not this recorder's has a name that it needs.
    #[schemars(transform = schema::conditions)]
    pub conditions: Vec<Condition>,
    /// Replicas that have enrolled and whose pods live.
    #[schemars(transform = replicas)]
    pub replicas: Vec<Replica>,
    /// Replicas that can take recordings, of those that there should be, such as `1/2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<String>,
    /// Where recordings lie: `emptyDir`, `volume` or `s3://BUCKET/PREFIX`; `external` where the cluster does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// What acknowledgements survive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckLevel>,
    /// The viewer, on the loopback of each replica: reached through
    /// `kubectl -n podwitness-system port-forward statefulset/NAME 8081`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The replicas under the names of the reference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = devices)]
    pub devices: Vec<Device>,
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
    /// What it takes, by its own word: `degraded` takes everything, but space runs short or the bucket fails; `limiting`
    /// refuses pods and namespaces that have more than their share of its volume; `refusing` takes nothing new, because
    /// its volume is nearly full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Taking>,
}

/// One enrolled replica, as the reference's status has it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Name of the pod.
    pub hostname: String,
    /// Addresses in the tunnel.
    #[serde(rename = "tailnetIPs", default)]
    #[schemars(transform = addresses)]
    pub tailnet_ips: Vec<String>,
    /// The viewer, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

fn replicas(list: &mut Schema) {
    schema::map_by(list, "pod");
    schema::cap_items(list, &[], 256);
}

fn devices(list: &mut Schema) {
    schema::map_by(list, "hostname");
    schema::cap_items(list, &[], 256);
}

fn addresses(list: &mut Schema) {
    schema::cap_items(list, &[], 8);
}
