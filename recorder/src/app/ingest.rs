//! The `ingest` role.
//!
//! Listeners: recordings on the tunnel's address only (and on the plain listener, where one is asked for), health and
//! metrics on the pod's address.

use std::{
    io,
    net::{SocketAddr, SocketAddrV6},
    path::Path,
    sync::Arc,
    time::Duration,
};

use podwitness_core::{
    control::Issuer,
    control::Taking,
    inject::{INTERFACE, RECORD_PORT},
};
use podwitness_runtime::{
    admin::{self, Admin, AdminAddresses},
    clock::SystemClock,
    drain::{self, Drain},
    memory,
    metrics::SharedRegistry,
    readiness::Readiness,
    version::version,
};
use podwitness_tunnel::{Options, Privileged, ProvisionalLimits, PublicKey, Rate, RecorderTunnel, Tunnel};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
    task::spawn_blocking,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    bucket::open::{OpenError, open},
    config::{IngestConfig, Joining, TunnelConfig, Way},
    enrol::{
        self, EnrolError,
        issuers::{Issuers, List},
        join,
        report::report,
    },
    ingest::{
        Door, Ingest, Parts, recover,
        state::{self, Shown},
    },
    memory::MemoryBudget,
    metrics::{self, Metrics},
    peers::{Caps, Peers},
    privileged::PrivilegeError,
    ship::{Setup, Shipper},
    store::{Store, StoreError},
};

/// Before the drain's deadline uploads that are left get an error frame, and this much time to take it.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Unknown keys from one source, of a recorder outside: all pods of a cluster may come from one address there, and come
/// at once after a restart.
const PER_NETWORK: Rate = Rate { per_second: 200.0, burst: 500.0 };

