//! From objects to addresses. Pure.
//!
//! The Service `default/kubernetes` and its EndpointSlices say where API servers listen. What leads there is found by
//! comparing: any Service with an endpoint that is known already, with all of its addresses and node ports. An endpoint
//! may be such an address again, so this is done until nothing is added.
//!
//! Invariant: at most [`MAX_ADDRESSES`] addresses, in order of importance, so that a user who may write Services cannot
//! push out what the cluster itself says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Node, Service, ServicePort},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt as _;

use super::{Given, Named};

/// Cap on addresses; further ones are left out and counted. Sidecars redirect as many.
pub const MAX_ADDRESSES: usize = 256;
/// Cap on ports on which API servers themselves listen.
const MAX_PORTS: usize = 8;
/// How often Services are gone through: one that leads to one that leads to one is enough.
const ROUNDS: usize = 4;
/// Namespace and name of the Service of the API server.
const API_SERVER: (&str, &str) = ("default", "kubernetes");
/// Label of an EndpointSlice: the Service that it is of.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HTTPS: u16 = 443;

/// Where API servers are reached.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Addresses, in order of importance.
    pub addresses: Vec<SocketAddr>,
    /// Ports on which API servers themselves listen.
    pub secure_ports: Vec<u16>,
    /// How many addresses have no place.
    pub left_out: usize,
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    /// Services of all namespaces.
    pub services: &'a [Arc<Service>],
    /// EndpointSlices of all namespaces.
    pub slices: &'a [Arc<EndpointSlice>],
    /// Nodes.
    pub nodes: &'a [Arc<Node>],
    /// What is said of it.
    pub given: &'a [Given],
    /// Addresses of the names therein.
    pub named: &'a Named,
}

#[derive(Default)]
struct List {
    known: BTreeSet<SocketAddr>,
    found: Found,
}

/// Everything that leads to an API server.
#[must_use]
pub fn find(objects: &Objects<'_>) -> Found {
    let mut list = List::default();
    let is_own = |of: (&str, &str)| of == API_SERVER;
    let own = objects.services.iter().filter(|service| is_own(service_key(service)));
    list.add(own.flat_map(|service| addresses_of(service, &ports(service))));
    let own = objects.slices.iter().filter(|slice| is_own(slice_key(slice)));
    let behind: BTreeSet<SocketAddr> = own.flat_map(|slice| endpoints(slice)).map(|(at, _)| at).collect();
    let secure: BTreeSet<u16> = behind.iter().map(SocketAddr::port).collect();
    list.found.secure_ports = secure.iter().copied().take(MAX_PORTS).collect();
    list.add(behind.iter().copied());
    list.add(objects.given.iter().flat_map(|given| given_addresses(given, objects.named, &secure)));
    list.add(objects.nodes.iter().flat_map(|node| of_node(node, &behind)));
    through_services(objects, &mut list);
    list.found
}

impl List {
    /// Adds a group, sorted, so that the same objects always give the same list.
    fn add(&mut self, group: impl Iterator<Item = SocketAddr>) -> bool {
        let group: BTreeSet<SocketAddr> = group.filter(|at| is_of_a_host(*at)).collect();
        let mut grown = false;
        for at in group {
            if self.known.contains(&at) {
                continue;
            }
            if self.found.addresses.len() < MAX_ADDRESSES {
                self.known.insert(at);
                self.found.addresses.push(at);
                grown = true;
            } else {
                self.found.left_out = self.found.left_out.saturating_add(1);
            }
        }
        grown
    }
}

