//! What a proxy is told once, at its start.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use podwitness_core::inject::{Inject, UntilNetmap};

use crate::journal::Seals;

/// The pod on whose behalf connections are intercepted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodIdentity {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Uid of the pod.
    pub uid: String,
    /// Node on which it runs.
    pub node: String,
    /// Its service account.
    pub service_account: String,
}

/// Where recordings wait for a recorder.
#[derive(Clone, Debug)]
pub struct Spool {
    /// Directory of the spool.
    pub dir: PathBuf,
    /// Bytes that all recordings together may take there.
    pub limit: u64,
    /// Seals what lies there, so that changes are found; without it nothing is sealed.
    pub seals: Option<Arc<Seals>>,
}

/// Settings of a proxy.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The pod.
    pub pod: PodIdentity,
    /// How binding injection is in its namespace.
    pub inject: Inject,
    /// What holds before the first netmap.
    pub until_netmap: UntilNetmap,
    /// Bytes of memory that all recordings together may take, what is read ahead included.
    pub memory: u64,
    /// Bytes of memory that all connections and requests together may take; what finds no room is refused.
    pub connections_memory: u64,
    /// The spool; `None` keeps what is not yet recorded in memory alone.
    pub spool: Option<Spool>,
    /// The API server as the pod knows it: ClusterIP and port of Service `default/kubernetes`.
    pub api_server: SocketAddr,
    /// Its other addresses, as far as they are known without a netmap: its endpoints.
    pub api_servers: Vec<SocketAddr>,
    /// Addresses on which intercepted connections are accepted. A connection whose original destination is one of
    /// them was made to the proxy itself and is meant for `api_server`.
    pub listeners: Vec<SocketAddr>,
    /// DNS domain of the cluster, such as `cluster.local`.
    pub cluster_domain: String,
}
