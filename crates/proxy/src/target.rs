//! Where an intercepted connection was meant to go, and whether that is the API server.
//!
//! Known are the Service's address, what the pod was given, and what the netmap lists. Of everything else that the rules caught the certificate
//! tells whose it is; names do not, because all clusters have the same.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use podwitness_core::control::Netmap;
use rustls::pki_types::ServerName;

use crate::ProxyConfig;

/// The API server as one client wants it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Target {
    /// Where it is dialled.
    pub to: SocketAddr,
    /// The name that its certificate has to bear: the client's, where that is one of the API server's, else the
    /// address.
    pub name: ServerName<'static>,
}

/// What is known of API servers: the fixed set of names, the Service, and at any moment a netmap.
#[derive(Clone, Debug)]
pub struct Targets {
    api_server: SocketAddr,
    api_servers: Vec<SocketAddr>,
    listeners: Vec<SocketAddr>,
    names: Vec<String>,
}

/// Every DNS name under which clients in a pod address the API server, for the cluster's DNS domain.
#[must_use]
pub fn api_names(cluster_domain: &str) -> Vec<String> {
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
    if !cluster_domain.is_empty() {
        names.push(format!("kubernetes.default.svc.{}", cluster_domain.to_ascii_lowercase()));
    }
    names.push(LOCALHOST.to_owned());
    names
}

const LOCALHOST: &str = "localhost";

impl Targets {
    /// The targets of a proxy with this configuration.
    #[must_use]
    pub fn new(config: &ProxyConfig) -> Self {
        Self {
            api_server: config.api_server,
            api_servers: config.api_servers.iter().copied().map(canonical).collect(),
            listeners: config.listeners.clone(),
            names: api_names(&config.cluster_domain),
        }
    }

    /// Where a connection really goes: one that was made to the proxy itself is meant for the Service. Thus nothing
    /// is ever dialled that would come back here.
    #[must_use]
    pub fn destination(&self, original: SocketAddr) -> SocketAddr {
        let original = canonical(original);
        if self.listeners.iter().any(|own| reaches(*own, original)) { self.api_server } else { original }
    }

    /// Whether `to` is an API server's address.
    #[must_use]
    pub fn is_known(&self, to: SocketAddr, netmap: Option<&Netmap>) -> bool {
        to == self.api_server
            || self.api_servers.contains(&to)
            || netmap.is_some_and(|map| map.api_servers.iter().any(|api| canonical(*api) == to))
    }

    /// Whether `to` is the address of the Service, which the API server's certificate bears, with every name of it.
    #[must_use]
    pub fn is_service(&self, to: SocketAddr) -> bool {
        to == self.api_server
    }

    /// Whether this is a name of the fixed set, loopback's among them, which every leaf bears.
    #[must_use]
    pub fn is_fixed(&self, server_name: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(server_name))
    }

    /// Whether this is a name of the Service. Other clusters have the same.
    #[must_use]
    pub fn is_name(&self, server_name: Option<&str>) -> bool {
        server_name.is_some_and(|name| !name.eq_ignore_ascii_case(LOCALHOST) && self.is_fixed(name))
    }

    /// The API server at `to`, for a client that asks for `server_name`.
    #[must_use]
    pub fn api(&self, to: SocketAddr, server_name: Option<&str>) -> Arc<Target> {
        let named = server_name.filter(|name| self.is_name(Some(name)));
        let name = named.and_then(|name| ServerName::try_from(name.to_ascii_lowercase()).ok());
        Arc::new(Target { to, name: name.unwrap_or_else(|| ServerName::from(to.ip())) })
    }

    /// What the certificate of an API server may bear, one of them at least.
    #[must_use]
    pub fn names(&self, netmap: Option<&Netmap>) -> Vec<ServerName<'static>> {
        let names = self.names.iter().filter(|name| *name != LOCALHOST).rev();
        let names = names.filter_map(|name| ServerName::try_from(name.clone()).ok());
        names.chain(self.addresses(netmap).into_iter().map(ServerName::from)).collect()
    }

    /// Addresses for which a leaf has to be good.
    #[must_use]
    pub fn addresses(&self, netmap: Option<&Netmap>) -> Vec<IpAddr> {
        let listed = netmap.map(|map| map.api_servers.as_slice()).unwrap_or_default();
        std::iter::once(&self.api_server)
            .chain(&self.api_servers)
            .chain(listed)
            .map(|api| api.ip().to_canonical())
            .collect()
    }
}

/// A listener on an unspecified address is reached by every address with its port that is its own: loopback is all
/// that can be told here.
fn reaches(own: SocketAddr, original: SocketAddr) -> bool {
    let own_ip = own.ip().to_canonical();
    own.port() == original.port()
        && (own_ip == original.ip() || own_ip.is_unspecified() && original.ip().is_loopback())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Targets {
        Targets {
            api_server: "10.96.0.1:443".parse().unwrap(),
            api_servers: vec!["172.18.0.7:6443".parse().unwrap()],
            listeners: vec!["127.0.0.1:15443".parse().unwrap(), "[::1]:15443".parse().unwrap()],
            names: api_names("cluster.local"),
        }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_connection_to_the_proxy_itself_goes_to_the_service() {
        for own in ["127.0.0.1:15443", "[::1]:15443", "[::ffff:127.0.0.1]:15443"] {
            assert_eq!(targets().destination(at(own)), at("10.96.0.1:443"), "{own}");
        }
        assert_eq!(targets().destination(at("127.0.0.1:6443")), at("127.0.0.1:6443"));
        assert_eq!(targets().destination(at("[::ffff:10.96.0.1]:443")), at("10.96.0.1:443"));
    }

    #[test]
    fn known_are_the_service_what_the_pod_was_given_and_what_the_netmap_lists() {
        let map = Netmap { api_servers: vec![at("[::ffff:172.18.0.2]:6443")], ..Netmap::default() };
        assert!(targets().is_known(at("10.96.0.1:443"), None));
        assert!(targets().is_known(at("172.18.0.7:6443"), None));
        assert!(!targets().is_known(at("172.18.0.2:6443"), None));
        assert!(targets().is_known(at("172.18.0.2:6443"), Some(&map)));
        assert!(!targets().is_known(at("172.18.0.2:443"), Some(&map)));
    }

    #[test]
    fn the_server_is_held_to_the_name_the_client_asked_for_or_to_its_address() {
        let name = |sni| targets().api(at("10.96.0.1:443"), sni).name.to_str().into_owned();
        assert_eq!(name(Some("Kubernetes.Default.svc")), "kubernetes.default.svc");
        for sni in [None, Some("localhost"), Some("example.org"), Some("kubernetes.default.svc.evil.org")] {
            assert_eq!(name(sni), "10.96.0.1", "{sni:?}");
        }
    }
}
