//! What injection depends on besides the pod.

use std::collections::BTreeMap;

use podwitness_core::{
    allow::Allow,
    inject::{ApiServerAddresses, ControlAddress, Credentials, Inject, Profile, UntilNetmap},
    trust::Trust,
};

use super::{Amounts, Quota, Ranges};

/// Everything that [`super::mutate()`] needs to know. Made anew for each pod from what the caches hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// How binding injection is in the pod's namespace.
    pub inject: Inject,
    /// How the pod's connections are to be intercepted.
    pub profile: Profile,
    /// What containers hold as token.
    pub credentials: Credentials,
    /// The namespace's annotations in our domain: defaults for those of the pod.
    pub namespace_annotations: BTreeMap<String, String>,
    /// What the namespace accepts beyond the baseline where injection is required.
    pub allow: Allow,
    /// Version of the installation, for people.
    pub version: String,
    /// Image of the sidecar.
    pub image: String,
    /// Pull secrets to add to the pod.
    pub pull_secrets: Vec<String>,
    /// What the sidecar has where no annotation says otherwise.
    pub amounts: Amounts,
    /// What the namespace's LimitRanges demand.
    pub ranges: Ranges,
    /// The namespace's ResourceQuotas.
    pub quotas: Vec<Quota>,
    /// Size limit of the spool volume in bytes.
    pub spool_size: u64,
    /// Whether the sidecar gets the node's `/dev/net`.
    pub node_tun: bool,
    /// The control API.
    pub control: ControlAddress,
    /// PEM roots under which the control API's certificate stands.
    pub control_ca: String,
    /// Where the API server is.
    pub api_server: ApiServerAddresses,
    /// What holds before the first netmap: whether a grant that fails closed means the pod.
    pub until_netmap: UntilNetmap,
    /// Whether the sidecar is to expect a certificate of the cluster's CA.
    pub trust: Trust,
}
