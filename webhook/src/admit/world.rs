//! What admission knows of the cluster: namespaces and what limits their pods, grants, the address of the control API and
//! the roots it stands under. All of it comes by watch; only a namespace that was labelled a moment ago is fetched.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{self, Service};
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{Config, watch_object, watcher},
    },
};
use podwitness_core::{
    grant::{GrantSpec, PodTarget, dst_fits, src_matches_anyone},
    inject::{CONTROL_PORT, ControlAddress, Inject, UntilNetmap},
    labels,
    trust::Trust,
};
use podwitness_crd::Grant;
use podwitness_runtime::{
    readiness::{BlockReady, Readiness},
    version::version,
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet};

use super::{
    Settings,
    api_server::ApiServer,
    cache::{self, Cache},
    constraints::Constraints,
    grants::Target,
    namespaces::Namespace,
    older,
    refusal::{Reason, Refusal},
};
use crate::{certs, config::AdmitConfig, failures::Failures};

/// Cap on labelled namespaces in memory; one that is left out is fetched for each pod.
const MAX_NAMESPACES: usize = 20_000;
/// Cap on grants; above it every pod is stamped as if a grant that fails closed meant it.
const MAX_GRANTS: usize = 10_000;
/// How long fetching a namespace may take; the API server gives a review 5 s.
const FETCH: Duration = Duration::from_secs(2);

type NamespaceMeta = PartialObjectMeta<v1::Namespace>;

/// The knowledge. Made once and shared.
pub(super) struct World {
    pub(super) config: AdmitConfig,
    namespaces: Cache<Namespace>,
    grants: Cache<GrantSpec>,
    control: watch::Sender<Option<ControlAddress>>,
    roots: watch::Receiver<Option<Arc<str>>>,
    api_server: Arc<ApiServer>,
    pub(super) constraints: Arc<Constraints>,
    fetch: Option<Api<NamespaceMeta>>,
    pub(super) client: Option<Client>,
}

impl World {
    /// Knows nothing yet; fetches namespaces through `client`.
    pub(super) fn new(
        config: AdmitConfig,
        roots: watch::Receiver<Option<Arc<str>>>,
        client: Option<&Client>,
    ) -> Self {
        Self {
            config,
            namespaces: Cache::new(MAX_NAMESPACES),
            grants: Cache::new(MAX_GRANTS),
            control: watch::Sender::new(None),
            roots,
            api_server: Arc::new(ApiServer::new()),
            constraints: Arc::new(Constraints::new()),
            fetch: client.map(|client| Api::all(client.clone())),
            client: client.cloned(),
        }
    }

    /// Starts every watch; readiness waits until each has delivered once.
    pub(super) fn follow(self: &Arc<Self>, client: &Client, readiness: &Readiness, tasks: &mut JoinSet<()>) {
        self.api_server.follow(client, readiness, tasks);
        self.constraints.follow(client, readiness, tasks);
        let labelled = Config::default().labels(labels::INJECT);
        let namespaces = watcher(Api::<NamespaceMeta>::all(client.clone()), labelled).default_backoff();
        let grants = watcher(Api::<Grant>::all(client.clone()), Config::default()).default_backoff();
        let (world, first) = (Arc::clone(self), readiness.block("namespaces"));
        tasks.spawn(async move {
            let read = |namespace: &NamespaceMeta| Namespace::read(&namespace.metadata);
            cache::follow("watch namespaces", namespaces, &world.namespaces, read, first).await;
        });
        let (world, first) = (Arc::clone(self), readiness.block("grants"));
        tasks.spawn(async move {
            cache::follow("watch grants", grants, &world.grants, |grant: &Grant| grant.spec.0.clone(), first)
                .await;
        });
        let (world, first) = (Arc::clone(self), readiness.block("control address"));
        let services = Api::namespaced(client.clone(), &self.config.common.namespace);
        tasks.spawn(async move { world.follow_control(services, first).await });
    }

    async fn follow_control(&self, services: Api<Service>, first: BlockReady) {
        let mut first = Some(first);
        let mut failures = Failures::of("watch the Service of the control API");
        let mut changes = watch_object(services, certs::CONTROL.service).default_backoff().boxed();
        while let Some(change) = changes.next().await {
            match change {
                Ok(service) => {
                    failures.clear();
                    if let Some(address) = service.and_then(|service| self.address(&service)) {
                        self.control.send_replace(Some(address));
                        drop(first.take());
                    }
                }
                Err(error) => failures.note(&error),
            }
        }
    }

    fn address(&self, service: &Service) -> Option<ControlAddress> {
        let spec = service.spec.as_ref()?;
        let addresses: Vec<IpAddr> =
            spec.cluster_ips.iter().flatten().filter_map(|text| text.parse().ok()).collect();
        let port = spec.ports.iter().flatten().next().and_then(|port| u16::try_from(port.port).ok());
        (!addresses.is_empty()).then(|| ControlAddress {
            name: certs::CONTROL.host(&self.config.common.namespace),
            port: port.unwrap_or(CONTROL_PORT),
            addresses,
        })
    }

