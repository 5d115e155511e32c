//! What is said of the API server's addresses: the setting, and the server of `kube-public/cluster-info`.

use std::net::{IpAddr, SocketAddr};

use http::Uri;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::Kubeconfig;

/// Cap on the addresses of one network: each is an address of its own for sidecars, which have place for a few hundred.
pub const MAX_OF_NETWORK: u32 = 64;
/// Cap on items.
const MAX_ITEMS: usize = 64;
/// Key of the ConfigMap (`k8s.io/cluster-bootstrap/token/api`).
const KUBECONFIG: &str = "kubeconfig";

/// Where somebody says that the API server is reached. Without a port: on 443 and on the API server's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Given {
    /// At these addresses.
    Addresses(Vec<IpAddr>, Option<u16>),
    /// At the addresses of this host.
    Name(String, Option<u16>),
}

impl Given {
    /// The host to look up.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Addresses(..) => None,
            Self::Name(name, _) => Some(name),
        }
    }

    /// The port, if one is said.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Addresses(_, port) | Self::Name(_, port) => *port,
        }
    }
}

/// Reads names, addresses and networks (CIDR) separated by commas; all but networks with a port where one is meant.
#[must_use]
pub fn parse(text: &str) -> Option<Vec<Given>> {
    let items: Option<Vec<Given>> = text.split(',').map(|item| one(item.trim())).collect();
    items.filter(|items| items.len() <= MAX_ITEMS)
}

fn one(text: &str) -> Option<Given> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then(|| Given::Addresses(vec![address.ip()], Some(address.port())));
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Some(Given::Addresses(vec![ip], None));
    }
    if let Some((ip, length)) = text.split_once('/') {
        return Some(Given::Addresses(network(ip.parse().ok()?, length.parse().ok()?)?, None));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port != 0)?)),
        None => (text, None),
    };
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
    is_name.then(|| Given::Name(name.to_ascii_lowercase(), port))
}

/// All addresses of a network, if they are few.
fn network(ip: IpAddr, length: u32) -> Option<Vec<IpAddr>> {
    let (first, bits) = match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let count = 1u128.checked_shl(u32::checked_sub(bits, length)?)?;
    if count > u128::from(MAX_OF_NETWORK) {
        return None;
    }
    let first = first & !count.checked_sub(1)?;
    let address = |n: u128| match ip {
        IpAddr::V4(_) => u32::try_from(n).ok().map(|n| IpAddr::from(n.to_be_bytes())),
        IpAddr::V6(_) => Some(IpAddr::from(n.to_be_bytes())),
    };
    (0..count).map(|n| address(first.checked_add(n)?)).collect()
}

/// The servers in `kube-public/cluster-info`, which `kubeadm` and others keep for those who join.
pub(super) fn of_cluster_info(object: &ConfigMap) -> Vec<Given> {
    let text = object.data.as_ref().and_then(|data| data.get(KUBECONFIG));
    let Some(config) = text.and_then(|text| Kubeconfig::from_yaml(text).ok()) else { return vec![] };
    let servers = config.clusters.into_iter().filter_map(|named| named.cluster?.server);
    servers.filter_map(|server| of_url(&server)).take(MAX_ITEMS).collect()
}

fn of_url(url: &str) -> Option<Given> {
    let uri: Uri = url.parse().ok()?;
    let port = uri.port_u16().unwrap_or(443);
    match one(uri.host()?)? {
        Given::Addresses(addresses, _) => Some(Given::Addresses(addresses, Some(port))),
        Given::Name(name, _) => Some(Given::Name(name, Some(port))),
    }
}
