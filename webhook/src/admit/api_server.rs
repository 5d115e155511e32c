//! Where the API server is, as the Service `default/kubernetes` and its EndpointSlices say: what a sidecar goes by until
//! the control plane tells it more.
//!
//! The variables that the kubelet gives every container say it as well, but a Service by the name `kubernetes` in the
//! pod's own namespace takes their place (`pkg/kubelet/kubelet_pods.go`, `getServiceEnvVarMap`).

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use futures_util::StreamExt as _;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        watcher::{Config, watch_object, watcher},
    },
};
use podwitness_core::inject::{ApiServerAddresses, MAX_STAMPED_ADDRESSES};
use podwitness_runtime::readiness::{BlockReady, Readiness};
use tokio::{sync::watch, task::JoinSet};

use super::cache::{self, Cache};
use crate::{control::addresses, failures::Failures};

const NAMESPACE: &str = "default";
const SERVICE: &str = "kubernetes";
/// Cap on EndpointSlices; each has up to 100 endpoints.
const MAX_SLICES: usize = 16;

/// What the watches have delivered.
#[derive(Debug)]
pub(super) struct ApiServer {
    service: watch::Sender<Vec<SocketAddr>>,
    slices: Cache<Vec<SocketAddr>>,
}

impl ApiServer {
    /// Knows nothing yet.
    pub(super) fn new() -> Self {
        Self { service: watch::Sender::default(), slices: Cache::new(MAX_SLICES) }
    }

    /// Starts both watches; readiness waits until each has delivered once.
    pub(super) fn follow(self: &Arc<Self>, client: &Client, readiness: &Readiness, tasks: &mut JoinSet<()>) {
        let of_service = Config::default().labels(&format!("kubernetes.io/service-name={SERVICE}"));
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
        let slices = watcher(slices, of_service).default_backoff();
        let (server, first) = (Arc::clone(self), readiness.block("API server's endpoints"));
        tasks.spawn(async move {
            let read = addresses::of_slice;
            cache::follow("watch the API server's endpoints", slices, &server.slices, read, first).await;
        });
        let (server, first) = (Arc::clone(self), readiness.block("API server's Service"));
        let services = Api::namespaced(client.clone(), NAMESPACE);
        tasks.spawn(async move { server.follow_service(services, first).await });
    }

    async fn follow_service(&self, services: Api<Service>, first: BlockReady) {
        let mut first = Some(first);
        let mut failures = Failures::of("watch the API server's Service");
        let mut changes = watch_object(services, SERVICE).default_backoff().boxed();
        while let Some(change) = changes.next().await {
            match change {
                Ok(service) => {
                    failures.clear();
                    // It is made anew by the API server where somebody deletes it, with the address that it had.
                    if let Some(service) = service {
                        self.service.send_replace(addresses::of_service(&service));
                    }
                    drop(first.take());
                }
                Err(error) => failures.note(&error),
            }
        }
    }

    /// What to stamp into a pod.
    pub(super) fn addresses(&self) -> ApiServerAddresses {
        let endpoints: BTreeSet<SocketAddr> =
            self.slices.values().iter().flat_map(|slice| slice.iter().copied()).collect();
        let service = self.service.borrow();
        ApiServerAddresses {
            service: service.iter().take(MAX_STAMPED_ADDRESSES).copied().collect(),
            endpoints: endpoints.into_iter().take(MAX_STAMPED_ADDRESSES).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    #[test]
    fn all_families_of_the_service_and_all_slices_are_stamped() {
        let server = ApiServer::new();
        assert_eq!(server.addresses(), ApiServerAddresses::default());
        let service: Service =
            serde_json::from_value(json!({"spec": {"clusterIPs": ["10.96.0.1", "fd00::1"],
            "ports": [{"name": "https", "port": 443}]}}))
            .unwrap();
        server.service.send_replace(addresses::of_service(&service));
        for (name, addresses) in [("v4", ["172.18.0.3", "172.18.0.2"]), ("v6", ["fd01::2", "fd01::3"])] {
            let slice: EndpointSlice = serde_json::from_value(json!({"metadata": {"name": name},
                "addressType": "IPv4", "ports": [{"port": 6443}],
                "endpoints": [{"addresses": [addresses[0]]}, {"addresses": [addresses[1]]}]}))
            .unwrap();
            server.slices.take(Event::Apply(slice), addresses::of_slice);
        }
        let text = |list: &[SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let stamped = server.addresses();
        assert_eq!(text(&stamped.service), ["10.96.0.1:443", "[fd00::1]:443"]);
        let expected = ["172.18.0.2:6443", "172.18.0.3:6443", "[fd01::2]:6443", "[fd01::3]:6443"];
        assert_eq!(text(&stamped.endpoints), expected);
    }
}
