//! Putting the parts together: what has to be known before anything runs, and then everything that runs for ever.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use podwitness_core::{control::ServingNames, trust::TrustSetting};
use podwitness_runtime::{
    clock::Clock,
    connection::ConnectionLimiter,
    drain,
    metrics::SharedRegistry,
    readiness::{BlockReady, Readiness},
};
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch as channel},
    task::JoinSet,
    time::sleep,
};

use super::{
    ControlError, Keeper, Served,
    access::{Access, Known, Ours},
    addresses::{self, Given},
    assertions::Assertions,
    certificates::{Certificates, chain::ClusterCa, names::Learner},
    enrolments::{Enrol, Enrolments},
    events,
    external::Endpoints,
    feed::Feeds,
    filled::Filled,
    hold::Hold,
    http::{Parts, Server, UNAUTHENTICATED},
    issuer::{self, Signer},
    metrics::Metrics,
    pods::Pods,
    publish::{Fixed, Publisher},
    role::Owners,
    status::StatusWriter,
    watch::{Caches, Changed},
    world::Published,
};
use crate::{
    failures::Failures,
    recorders::{Controller, Outcomes, Settings},
};

/// Namespace whose uid is the cluster's id.
const CLUSTER_NAMESPACE: &str = "kube-system";
/// Between two attempts at what has to be known at the start.
const RETRY: Duration = Duration::from_secs(2);
/// Between two looks at the ConfigMap of issuers, so that it is put back where somebody deletes it.
const ISSUERS_AGAIN: Duration = Duration::from_secs(300);

/// What the control plane is made of.
pub(super) struct Setup {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) images: Vec<String>,
    pub(super) recorder_image: String,
    pub(super) eviction_percent: u8,
    pub(super) api_servers: Vec<Given>,
    pub(super) trust: TrustSetting,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) registry: SharedRegistry,
    pub(super) readiness: Readiness,
    pub(super) drain: drain::Watch,
}

impl Setup {
    /// Runs for ever; ends only by an error.
    pub(super) async fn run(
        self,
        served: Served,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
    ) -> Result<(), ControlError> {
        let (keys, world) = (self.readiness.block("issuer"), self.readiness.block("netmap"));
        let mut tasks = JoinSet::new();
        let roots = served.roots();
        self.keep_certificates(served, &mut tasks);
        let (signer, cluster) = self.identity().await;
        tasks.spawn(publish_issuer(self.client.clone(), self.namespace.clone(), Arc::clone(&signer), keys));
        let server = self.assemble(signer, cluster, roots, world, &mut tasks);
        let limiter = ConnectionLimiter::new("control", UNAUTHENTICATED, &self.registry);
        tasks.spawn(server.serve(listener, tls, limiter, self.drain.clone()));
        match tasks.join_next().await {
            Some(Err(error)) => Err(ControlError::Ended(error.to_string())),
            _ if self.drain.is_draining() => Ok(()),
            _ => Err(ControlError::Ended("a task that runs for ever returned".to_owned())),
        }
    }

    fn keep_certificates(&self, served: Served, tasks: &mut JoinSet<()>) {
        let keeper = Keeper::new(&self.client, &self.namespace, Arc::clone(&self.clock));
        tasks.spawn(keeper.run(self.readiness.block("certificates"), self.drain.clone()));
        let (client, namespace) = (self.client.clone(), self.namespace.clone());
        let first = self.readiness.block("certificate");
        tasks.spawn(async move { served.follow(&client, &namespace, first).await });
    }

    /// The key that signs, and for which cluster.
    async fn identity(&self) -> (Arc<Signer>, String) {
        let cluster = insist("learn the cluster's id", || cluster_id(&self.client)).await;
        let signer = insist("get the key that signs assertions", || {
            issuer::load_or_create(self.client.clone(), &self.namespace, &cluster)
        });
        (Arc::new(signer.await), cluster)
    }

    /// Starts what publishes, and makes the server that answers from it.
    fn assemble(
        &self,
        signer: Arc<Signer>,
        cluster: String,
        roots: channel::Receiver<Option<Arc<str>>>,
        first_world: BlockReady,
        tasks: &mut JoinSet<()>,
    ) -> Server {
        let changed = Changed::default();
        let caches = Caches::start(&self.client, &self.namespace, &changed, tasks);
        let outcomes = Outcomes::default();
        let filled = Filled::after(caches.filling(), tasks);
        tasks.spawn(self.recorders(&caches, &filled, &changed, &outcomes).run());
        let metrics = Metrics::register(&self.registry);
        let enrolments = Enrolments::default();
        let worlds = channel::Sender::new(None);
        tasks.spawn(clear_after_first(worlds.subscribe(), first_world));
        let (events, events_publisher) = events::channel(self.client.clone());
        tasks.spawn(events_publisher.run());
        let assertions = Assertions::new(signer, Arc::clone(&self.clock));
        let parts = self.parts(&caches, &assertions, &enrolments, &changed.world, worlds.subscribe());
        let endpoints = Endpoints::default();
        tasks.spawn(endpoints.clone().follow(Arc::clone(&changed.world)));
        let addresses = channel::Sender::new(None);
        let found = addresses.subscribe();
        let follower = addresses::Follower {
            caches: caches.clone(),
            filled: filled.clone(),
            changed: changed.addresses,
            given: self.api_servers.clone(),
            found: addresses,
            tell: Arc::clone(&changed.world),
            metrics: metrics.clone(),
        };
        tasks.spawn(follower.run());
        let serving = channel::Sender::new(None);
        let named = serving.subscribe();
        let certificates = self.certificates(found.clone(), serving, &changed.world, tasks);
        let status = StatusWriter {
            caches: caches.clone(),
            due: Arc::default(),
            enrolments: enrolments.clone(),
            outcomes,
            endpoints: endpoints.clone(),
            clock: Arc::clone(&self.clock),
            client: self.client.clone(),
        };
        let publisher = Publisher {
            caches,
            filled,
            addresses: found,
            serving: named,
            changed: changed.world,
            enrolments,
            endpoints,
            fixed: Fixed { cluster, issuers: vec![assertions.issuer().clone()], trust: self.trust },
            roots,
            worlds,
            hold: Hold::new(self.client.clone()),
            metrics: metrics.clone(),
            status: Arc::clone(&status.due),
        };
        tasks.spawn(publisher.run());
        tasks.spawn(status.run());
        let (access, enrol, feeds) = parts;
        let clock = Arc::clone(&self.clock);
        Server::new(Parts { access, enrol, feeds, certificates, events, metrics, clock })
    }

