//! What is kept of objects of which there are many: names, addresses and ports, so that the caches of a large cluster
//! stay small.

use k8s_openapi::{
    api::{
        core::v1::{Node, NodeStatus, Service},
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// Keeps what tells one object from another, and its labels.
fn meta(meta: &mut ObjectMeta) {
    (meta.annotations, meta.managed_fields, meta.owner_references, meta.finalizers) =
        (None, None, None, None);
}

/// A Service: addresses and ports.
pub(super) fn service(service: &mut Service) {
    meta(&mut service.metadata);
    service.metadata.labels = None;
    if let Some(spec) = &mut service.spec {
        spec.selector = None;
    }
    if let Some(status) = &mut service.status {
        status.conditions = None;
    }
}

/// An EndpointSlice: addresses and ports.
pub(super) fn slice(slice: &mut EndpointSlice) {
    meta(&mut slice.metadata);
    for endpoint in &mut slice.endpoints {
        *endpoint = Endpoint { addresses: std::mem::take(&mut endpoint.addresses), ..Endpoint::default() };
    }
}

/// A node: labels and addresses.
pub(super) fn node(node: &mut Node) {
    meta(&mut node.metadata);
    node.spec = None;
    let addresses = node.status.take().and_then(|status| status.addresses);
    node.status = Some(NodeStatus { addresses, ..NodeStatus::default() });
}
