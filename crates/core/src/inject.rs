//! The injection contract: names, ports and paths that admission writes into a pod and the sidecar relies on.
//!
//! Both sides use these types, so that injector and sidecar cannot drift apart: [`SidecarEnv::to_env`] and
//! [`SidecarEnv::from_env`] are inverse, and a test says so.

mod env;

pub use env::{
    EnvError, EnvSource, EnvVar, INJECT as ENV_INJECT, NODE_NAME, POD_FIELDS, POD_NAME, POD_NAMESPACE,
    POD_SERVICE_ACCOUNT, POD_UID, PREFIX as ENV_PREFIX, SERVICE_ACCOUNTS as ENV_SERVICE_ACCOUNTS, SidecarEnv,
};

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

/// Name of the injected native sidecar, always init container 0.
pub const CONTAINER: &str = "podwitness";
/// User and group id of the sidecar; no other container of an injected pod may have it.
pub const UID: u32 = 64321;
/// TCP port on the pod address: health and metrics, read-only.
pub const ADMIN_PORT: u16 = 15430;
/// TCP port on the pod address: health of the sidecar, for the kubelet's probe.
pub const PROBE_PORT: u16 = 15431;
/// Seconds between a pod's end and the kill of what still runs in it, where the pod says nothing else.
pub const GRACE_PERIOD: u32 = 30;
/// WireGuard interface inside the pod.
pub const INTERFACE: &str = "podwitness0";
/// nftables table of family `inet` inside the pod.
pub const TABLE: &str = "podwitness";
/// Audience of the projected token with which a pod enrols.
pub const TOKEN_AUDIENCE: &str = "podwitness.dev";
/// Prefix of every volume that admission adds; a user's volume may not have it.
pub const VOLUME_PREFIX: &str = "podwitness-";
/// Volume: projected token of audience [`TOKEN_AUDIENCE`].
pub const VOLUME_IDENTITY: &str = "podwitness-identity";
/// Volume: memory; in-pod CA key, tunnel key, netmap cache, control socket.
pub const VOLUME_STATE: &str = "podwitness-state";
/// Volume: bounded spool of recordings that no recorder took yet.
pub const VOLUME_SPOOL: &str = "podwitness-spool";
/// Volume: the node's `/dev/net`, for a TUN device where the kernel has no WireGuard.
pub const VOLUME_TUN: &str = "podwitness-tun";
/// Volume: memory; the bundle with which every container of the pod can verify what the sidecar serves.
pub const VOLUME_CA: &str = "podwitness-ca";
/// Prefix of the volumes that stand in for service-account volumes, followed by a number.
pub const VOLUME_SERVICE_ACCOUNT: &str = "podwitness-serviceaccount-";
/// Prefix of the volumes from which the sidecar reads what it puts into those that stand in, followed by the same number.
pub const VOLUME_SOURCE: &str = "podwitness-source-";
/// Mount of [`VOLUME_IDENTITY`]; the token is the file `token` in it.
pub const MOUNT_IDENTITY: &str = "/var/run/podwitness/identity";
/// Mount of [`VOLUME_STATE`].
pub const MOUNT_STATE: &str = "/var/run/podwitness/state";
/// Second mount of [`VOLUME_STATE`], where WireGuard control sockets live by convention.
pub const MOUNT_WIREGUARD: &str = "/var/run/wireguard";
/// Mount of [`VOLUME_SPOOL`].
pub const MOUNT_SPOOL: &str = "/var/spool/podwitness";
/// Mount of [`VOLUME_CA`] in every container; the file is `ca.crt`.
pub const MOUNT_CA: &str = "/var/run/podwitness/ca";
/// Mount of [`VOLUME_TUN`].
pub const MOUNT_TUN: &str = "/dev/net";
/// Parent of the mounts of [`VOLUME_SOURCE`], followed by a number.
pub const MOUNT_SOURCE: &str = "/var/run/podwitness/source/";
/// Parent of the mounts through which the sidecar writes the directories that other containers read.
pub const MOUNT_SERVICE_ACCOUNT: &str = "/var/run/podwitness/serviceaccount/";
/// Where every Kubernetes client looks for its credentials.
pub const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// ConfigMap that holds the cluster's CA in every namespace.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";
/// UDP port of the WireGuard end of a recorder.
pub const TUNNEL_PORT: u16 = 51820;
/// TCP port of recordings on a recorder's tunnel address.
pub const RECORD_PORT: u16 = 80;
/// TCP port of the control API.
pub const CONTROL_PORT: u16 = 8444;
/// TCP port of the installation's programs: health, for the kubelet's probes.
pub const HEALTH_PORT: u16 = 8082;
/// Namespaces besides that of the installation where nothing is ever injected, whatever their labels say: without them a
/// cluster could not be repaired.
pub const NEVER_INJECTED: [&str; 2] = ["kube-system", "kube-node-lease"];
/// Cap on addresses of either kind in [`ApiServerAddresses`]; further ones come with the netmap.
pub const MAX_STAMPED_ADDRESSES: usize = 32;
/// Cap on service-account directories of one pod; a pod with more is refused.
pub const MAX_SERVICE_ACCOUNT_DIRS: usize = 64;

