//! Caches of the objects that worlds are made of, each kept by a watch that never gives up.
//!
//! A cache changes only by what a watch delivers: a list that fails leaves it as it is, and one that succeeds
//! replaces it whole.

use std::{fmt::Debug, sync::Arc};

use futures_util::{Stream, StreamExt as _, future::ready};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
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

/// Namespace and name of the Service of the API server, whose EndpointSlices carry its name in a label.
const API_SERVER: (&str, &str) = ("default", "kubernetes");
/// Failures in a row after which a watch is no longer in the ordinary course of things.
const QUIET_FAILURES: u32 = 3;

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
    /// The Service of the API server.
    pub services: Store<Service>,
    /// What is behind it.
    pub slices: Store<EndpointSlice>,
}

impl Caches {
    /// Starts all watches in `tasks`; `changed` is told of every change.
    pub fn start(client: &Client, changed: &Arc<Notify>, tasks: &mut JoinSet<()>) -> Self {
        let (namespace, name) = API_SERVER;
        let client = || client.clone();
        let services: Api<Service> = Api::namespaced(client(), namespace);
        let slices: Api<EndpointSlice> = Api::namespaced(client(), namespace);
        let of_service = Config::default().fields(&format!("metadata.name={name}"));
        let of_slices = Config::default().labels(&format!("kubernetes.io/service-name={name}"));
        let pods = watcher::<Pod>(Api::all(client()), Config::default())
            .filter_map(|event| ready(event.map(relevant).transpose()));
        let mut tasks = Tasks { changed, tasks };
        Self {
            pods: tasks.keep("pods", pods),
            namespaces: tasks.watch("namespaces", Api::all(client()), Config::default()),
            grants: tasks.watch("grants", Api::all(client()), Config::default()),
            recorders: tasks.watch("recorders", Api::all(client()), Config::default()),
            services: tasks.watch("services", services, of_service),
            slices: tasks.watch("endpointslices", slices, of_slices),
        }
    }

    /// Completes when every cache has been filled once.
    pub async fn filled(&self) {
        // An error says that the watch is gone, which ends the program elsewhere.
        let _ = self.pods.wait_until_ready().await;
        let _ = self.namespaces.wait_until_ready().await;
        let _ = self.grants.wait_until_ready().await;
        let _ = self.recorders.wait_until_ready().await;
        let _ = self.services.wait_until_ready().await;
        let _ = self.slices.wait_until_ready().await;
    }
}

struct Tasks<'a> {
    changed: &'a Arc<Notify>,
    tasks: &'a mut JoinSet<()>,
}

impl Tasks<'_> {
    fn watch<K>(&mut self, what: &'static str, api: Api<K>, config: Config) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.keep(what, watcher(api, config))
    }

    fn keep<K, S>(&mut self, what: &'static str, events: S) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
        S: Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    {
        let (cache, writer) = store();
        let changed = Arc::clone(self.changed);
        let events = events.default_backoff().reflect(writer);
        self.tasks.spawn(follow(what, events, changed));
        cache
    }
}

/// Drives a cache. A watch ends by itself every few minutes and may find that its version is too old: that is the
/// ordinary course of things, and only failures in a row are worth a warning.
async fn follow<K>(
    what: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    changed: Arc<Notify>,
) {
    let mut events = std::pin::pin!(events);
    let mut failures: u32 = 0;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(_) => {
                failures = 0;
                changed.notify_one();
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                report(what, &error, failures);
            }
        }
    }
}

fn report(what: &'static str, error: &watcher::Error, failures: u32) {
    if failures >= QUIET_FAILURES {
        tracing::warn!(%error, what, failures, "a watch fails; the last state stays");
    } else {
        tracing::debug!(%error, what, failures, "a watch begins anew");
    }
}
