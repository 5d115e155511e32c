//! The whole sidecar: opens everything, then runs it.
//!
//! Ready means local things only: rules in place and interception protected, credentials written. Enrolment and tunnel
//! follow in the background; what is recorded before them waits in the spool, or is refused, as the policy says.

use std::{
    fs, io,
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use podwitness_agent::{Agent, CertificateOrder, Driver, Link};
use podwitness_core::{
    control::Notice,
    inject::{Inject, SidecarPorts},
    trust::Trust,
};
use podwitness_proxy::{
    BoxedStream, ClusterCertificate, Dial, PodCa, Proxy, ProxyConfig, SealError, Seals, Spool, Wiring,
    api_names, ca::CaError,
};
use podwitness_runtime::{
    admin::{self, Admin, AdminAddresses},
    clock::{Clock as _, SystemClock},
    connection::ConnectionLimiter,
    drain::{self, Drain},
    memory::CGROUPS,
    readiness::{BlockReady, Readiness},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};

use crate::{
    api_server::ResolveError,
    certificate,
    config::Config,
    credentials::Credentials,
    ending::{deadline, drain_after},
    enrol::{self, Enrolment},
    interception::Interception,
    kernel::{Kernel, KernelError, rules::MovedPort, selftest::Probe},
    listen::{ListenError, Listener},
    log_socket::{LogSocket, LogSocketError, SetFilter},
    memory,
    metrics::Metrics,
    sockets::Sockets,
    state::{self, StateError},
    tunnel::Keeper,
};

/// How long it stands that there are too many connections, before it is said again.
const EXHAUSTED_AGAIN: Duration = Duration::from_secs(600);

/// Why the sidecar does not start, or ends.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant is an operation, and its error says the rest")]
pub enum AppError {
    #[error(transparent)]
    ApiServer(#[from] ResolveError),
    #[error("KUBERNETES_SERVICE_HOST has no address")]
    NoAddress,
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the spool cannot be sealed")]
    Seal(#[from] SealError),
    #[error("no in-pod CA")]
    Ca(#[from] CaError),
    #[error("no bundle with the cluster's CA in any of {0:?}")]
    ClusterCa(Vec<PathBuf>),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    #[error(transparent)]
    LogSocket(#[from] LogSocketError),
    #[error("admission's settings of the control plane cannot be used")]
    Agent(#[from] podwitness_agent::AgentError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// A sidecar whose sockets are open and whose rules are in place.
pub struct Bound {
    /// Where health and metrics are.
    pub admin: SocketAddr,
    readiness: Readiness,
    admin_server: admin::Bound,
    log_socket: LogSocket,
    listener: Listener,
    limiter: ConnectionLimiter,
    proxy: Arc<Proxy>,
    interception: Option<(Interception, BlockReady)>,
    credentials: (Credentials, BlockReady, mpsc::Sender<Notice>),
    agent: Agent,
    driver: Driver,
    tunnel: Keeper,
    certificate: certificate::Keeper,
    metrics: Metrics,
    signal: drain::Signal,
    deadline: Duration,
}

/// Opens everything, the rules last, so that nothing is ever redirected to where nobody listens.
///
/// # Errors
/// The first thing that cannot be had.
pub async fn bind(config: Config, kernel: Kernel, set_filter: SetFilter) -> Result<Bound, AppError> {
    // A program of the pod may be running: what it could take is held first.
    let listener = Listener::bind(&kernel, config.env.declared_ports.clone()).await?;
    let own = config.api_server.own(&config.env.api_server).await?;
    let (api_server, endpoints) = own.split_first().ok_or(AppError::NoAddress)?;
    let (state, admin) = (&config.paths.state, Admin::default());
    let metrics = Metrics::register(&admin.registry);
    let pod_ca = PodCa::load_or_create(state, &api_names(&config.cluster_domain), SystemClock.now_unix())?;
    let credentials = credentials(&config, &pod_ca);
    let key = state::tunnel_key(state)?;
    let Enrolment { agent, driver, notices, orders } = enrol::agent(&config, key.public(), &kernel)?;
    let (tunnel, recorders) = Keeper::new(key, &kernel, agent.netmap.clone(), metrics.clone());
    let (signal, watch) = Drain::new();
    let upstream_roots = cluster_roots(&config.paths.cluster_ca)?;
    let certificate = ClusterCertificate::load(state, upstream_roots.clone(), SystemClock.now_unix());
    let cluster_certificate = Arc::new(certificate);
    let certificate = certificate_keeper(&config, &agent, orders, &cluster_certificate, &admin, &metrics);
    let wiring = Wiring {
        pod_ca,
        cluster_certificate,
        upstream_roots,
        netmap: agent.netmap.clone(),
        assertion: agent.assertion.clone(),
        upstream: Arc::new(Upstream(kernel.clone())),
        recorders: Arc::new(recorders),
        owners: Arc::new(Sockets),
        notices: notices.clone(),
        drain: watch,
        clock: Arc::new(SystemClock),
    };
    let seals = Arc::new(Seals::load_or_create(state)?);
    let proxy_config = proxy_config(&config, (*api_server, endpoints.to_vec()), &listener, seals);
    let places = memory::places(proxy_config.connections_memory);
    let proxy = admin.registry.with(|registry| Proxy::new(proxy_config, wiring, registry))?;
    let readiness = admin.readiness.clone();
    let limiter = ConnectionLimiter::new("intercepted", places, &admin.registry);
    let admin_server = admin.bind_elsewhere(admin_addresses(config.env.ports)).await?;
    let log_socket = LogSocket::bind(&state.join(state::LOG_SOCKET), set_filter)?;
    let ports = (listener.port(), moved_ports(&admin_server, config.env.ports));
    let netmap = agent.netmap.clone();
    let interception = Interception::new(&config.env, kernel, ports, own, netmap, metrics.clone());
    let interception = install(interception, config.env.inject, &readiness).await?;
    Ok(Bound {
        admin: admin_server.addr,
        credentials: (credentials, readiness.block("credentials"), notices),
        readiness,
        admin_server,
        log_socket,
        listener,
        limiter,
        proxy,
        interception,
        agent,
        driver,
        tunnel,
        certificate,
        metrics,
        signal,
        deadline: deadline(config.env.grace_period),
    })
}

impl Bound {
    /// What the sidecar waits for before the pod's other containers may start.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Runs until `shutdown` completes and what lives then has ended. Rules stay where they are, and are renewed, so
    /// that nothing passes by while connections drain.
    ///
    /// # Errors
    /// Where interception cannot be kept up any more.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let mut tasks = JoinSet::new();
        let (credentials, written, notices) = self.credentials;
        tasks.spawn(credentials.follow(written, notices));
        tasks.spawn(self.admin_server.run(self.signal.watch()));
        tasks.spawn(self.log_socket.run());
        tasks.spawn(self.driver.run());
        tasks.spawn(self.tunnel.run());
        tasks.spawn(self.certificate.run());
        tasks.spawn(show_link(self.agent.link, self.metrics));
        tasks.spawn(tell_exhausted(self.limiter.clone(), Arc::clone(&self.proxy)));
        let Some((interception, protected)) = self.interception else {
            drain_after(shutdown, self.signal, self.deadline).await;
            return Ok(());
        };
        let listener = (self.listener, self.limiter);
        tasks.spawn(serve(listener, self.proxy, interception.probe(), self.signal.watch()));
        tokio::select! {
            Err(error) = interception.keep(protected) => Err(error.into()),
            () = drain_after(shutdown, self.signal, self.deadline) => Ok(()),
        }
    }
}

async fn serve(
    (listener, limiter): (Listener, ConnectionLimiter),
    proxy: Arc<Proxy>,
    probe: Arc<Probe>,
    drain: drain::Watch,
) {
    let over = || {
        let drain = drain.clone();
        async move { drain.over().await }
    };
    let handle = |intercepted| {
        let proxy = Arc::clone(&proxy);
        async move { proxy.serve(intercepted).await }
    };
    listener.serve(limiter, probe, over, handle).await;
}

/// Says that the pod's clients have more connections than there are places for, once in a while.
async fn tell_exhausted(limiter: ConnectionLimiter, proxy: Arc<Proxy>) {
    loop {
        limiter.exhausted().await;
        tracing::warn!(
            open = limiter.open_connections(),
            "every place for a connection of the pod's clients is taken: idle ones are ended for new ones; does a client leak connections?"
        );
        proxy.tell_exhausted();
        sleep(EXHAUSTED_AGAIN).await;
    }
}

/// Steps aside where injection is optional and the kernel cannot do it. Else readiness waits for the proof.
async fn install(
    interception: Interception,
    inject: Inject,
    readiness: &Readiness,
) -> Result<Option<(Interception, BlockReady)>, AppError> {
    match interception.install().await {
        Ok(()) => Ok(Some((interception, readiness.block("interception")))),
        Err(error) if inject == Inject::Optional => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, cause, "nothing is intercepted; injection is optional, so the pod starts without");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Where health and metrics are, in both families where the pod has IPv6.
fn admin_addresses(ports: SidecarPorts) -> AdminAddresses {
    let any = |port| (Ipv6Addr::UNSPECIFIED, port).into();
    AdminAddresses { admin: any(ports.admin), health: Some(any(ports.probe)) }
}

/// Ports that a program of the pod holds, which ran while no sidecar did.
fn moved_ports(admin: &admin::Bound, ports: SidecarPorts) -> Vec<MovedPort> {
    let ports = [(ports.admin, Some(admin.addr)), (ports.probe, admin.health)];
    let moved = ports.into_iter().filter_map(|(from, at)| Some(MovedPort { from, to: at?.port() }));
    let moved: Vec<_> = moved.filter(|port| port.from != port.to).collect();
    for MovedPort { from, to } in &moved {
        tracing::warn!(port = from, instead = to, "a program of the pod holds a port of the sidecar");
    }
    moved
}

fn proxy_config(
    config: &Config,
    (api_server, api_servers): (SocketAddr, Vec<SocketAddr>),
    listener: &Listener,
    seals: Arc<Seals>,
) -> ProxyConfig {
    ProxyConfig {
        pod: config.pod.clone(),
        inject: config.env.inject,
        until_netmap: config.env.until_netmap,
        memory: memory::for_recordings(Path::new(CGROUPS)),
        connections_memory: memory::for_connections(Path::new(CGROUPS)),
        spool: Some(Spool {
            dir: config.paths.spool.clone(),
            limit: config.env.spool_limit,
            seals: Some(seals),
        }),
        api_server,
        api_servers,
        listeners: listener.addresses().to_vec(),
        cluster_domain: config.cluster_domain.clone(),
    }
}

/// Where admission has said that a certificate is to be expected, readiness waits for it, for a while.
fn certificate_keeper(
    config: &Config,
    agent: &Agent,
    orders: mpsc::Sender<CertificateOrder>,
    certificate: &Arc<ClusterCertificate>,
    admin: &Admin,
    metrics: &Metrics,
) -> certificate::Keeper {
    let is_expected = config.env.trust == Trust::Cluster;
    certificate::Keeper {
        pod_uid: config.pod.uid.clone(),
        netmap: agent.netmap.clone(),
        orders,
        certificate: Arc::clone(certificate),
        clock: Arc::new(SystemClock),
        metrics: metrics.clone(),
        expected: is_expected.then(|| admin.readiness.block("certificate of the cluster's CA")),
    }
}

fn credentials(config: &Config, pod_ca: &PodCa) -> Credentials {
    let (dirs, paths) = (config.env.service_accounts.clone(), &config.paths);
    let credentials = Credentials::new(dirs, pod_ca.certificate_pem().to_owned());
    if paths.bundle.is_dir() {
        credentials.with_bundle(paths.identity.clone(), paths.bundle.clone())
    } else {
        credentials
    }
}

/// The cluster's CA, from the first bundle that holds a certificate.
fn cluster_roots(paths: &[PathBuf]) -> Result<RootCertStore, AppError> {
    for path in paths {
        let Ok(pem) = fs::read(path) else { continue };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        if !roots.is_empty() {
            return Ok(roots);
        }
    }
    Err(AppError::ClusterCa(paths.to_vec()))
}

async fn show_link(mut link: watch::Receiver<Link>, metrics: Metrics) {
    while link.changed().await.is_ok() {
        metrics.control.set(i64::from(*link.borrow_and_update() == Link::Following));
    }
}

/// The way to the API server past our own rules.
struct Upstream(Kernel);

impl Dial for Upstream {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<BoxedStream>> {
        let connecting = self.0.dial(to);
        Box::pin(async move { Ok(Box::new(connecting.await?) as BoxedStream) })
    }
}
