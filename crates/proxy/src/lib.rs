//! One intercepted connection to a recorded one: terminate TLS, classify, identify, decide, forward or relay.
//!
//! Invariant: works over any byte stream, needs no privilege and no pod. What a session is recorded with
//! ([`session`], [`journal`], [`upload`]) never decides anything; what decides ([`enforce`]) never moves a byte.

mod body;
pub mod ca;
mod classify;
pub mod dial;
pub mod enforce;
mod events;
mod forward;
mod identity;
mod intercept;
pub mod journal;
mod memory;
mod metrics;
mod notices;
mod question;
mod refusal;
mod serve;
pub mod server_names;
pub mod session;
pub mod settings;
mod sha256;
mod stream;
mod target;
mod upgrade;
pub mod upload;
mod upstream;

pub use ca::{Certified, ClusterCertificate, PodCa, ServingKey};
pub use dial::{BoxedStream, Dial, Intercepted, Owners, Stream};
pub use journal::{SealError, Seals};
pub use server_names::ServerNames;
pub use settings::{PodIdentity, ProxyConfig, Spool};
pub use target::api_names;

use std::sync::Arc;

use podwitness_core::control::{Netmap, Notice};
use podwitness_runtime::{clock::Clock, drain};
use prometheus_client::registry::Registry;
use rustls::RootCertStore;
use tokio::sync::{mpsc, watch};

use ca::{CaError, Leaves};
use events::Events;
use identity::Identities;
use intercept::{Distrust, ServerProbe};
use memory::Memory;
use metrics::Metrics;
use notices::Notices;
use refusal::RefusalReporter;
use session::{SessionWiring, Sessions};
use target::Targets;
use upgrade::Refusals;
use upstream::{PoolLimits, Upstream};

/// What a proxy is connected to.
pub struct Wiring {
    /// Signs what clients of the pod see.
    pub pod_ca: PodCa,
    /// A certificate of the cluster's CA beside it, once there is one.
    pub cluster_certificate: Arc<ClusterCertificate>,
    /// Roots under which the API server's certificate stands.
    pub upstream_roots: RootCertStore,
    /// The newest netmap; `None` until the first one arrived.
    pub netmap: watch::Receiver<Option<Arc<Netmap>>>,
    /// The newest assertion, sent with uploads.
    pub assertion: watch::Receiver<Option<Arc<str>>>,
    /// The way to the API server: a stream that is not intercepted again.
    pub upstream: Arc<dyn Dial>,
    /// The way to recorders: through the tunnel.
    pub recorders: Arc<dyn Dial>,
    /// Whose connections are.
    pub owners: Arc<dyn Owners>,
    /// Takes what people should know of the pod; what it does not take is lost.
    pub notices: mpsc::Sender<Notice>,
    /// Tells when to take nothing new; live sessions hold its guard.
    pub drain: drain::Watch,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// Serves intercepted connections.
pub struct Proxy {
    config: Arc<ProxyConfig>,
    targets: Targets,
    leaves: Leaves,
    cluster_certificate: Arc<ClusterCertificate>,
    upstream: Upstream,
    upstream_dial: Arc<dyn Dial>,
    identities: Identities,
    sessions: Arc<Sessions>,
    events: Events,
    refusals: Refusals,
    refusal_reporter: RefusalReporter,
    distrust: Distrust,
    server_probe: ServerProbe,
    notices: Notices,
    netmap: watch::Receiver<Option<Arc<Netmap>>>,
    drain: drain::Watch,
    clock: Arc<dyn Clock>,
    memory: Arc<Memory>,
    metrics: Metrics,
}

impl Proxy {
    /// Puts a proxy together and registers its metrics.
    ///
    /// # Errors
    /// Where the TLS library refuses its configuration.
    pub fn new(config: ProxyConfig, wiring: Wiring, registry: &mut Registry) -> Result<Arc<Self>, CaError> {
        let Wiring {
            pod_ca,
            cluster_certificate,
            upstream_roots,
            netmap,
            assertion,
            upstream: dial,
            recorders,
            owners,
            notices,
            drain,
            clock,
        } = wiring;
        let config = Arc::new(config);
        let metrics = Metrics::register(registry);
        let server_probe = ServerProbe::new(upstream_roots.clone(), Arc::clone(&dial))?;
        let limits = PoolLimits::of_memory(config.connections_memory);
        let upstream = Upstream::new(upstream_roots, Arc::clone(&dial), limits, metrics.clone())?;
        let sessions = Arc::new(Sessions::new(
            Arc::clone(&config),
            SessionWiring {
                netmap: netmap.clone(),
                assertion,
                recorders,
                notices: notices.clone(),
                drain: drain.clone(),
                clock: Arc::clone(&clock),
            },
            registry,
        ));
        let notices = Notices::new(notices);
        let events = Events::new(
            Arc::clone(&config),
            netmap.clone(),
            Arc::clone(&sessions),
            Arc::clone(&clock),
            registry,
        );
        Ok(Arc::new(Self {
            targets: Targets::new(&config),
            leaves: Leaves::new(pod_ca)?,
            cluster_certificate,
            identities: Identities::new(upstream.clone(), Arc::clone(&clock), metrics.clone()),
            upstream,
            upstream_dial: dial,
            sessions,
            events,
            refusals: Refusals::new(),
            refusal_reporter: RefusalReporter::new(notices.clone()),
            distrust: Distrust::new(config.inject, owners),
            server_probe,
            notices,
            netmap,
            drain,
            clock,
            memory: Memory::new(config.connections_memory, metrics.memory()),
            metrics,
            config,
        }))
    }

    /// Serves one intercepted connection to its end. A session that it was upgraded to goes on by itself and holds a
    /// drain guard.
    pub async fn serve<S: Stream + 'static>(self: &Arc<Self>, intercepted: Intercepted<S>) {
        intercept::serve(self, intercepted).await;
    }

    /// Names and addresses of the API server's own certificate, as they are now or were within a minute; `None` where it
    /// does not show one within a second.
    pub async fn server_names(&self) -> Option<Arc<ServerNames>> {
        intercept::server_names(self).await
    }

    /// Tells that clients of the pod have more connections than there are places for.
    pub fn tell_exhausted(&self) {
        self.notices.give(Notice::ConnectionsExhausted);
    }

    /// The newest netmap.
    fn netmap(&self) -> Option<Arc<Netmap>> {
        self.netmap.borrow().clone()
    }
}