    /// The namespace, from the cache or else from the API server.
    pub(super) async fn namespace(&self, name: &str) -> Result<Arc<Namespace>, Refusal> {
        if let Some(known) = self.namespaces.get(name) {
            return Ok(known);
        }
        let Some(api) = &self.fetch else { return Err(unknown(name)) };
        match tokio::time::timeout(FETCH, api.get(name)).await {
            Ok(Ok(found)) => Ok(Arc::new(Namespace::read(&found.metadata))),
            Ok(Err(error)) => {
                tracing::info!(namespace = name, %error, "cannot read a namespace");
                Err(unknown(name))
            }
            Err(_) => Err(unknown(name)),
        }
    }

    /// Namespaces with the label that asks for injection; `None` where there are more than are known here.
    pub(super) fn targets(&self) -> Option<Vec<Target>> {
        self.namespaces
            .entries()
            .map(|all| all.into_iter().map(|(name, namespace)| (name, namespace.tags.clone())).collect())
    }

    /// What to say of pods that were there before their namespace was labelled.
    pub(super) async fn older_pods(&self, name: &str, namespace: &Namespace) -> Option<String> {
        older::find(self.client.as_ref()?, name, namespace).await?.warning(name)
    }

    /// What injection into `pod` depends on.
    pub(super) fn settings(
        &self,
        namespace: &Namespace,
        name: &str,
        pod: &Value,
        inject: Inject,
    ) -> Result<Settings, Refusal> {
        let not_ready =
            |what: &str| Reason::NotReady.because(format!("admission does not know {what} yet; try again"));
        let control = self.control.borrow().clone().ok_or_else(|| not_ready("the control API's address"))?;
        let roots = self.roots.borrow().clone().ok_or_else(|| not_ready("its own certificate"))?;
        Ok(Settings {
            inject,
            profile: namespace.profile()?,
            credentials: namespace.credentials()?,
            namespace_annotations: namespace.annotations.clone(),
            allow: namespace.allow().0,
            version: version().to_owned(),
            image: self.config.image.clone(),
            pull_secrets: self.config.pull_secrets.clone(),
            amounts: self.config.amounts,
            ranges: self.constraints.ranges(name),
            quotas: self.constraints.quotas(name),
            spool_size: self.config.spool_size,
            node_tun: self.config.node_tun,
            control,
            control_ca: roots.to_string(),
            api_server: self.api_server.addresses(),
            until_netmap: self.until_netmap(namespace, name, pod),
            trust: self.trust(namespace, inject),
        })
    }

    fn trust(&self, namespace: &Namespace, inject: Inject) -> Trust {
        let own = namespace.annotations.get(labels::TRUST).and_then(|text| Trust::parse(text));
        if self.config.common.trust.is_cluster(own, inject) { Trust::Cluster } else { Trust::Pod }
    }

    /// What to say of a namespace whose pods get a sidecar and of which no grant records anything. A grant for some of
    /// its pods is enough.
    pub(super) fn unrecorded(&self, namespace: &Namespace, name: &str) -> Option<String> {
        let target = PodTarget { namespace: name, name: None, tags: &namespace.tags };
        let records = |grant: &GrantSpec| {
            grant.src.iter().any(|src| src_matches_anyone(src))
                && grant.app.kubernetes.iter().any(|rule| !rule.recorder.is_empty())
        };
        if self.grants.any_or_overflowed(|grant| dst_fits(grant, target) && records(grant)) {
            return None;
        }
        let why = if self.grants.any_or_overflowed(|grant| dst_fits(grant, target)) {
            "the grants that match them name no recorder, or match no user"
        } else {
            "no Grant matches them"
        };
        Some(format!(
            "podwitness: pods of this namespace get a sidecar, but nothing is recorded: {why}; create a Grant with a \
             recorder and dst: [\"namespace:{name}\"]"
        ))
    }

    /// Closed where a grant that fails closed means the pod, and to all where one asks for events beside it, so that a
    /// sidecar which has not heard of any grant yet lets nothing past that should have been recorded.
    fn until_netmap(&self, namespace: &Namespace, name: &str, pod: &Value) -> UntilNetmap {
        let target = PodTarget {
            namespace: name,
            name: pod.pointer("/metadata/name").and_then(Value::as_str).filter(|name| !name.is_empty()),
            tags: &namespace.tags,
        };
        let fits = |grant: &GrantSpec| dst_fits(grant, target);
        if !self.grants.any_or_overflowed(|grant| grant.enforces() && fits(grant)) {
            return UntilNetmap::Open;
        }
        // Default grants and others never apply together.
        let closed_to_all = [false, true].into_iter().any(|default| {
            let has = |what: fn(&GrantSpec) -> bool| {
                self.grants.any_or_overflowed(|grant| grant.default == default && what(grant) && fits(grant))
            };
            has(GrantSpec::enforces) && has(GrantSpec::asks_for_events)
        });
        if closed_to_all { UntilNetmap::ClosedToAll } else { UntilNetmap::Closed }
    }
}

fn unknown(namespace: &str) -> Refusal {
    Reason::NotReady.because(format!("admission cannot read namespace {namespace}; try again"))
}

#[cfg(test)]
pub(super) mod tests;