/// Whether another host may be meant: whatever a pod reaches as itself is no API server.
fn is_of_a_host(at: SocketAddr) -> bool {
    let ip = at.ip();
    at.port() != 0 && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

fn through_services(objects: &Objects<'_>, list: &mut List) {
    let slices: Vec<_> = objects.slices.iter().map(|slice| (slice_key(slice), slice)).collect();
    let services: BTreeMap<_, _> = objects.services.iter().map(|s| (service_key(s), s)).collect();
    let mut leading: Vec<(&Service, Vec<&ServicePort>)> = Vec::new();
    for _ in 0..ROUNDS {
        leading = slices
            .iter()
            .filter_map(|(of, slice)| {
                let service = services.get(of)?;
                let names = endpoints(slice).filter(|(at, _)| list.known.contains(at)).map(|(_, name)| name);
                let names: BTreeSet<&str> = names.collect();
                let leads = |port: &&ServicePort| names.contains(port.name.as_deref().unwrap_or_default());
                let ports: Vec<&ServicePort> = ports(service).into_iter().filter(leads).collect();
                (!ports.is_empty()).then_some((service.as_ref(), ports))
            })
            .collect();
        if !list.add(leading.iter().flat_map(|(service, ports)| addresses_of(service, ports))) {
            break;
        }
    }
    // Last, because each stands for as many addresses as there are nodes.
    let node_ports = leading.iter().flat_map(|(_, ports)| ports).filter_map(|port| number(port.node_port?));
    let node_ports: BTreeSet<u16> = node_ports.collect();
    let nodes: Vec<IpAddr> = objects.nodes.iter().flat_map(|node| node_ips(node)).collect();
    list.add(node_ports.iter().flat_map(|port| nodes.iter().map(|ip| SocketAddr::new(*ip, *port))));
}

/// All cluster, external and load balancer's addresses of a Service.
#[must_use]
pub fn of_service(service: &Service) -> Vec<SocketAddr> {
    addresses_of(service, &ports(service))
}

/// All endpoints of a slice.
#[must_use]
pub fn of_slice(slice: &EndpointSlice) -> Vec<SocketAddr> {
    endpoints(slice).map(|(at, _)| at).collect()
}

fn service_key(service: &Service) -> (&str, &str) {
    (
        service.metadata.namespace.as_deref().unwrap_or_default(),
        service.metadata.name.as_deref().unwrap_or_default(),
    )
}

fn slice_key(slice: &EndpointSlice) -> (&str, &str) {
    let name = slice.labels().get(SERVICE_NAME).map_or("", String::as_str);
    (slice.metadata.namespace.as_deref().unwrap_or_default(), name)
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn ip(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

fn ports(service: &Service) -> Vec<&ServicePort> {
    let is_tcp = |port: &&ServicePort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).filter(is_tcp).collect()
}

/// Cluster, external and load balancer's addresses of a Service, with these ports of it.
fn addresses_of(service: &Service, ports: &[&ServicePort]) -> Vec<SocketAddr> {
    let spec = service.spec.as_ref();
    let listed = spec.iter().flat_map(|spec| {
        spec.cluster_ips.iter().chain(&spec.external_ips).flatten().chain(&spec.load_balancer_ip)
    });
    let balancer = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
    let balancer = balancer.flat_map(|balancer| balancer.ingress.iter().flatten());
    let ips: Vec<IpAddr> = listed
        .chain(balancer.filter_map(|ingress| ingress.ip.as_ref()))
        .filter_map(|text| ip(text))
        .collect();
    let numbers: Vec<u16> = ports.iter().filter_map(|port| number(port.port)).collect();
    ips.iter().flat_map(|ip| numbers.iter().map(|port| SocketAddr::new(*ip, *port))).collect()
}

/// Each endpoint with the name of its port.
fn endpoints(slice: &EndpointSlice) -> impl Iterator<Item = (SocketAddr, &str)> {
    let ports = slice.ports.iter().flatten();
    let is_tcp = |protocol: Option<&str>| protocol.is_none_or(|protocol| protocol == "TCP");
    let ports = ports.filter(move |port| is_tcp(port.protocol.as_deref()));
    ports.filter_map(|port| Some((number(port.port?)?, port.name.as_deref().unwrap_or_default()))).flat_map(
        |(port, name)| {
            let ips =
                slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses).filter_map(|text| ip(text));
            ips.map(move |ip| (SocketAddr::new(ip, port), name))
        },
    )
}

fn given_addresses(given: &Given, named: &Named, secure: &BTreeSet<u16>) -> Vec<SocketAddr> {
    let ips: &[IpAddr] = match given {
        Given::Addresses(ips, _) => ips,
        Given::Name(name, _) => named.get(name).map(Vec::as_slice).unwrap_or_default(),
    };
    let ports: BTreeSet<u16> = match given.port() {
        Some(port) => [port].into(),
        None => secure.iter().copied().chain([HTTPS]).collect(),
    };
    ips.iter().flat_map(|ip| ports.iter().map(|port| SocketAddr::new(ip.to_canonical(), *port))).collect()
}

fn node_ips(node: &Node) -> Vec<IpAddr> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let counts = addresses.filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"));
    counts.filter_map(|address| ip(&address.address)).collect()
}

/// All addresses of a node that an API server runs on, with the ports that it has there.
fn of_node(node: &Node, behind: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
    let ips = node_ips(node);
    let ports: BTreeSet<u16> =
        behind.iter().filter(|at| ips.contains(&at.ip())).map(SocketAddr::port).collect();
    ips.iter().flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port))).collect()
}