    /// What gets certificates of the cluster's CA, where the installation has the right to.
    fn certificates(
        &self,
        addresses: channel::Receiver<Option<Arc<addresses::Found>>>,
        names: channel::Sender<Option<Arc<ServingNames>>>,
        tell: &Arc<Notify>,
        tasks: &mut JoinSet<()>,
    ) -> Option<Certificates> {
        if self.trust == TrustSetting::Pod {
            return None;
        }
        let ca = ClusterCa::default();
        tasks.spawn(Learner { ca: ca.clone(), addresses, names, tell: Arc::clone(tell) }.run());
        Some(Certificates::new(self.client.clone(), ca, Arc::clone(&self.clock)))
    }

    fn recorders(
        &self,
        caches: &Caches,
        filled: &Filled,
        changed: &Changed,
        outcomes: &Outcomes,
    ) -> Controller {
        Controller {
            recorders: caches.recorders.clone(),
            caches: caches.objects.clone(),
            filled: filled.clone(),
            settings: Settings {
                namespace: self.namespace.clone(),
                image: self.recorder_image.clone(),
                eviction_percent: self.eviction_percent,
            },
            changed: Arc::clone(&changed.recorders),
            outcomes: outcomes.clone(),
            report: Arc::clone(&changed.world),
            client: self.client.clone(),
        }
    }

    fn parts(
        &self,
        caches: &Caches,
        assertions: &Assertions,
        enrolments: &Enrolments,
        changed: &Arc<Notify>,
        worlds: channel::Receiver<Option<Arc<Published>>>,
    ) -> (Access, Enrol, Feeds) {
        let pods = Pods::new(caches.pods.clone(), self.client.clone());
        let ours = Ours { system_namespace: self.namespace.clone(), images: self.images.clone() };
        let owners = Owners {
            recorders: caches.recorders.clone(),
            stateful_sets: caches.objects.stateful_sets.clone(),
        };
        let known = Known { pods: pods.clone(), namespaces: caches.namespaces.clone(), owners };
        let access = Access::new(self.client.clone(), known, ours, Arc::clone(&self.clock));
        let enrol = Enrol {
            enrolments: enrolments.clone(),
            assertions: assertions.clone(),
            worlds: worlds.clone(),
            changed: Arc::clone(changed),
        };
        let (enrolments, assertions) = (enrolments.clone(), assertions.clone());
        (access, enrol, Feeds { worlds, enrolments, assertions, pods, drain: self.drain.clone() })
    }
}

async fn cluster_id(client: &Client) -> Result<String, kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = namespaces.get_metadata(CLUSTER_NAMESPACE).await?;
    Ok(namespace.metadata.uid.unwrap_or_default())
}

/// Keeps the ConfigMap of issuers as it should be; `first` is held until it was published once.
async fn publish_issuer(client: Client, namespace: String, signer: Arc<Signer>, first: BlockReady) {
    let mut first = Some(first);
    loop {
        let issuers = [signer.issuer().clone()];
        insist("publish the list of issuers", || issuer::publish(client.clone(), &namespace, &issuers)).await;
        drop(first.take());
        sleep(ISSUERS_AGAIN).await;
    }
}

/// Holds readiness until there is a world, and then for ever nothing.
async fn clear_after_first(mut worlds: channel::Receiver<Option<Arc<Published>>>, first: BlockReady) {
    // An error says that the publisher is gone, which ends the program elsewhere.
    let _ = worlds.wait_for(Option::is_some).await;
    first.clear();
    std::future::pending::<()>().await;
}

/// Tries until it works: without it there is nothing to do.
async fn insist<T, E, F>(what: &'static str, attempt: impl Fn() -> F) -> T
where
    E: std::error::Error + 'static,
    F: Future<Output = Result<T, E>>,
{
    let mut failures = Failures::of(what);
    loop {
        match attempt().await {
            Ok(value) => {
                failures.clear();
                return value;
            }
            Err(error) => failures.note(&error),
        }
        sleep(RETRY).await;
    }
}