/// Why ingest cannot begin, or cannot go on.
#[derive(Debug, Error)]
pub enum IngestError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The admin server cannot listen.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// A listener cannot be opened.
    #[error(
        "cannot listen on {address} for recordings; a port below 1024 needs the pod's sysctl \
         net.ipv4.ip_unprivileged_port_start=0, or CAP_NET_BIND_SERVICE"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The bucket's settings cannot be used.
    #[error(transparent)]
    Bucket(#[from] OpenError),
    /// There is no capability for a tunnel.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// There is no enrolment.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// There is no tunnel.
    #[error("the tunnel cannot be opened; is there a /dev/net/tun that this user may open?")]
    Tunnel(#[source] podwitness_tunnel::Error),
    /// The tunnel broke.
    #[error("the tunnel broke")]
    Broken(#[source] podwitness_tunnel::Error),
}

/// Ingest with its sockets open.
pub struct Bound {
    /// Health and metrics.
    pub admin: SocketAddr,
    /// Recordings, of clients with a tunnel of their own.
    pub plain: Option<SocketAddr>,
    /// Recordings, through our tunnel.
    pub tunnel: Option<SocketAddr>,
    /// By what the clusters name a recorder outside, for their admins.
    pub manifest: Option<String>,
    admin_server: admin::Bound,
    listeners: Vec<(TcpListener, Door)>,
    opened: Option<RecorderTunnel>,
    ingest: Arc<Ingest>,
    drain: drain::Signal,
    watch: drain::Watch,
    closing: CancellationToken,
    shipper: Option<Shipper>,
    deadline: Duration,
    /// Tasks that end with the program.
    background: Vec<AbortOnDropHandle<()>>,
}

/// What is shared while ingest is put together.
struct Assembly {
    registry: SharedRegistry,
    readiness: Readiness,
    manifest: Option<String>,
    background: Vec<AbortOnDropHandle<()>>,
    listeners: Vec<(TcpListener, Door)>,
    states: watch::Sender<Taking>,
}

/// Opens everything. `privileged` is needed where the configuration wants a tunnel.
///
/// # Errors
/// Where anything cannot be opened.
pub async fn bind(
    config: IngestConfig,
    privileged: Option<Arc<dyn Privileged>>,
) -> Result<Bound, IngestError> {
    let (drain, watch) = Drain::new();
    let registry = SharedRegistry::new();
    let readiness = Readiness::new();
    let mut assembly = Assembly {
        registry: registry.clone(),
        readiness: readiness.clone(),
        manifest: None,
        background: Vec::new(),
        listeners: Vec::new(),
        states: watch::Sender::new(Taking::Accepting),
    };
    let store = Arc::new(Store::bounded(&config.common.store, config.space)?);
    let events = store.events()?;
    let addresses = AdminAddresses { admin: config.admin, health: config.health };
    let admin_server = Admin { registry: registry.clone(), readiness }.bind(addresses).await?;
    let plain = assembly.plain(config.plain).await?;
    let (opened, issuers) = assembly.tunnel(&config, privileged).await?;
    let tunnel = opened.as_ref().map(|(_, address)| *address);
    let closing = CancellationToken::new();
    let metrics = Metrics::register(&registry, &store);
    let recovered = CancellationToken::new();
    let shipper = ship(&config, &store, &registry, recovered.clone())?;
    assembly.look_after(&store, shipper.as_ref(), &metrics, recovered);
    let parts = Parts {
        metrics,
        store,
        shipper: shipper.clone(),
        clock: Arc::new(SystemClock),
        issuers,
        peers: Peers::new(Caps::default()),
        memory: MemoryBudget::of(memory::limit(Path::new(memory::CGROUPS))),
        ack: config.ack,
        upload_bytes: config.upload_bytes,
        drain: watch.clone(),
        closing: closing.clone(),
    };
    let ingest = Ingest::new(parts, events);
    let shown = |address: Option<SocketAddr>| address.map(tracing::field::display);
    tracing::info!(version = version(), admin = %admin_server.addr, plain = shown(plain), tunnel = shown(tunnel), store = %config.common.store.display(), "listening");
    Ok(Bound {
        admin: admin_server.addr,
        plain,
        tunnel,
        manifest: assembly.manifest,
        admin_server,
        listeners: assembly.listeners,
        opened: opened.map(|(opened, _)| opened),
        ingest,
        drain,
        watch,
        closing,
        shipper,
        deadline: config.common.drain,
        background: assembly.background,
    })
}

/// Begins to ship, where there is a bucket.
fn ship(
    config: &IngestConfig,
    store: &Arc<Store>,
    registry: &SharedRegistry,
    recovered: CancellationToken,
) -> Result<Option<Shipper>, IngestError> {
    let Some(s3) = &config.common.s3 else { return Ok(None) };
    let (bucket, store, ack, keep) = (open(s3)?, Arc::clone(store), config.ack, s3.keep);
    let setup = Setup { bucket, store, ack, keep, recovered };
    Ok(Some(Shipper::start(setup, registry)))
}

/// Completes what another process left, and again, whenever there is room after there was none, what could not be
/// completed on a full volume. Beside everything else: it may take long, and nobody waits for it.
async fn recovery(store: Arc<Store>, done: CancellationToken, room: Arc<Notify>, shipper: Option<Shipper>) {
    loop {
        let store = Arc::clone(&store);
        let recovered = spawn_blocking(move || recover(&store)).await;
        done.cancel();
        if let Ok(Err(error)) = recovered {
            tracing::warn!(%error, "the volume cannot be looked through for interrupted recordings");
        }
        if let Some(shipper) = &shipper {
            shipper.has_room();
        }
        room.notified().await;
    }
}

impl Assembly {
    async fn plain(&mut self, address: Option<SocketAddr>) -> Result<Option<SocketAddr>, IngestError> {
        let Some(address) = address else { return Ok(None) };
        let failed = |source| IngestError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        self.listeners.push((listener, Door::Plain));
        Ok(Some(bound))
    }

    /// The tunnel, where recordings come in through it, and whose word counts there.
    async fn tunnel(
        &mut self,
        config: &IngestConfig,
        privileged: Option<Arc<dyn Privileged>>,
    ) -> Result<(Option<(RecorderTunnel, SocketAddr)>, watch::Receiver<Arc<[Issuer]>>), IngestError> {
        let Some(tunnel) = &config.tunnel else {
            return Ok((None, Issuers::new(None, None).1));
        };
        let privileged = privileged.ok_or(PrivilegeError::Missing)?;
        let key = enrol::key(tunnel)?;
        let public = key.public();
        if let Way::Join(joining) = &tunnel.way {
            self.introduce(joining, &public, tunnel.port)?;
        }
        let mut options = Options::new(INTERFACE, key);
        options.listen_port = Some(tunnel.port);
        let opened =
            Tunnel::open_recorder(&options, limits(tunnel), privileged).await.map_err(IngestError::Tunnel)?;
        let address = self.listen(&opened).await?;
        metrics::peers::register(&self.registry, opened.gate.clone());
        // Known only now: whoever learns of this recorder finds it listening.
        let issuers = self.believe(config, tunnel, &public)?;
        Ok((Some((opened, address)), issuers))
    }

    /// Says who it is, and looks whether the join file can be used at all.
    fn introduce(&mut self, joining: &Joining, key: &PublicKey, port: u16) -> Result<(), EnrolError> {
        let clusters = join::read(&joining.file)?;
        tracing::info!(%key, clusters = clusters.len(), "this recorder is outside the clusters that send to it");
        self.manifest = Some(join::manifest(&clusters, &key.to_string(), joining.endpoint.as_deref(), port));
        Ok(())
    }

    /// Enrols, or follows the join file: whom to believe. Ready once that is anybody.
    fn believe(
        &mut self,
        config: &IngestConfig,
        tunnel: &TunnelConfig,
        key: &PublicKey,
    ) -> Result<watch::Receiver<Arc<[Issuer]>>, EnrolError> {
        let (agent, list) = match &tunnel.way {
            Way::Join(joining) => (None, Some(List::Join(joining.file.clone()))),
            Way::Enrol(enrolment) => {
                let (give, notices) = mpsc::channel(1);
                let (agent, driver) = enrol::agent(enrolment, tunnel.state.as_deref(), key, notices)?;
                self.spawn(driver.run());
                self.spawn(report(agent.link.clone(), self.states.subscribe(), give));
                self.spawn(enrol::enrolled(agent.clone(), self.readiness.block("enrolment")));
                (Some(agent), config.issuers.clone().map(List::Issuers))
            }
        };
        let (issuers, known) = Issuers::new(agent, list);
        self.spawn(issuers.run());
        let (mut first, ready) = (known.clone(), self.readiness.block("issuers"));
        self.spawn(async move {
            // The sender lives as long as the program.
            let _ = first.wait_for(|issuers| !issuers.is_empty()).await;
            ready.clear();
        });
        Ok(known)
    }

    /// Keeps an eye on the volume and the bucket, and completes what was left.
    fn look_after(
        &mut self,
        store: &Arc<Store>,
        shipper: Option<&Shipper>,
        metrics: &Metrics,
        recovered: CancellationToken,
    ) {
        let (metrics, readiness, room) = (metrics.clone(), self.readiness.clone(), Arc::new(Notify::new()));
        let shown = Shown { metrics, readiness, states: self.states.clone(), room: Arc::clone(&room) };
        let shipping = shipper.map(|shipper| shipper.status().clone());
        self.spawn(state::watch(Arc::clone(store), shipping, shown));
        self.spawn(recovery(Arc::clone(store), recovered, room, shipper.cloned()));
    }

    async fn listen(&mut self, opened: &RecorderTunnel) -> Result<SocketAddr, IngestError> {
        let address = SocketAddrV6::new(opened.tunnel.address(), RECORD_PORT, 0, 0).into();
        let failed = |source| IngestError::Listen { address, source };
        let listener = opened.tunnel.listen(RECORD_PORT).await.map_err(failed)?;
        self.listeners.push((listener, Door::Tunnel(Arc::new(opened.gate.clone()))));
        Ok(address)
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.background.push(AbortOnDropHandle::new(tokio::spawn(task)));
    }
}

fn limits(tunnel: &TunnelConfig) -> ProvisionalLimits {
    let limits = ProvisionalLimits::default();
    match tunnel.way {
        Way::Join(_) => ProvisionalLimits { per_source: PER_NETWORK, ..limits },
        Way::Enrol(_) => limits,
    }
}

impl Bound {
    /// Takes recordings until `stop` completes, then lets uploads finish.
    ///
    /// # Errors
    /// Where the tunnel breaks; uploads then had their time to finish, too.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), IngestError> {
        self.run_with(Ingest::serve, stop).await
    }

    /// The same with listeners served by `serve`, which hands connections to [`Ingest::connection`] as it likes.
    ///
    /// # Errors
    /// As [`Bound::run`].
    pub async fn run_with<F>(
        self,
        serve: impl Fn(Arc<Ingest>, TcpListener, Door) -> F,
        stop: impl Future<Output = ()>,
    ) -> Result<(), IngestError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let admin = tokio::spawn(self.admin_server.run(self.watch.clone()));
        for (listener, door) in self.listeners {
            tokio::spawn(serve(Arc::clone(&self.ingest), listener, door));
        }
        let result = tokio::select! {
            () = stop => Ok(()),
            error = broken(self.opened.as_ref()) => Err(IngestError::Broken(error)),
        };
        tracing::info!(deadline = self.deadline.as_secs(), "draining");
        let closing = self.closing.clone();
        let early = self.deadline.saturating_sub(LAST_WORDS);
        let last_words = AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(early).await;
            closing.cancel();
        }));
        let drained = self.drain.drain(self.deadline).await;
        drop(last_words);
        self.ingest.finish().await;
        if let Some(shipper) = self.shipper {
            shipper.finish().await;
        }
        tracing::info!(?drained, "drained");
        // It ends with the drain; how is of no interest any more.
        let _ = admin.await;
        if let Some(opened) = self.opened {
            // The interface goes with the process at the latest.
            let _ = opened.tunnel.close().await;
        }
        drop(self.background);
        result
    }
}

async fn broken(opened: Option<&RecorderTunnel>) -> podwitness_tunnel::Error {
    match opened {
        Some(opened) => opened.tunnel.failed().await,
        None => std::future::pending().await,
    }
}
