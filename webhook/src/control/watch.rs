//! Caches of the objects that worlds are made of, each kept by a watch that never gives up.
//!
//! A cache changes only by what a watch delivers: a list that fails leaves it as it is, and one that succeeds
//! replaces it whole.

mod slim;

use std::{fmt::Debug, sync::Arc};

use futures_util::{Stream, StreamExt as _, future::ready};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{ConfigMap, Namespace, Node, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        reflector::{Store, store},
        watcher,
        watcher::{Config, Event},
    },
};
use podwitness_crd::{Grant, Recorder};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinSet};

use super::pod::{Pod, relevant};
use crate::{
    failures::Failures,
    recorders::{desired::MANAGER, objects},
};

/// Namespace and name of the ConfigMap that says where the API server is, to those who join the cluster.
const CLUSTER_INFO: (&str, &str) = ("kube-public", "cluster-info");

/// A namespace without its specification and status.
pub type NamespaceMeta = PartialObjectMeta<Namespace>;

/// The caches.
#[derive(Clone)]
pub struct Caches {
    /// Pods that may enrol.
    pub pods: Store<Pod>,
    /// Namespaces: labels and annotations.
    pub namespaces: Store<NamespaceMeta>,
    /// Grants.
    pub grants: Store<Grant>,
    /// Recorders.
    pub recorders: Store<Recorder>,
    /// Services: names, addresses and ports.
    pub services: Store<Service>,
    /// What is behind them: addresses and ports.
    pub slices: Store<EndpointSlice>,
    /// Nodes: labels and addresses.
    pub nodes: Store<Node>,
    /// Where the API server is, for those who join the cluster.
    pub cluster_info: Store<ConfigMap>,
    /// Objects of recorders.
    pub objects: objects::Caches,
}

/// Who is told of changes.
#[derive(Clone, Default)]
pub struct Changed {
    /// Of everything that worlds are made of.
    pub world: Arc<Notify>,
    /// Of what may say where the API server is.
    pub addresses: Arc<Notify>,
    /// Of recorders and their objects.
    pub recorders: Arc<Notify>,
}

impl Caches {
    /// Starts all watches in `tasks`; `changed` is told of every change.
    pub fn start(client: &Client, system: &str, changed: &Changed, tasks: &mut JoinSet<()>) -> Self {
        let all = client.clone();
        let client = || all.clone();
        let pods = watcher::<Pod>(Api::all(client()), Config::default())
            .filter_map(|event| ready(event.map(relevant).transpose()));
        let (namespace, name) = CLUSTER_INFO;
        let of_name = Config::default().fields(&format!("metadata.name={name}"));
        let mut addresses = Tasks { tell: vec![Arc::clone(&changed.addresses)], tasks };
        let (services, slices, nodes, cluster_info) = (
            addresses
                .keep("watch Services", watcher(Api::all(client()), Config::default()).modify(slim::service)),
            addresses
                .keep("watch endpoints", watcher(Api::all(client()), Config::default()).modify(slim::slice)),
            addresses.keep("watch nodes", watcher(Api::all(client()), Config::default()).modify(slim::node)),
            addresses.watch("watch cluster-info", Api::namespaced(client(), namespace), of_name),
        );
        let mut world = Tasks { tell: vec![Arc::clone(&changed.world)], tasks };
        let (pods, namespaces, grants) = (
            world.keep("watch pods", pods),
            world.watch("watch namespaces", Api::all(client()), Config::default()),
            world.watch("watch grants", Api::all(client()), Config::default()),
        );
        let both = vec![Arc::clone(&changed.world), Arc::clone(&changed.recorders)];
        let recorders =
            Tasks { tell: both, tasks }.watch("watch recorders", Api::all(client()), Config::default());
        let objects = Tasks { tell: vec![Arc::clone(&changed.recorders)], tasks }.objects(&client(), system);
        Self { pods, namespaces, grants, recorders, services, slices, nodes, cluster_info, objects }
    }

    /// Completes when every cache that worlds are made of has been filled once. Nobody else may wait for these.
    pub(super) fn filling(&self) -> impl Future<Output = ()> + Send + use<> {
        let Self { pods, namespaces, grants, recorders, services, slices, .. } = self.clone();
        async move {
            // An error says that the watch is gone, which ends the program elsewhere.
            let _ = pods.wait_until_ready().await;
            let _ = namespaces.wait_until_ready().await;
            let _ = grants.wait_until_ready().await;
            let _ = recorders.wait_until_ready().await;
            let _ = services.wait_until_ready().await;
            let _ = slices.wait_until_ready().await;
        }
    }
}

struct Tasks<'a> {
    /// Who is told of each change.
    tell: Vec<Arc<Notify>>,
    tasks: &'a mut JoinSet<()>,
}

impl Tasks<'_> {
    fn watch<K>(&mut self, what: &'static str, api: Api<K>, config: Config) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.keep(what, watcher(api, config))
    }

    /// Watches what carries our label in the system namespace.
    fn objects(&mut self, client: &Client, system: &str) -> objects::Caches {
        objects::Caches {
            service_accounts: self.ours("watch service accounts of recorders", client, system),
            services: self.ours("watch Services of recorders", client, system),
            network_policies: self.ours("watch network policies of recorders", client, system),
            budgets: self.ours("watch disruption budgets of recorders", client, system),
            stateful_sets: self.ours("watch StatefulSets of recorders", client, system),
        }
    }

    fn ours<K>(&mut self, what: &'static str, client: &Client, system: &str) -> Store<PartialObjectMeta<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), system);
        let of_ours = Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
        self.watch(what, api, of_ours)
    }

    fn keep<K, S>(&mut self, what: &'static str, events: S) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
        S: Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    {
        let (cache, writer) = store();
        let changed = self.tell.clone();
        let events = events.default_backoff().reflect(writer);
        self.tasks.spawn(follow(what, events, changed));
        cache
    }
}

/// Drives a cache.
async fn follow<K>(
    what: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    changed: Vec<Arc<Notify>>,
) {
    let mut events = std::pin::pin!(events);
    let mut failures = Failures::of(what);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(_) => {
                failures.clear();
                changed.iter().for_each(|changed| changed.notify_one());
            }
            Err(error) => failures.note(&error),
        }
    }
}