/// Cap on ports of other containers that the sidecar is told of.
pub const MAX_DECLARED_PORTS: usize = 512;

/// Value of the namespace label [`crate::labels::INJECT`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Inject {
    /// A pod that cannot be injected is refused.
    Required,
    /// A pod that cannot be injected is let through with a warning.
    Optional,
}

/// Value of the namespace label [`crate::labels::PROFILE`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Redirect and WireGuard interface in the pod; needs NET_ADMIN.
    #[default]
    Interface,
    /// No capability at all.
    Restricted,
}

/// Value of the namespace label [`crate::labels::CREDENTIALS`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Credentials {
    /// Containers hold a placeholder token that works only through the sidecar.
    Sealed,
    /// Containers hold their real token.
    #[default]
    Passthrough,
}

/// What holds while the sidecar never had a netmap.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UntilNetmap {
    /// Forward, spool and count.
    Open,
    /// Answer sessions with 503.
    Closed,
    /// Answer every request with 503: there may be a grant that wants its event first.
    ClosedToAll,
}

/// TCP ports of the sidecar on the pod's addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SidecarPorts {
    /// Health and metrics: [`ADMIN_PORT`], unless a container declares it.
    pub admin: u16,
    /// The kubelet's probe: [`PROBE_PORT`], unless a container declares it.
    pub probe: u16,
}

impl Default for SidecarPorts {
    fn default() -> Self {
        Self { admin: ADMIN_PORT, probe: PROBE_PORT }
    }
}

/// Where the control API is: dialled by address, verified by name, so that no DNS is needed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ControlAddress {
    /// DNS name in the server's certificate, such as `podwitness-control.podwitness-system.svc`.
    pub name: String,
    /// TCP port.
    pub port: u16,
    /// ClusterIPs of the Service.
    pub addresses: Vec<IpAddr>,
}

/// Where the API server is when a pod is admitted: what a sidecar goes by until it has a netmap.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ApiServerAddresses {
    /// Of the Service `kubernetes` of namespace `default`, in all families.
    pub service: Vec<SocketAddr>,
    /// What is behind it, by its EndpointSlices.
    pub endpoints: Vec<SocketAddr>,
}

/// One directory of credentials that the sidecar keeps for other containers, in place of a volume of the kubelet.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountDir {
    /// First container that reads it, for messages.
    pub container: String,
    /// The volume for which it stands; empty in pods of older versions.
    #[serde(default)]
    pub volume: String,
    /// Where the sidecar reads.
    pub source: String,
    /// Where the sidecar writes.
    pub target: String,
    /// Permission bits of files that [`Self::modes`] does not name.
    #[serde(default = "default_mode")]
    pub default_mode: u32,
    /// Permission bits of files by their path in the volume.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modes: BTreeMap<String, u32>,
    /// Directories on which containers mount other volumes: the mount that contains them is read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<String>,
}

const fn default_mode() -> u32 {
    ServiceAccountDir::DEFAULT_MODE
}

impl ServiceAccountDir {
    /// Permission bits of files in a volume that says nothing else (`defaultMode` of `ProjectedVolumeSource`).
    pub const DEFAULT_MODE: u32 = 0o644;

    /// One whose files have the usual permissions.
    #[must_use]
    pub fn new(container: &str, source: String, target: String) -> Self {
        Self {
            container: container.to_owned(),
            volume: String::new(),
            source,
            target,
            default_mode: Self::DEFAULT_MODE,
            modes: BTreeMap::new(),
            mount_points: Vec::new(),
        }
    }
}

macro_rules! label_value {
    ($type:ty { $($variant:ident = $text:literal),+ }) => {
        impl $type {
            /// The value as it stands in a label or an environment variable.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Reads such a value; `None` for any other text.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

label_value!(Inject { Required = "required", Optional = "optional" });
label_value!(Profile { Interface = "interface", Restricted = "restricted" });
label_value!(Credentials { Sealed = "sealed", Passthrough = "passthrough" });
label_value!(UntilNetmap { Open = "open", Closed = "closed", ClosedToAll = "closed-to-all" });
