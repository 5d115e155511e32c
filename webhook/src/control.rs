//! The control plane: keeps certificates, enrols pods, publishes netmaps.
//!
//! A caller is a pod that shows a service-account token of audience `podwitness.dev`; what it is and what it may know
//! follows from objects of the cluster, never from what it says. Changes of those objects become numbered worlds
//! ([`world`]), and each world the netmaps of the pods that follow ([`feed`]).
//!
//! Invariants: nobody is enrolled and nothing is published before every cache was filled; what is published never
//! shrinks by accident ([`hold`]). One replica runs at a time, because the registry of keys is its memory.

pub mod access;
pub mod assertions;
pub mod connections;
pub mod enrolments;
pub mod events;
pub mod feed;
pub mod hold;
pub mod http;
pub mod issuer;
pub mod keys;
pub mod limits;
pub mod metrics;
pub mod pod;
pub mod pods;
pub mod publish;
pub mod refusal;
pub mod registry;
pub mod role;
pub mod sources;
mod start;
pub mod streams;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;
pub mod watch;
pub mod world;

pub use issuer::FIELD_MANAGER;

use std::{io, net::SocketAddr, sync::Arc};

use kube::Client;
use podwitness_runtime::{
    accept,
    admin::{self, Admin},
    clock::SystemClock,
    drain::{Drain, Drained, shutdown_signal},
    metrics::SharedRegistry,
    readiness::Readiness,
    tls,
};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::{
    certs::{self, Keeper, Served},
    config::ControlConfig,
};

/// Why the control plane cannot run.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The API address is taken or not ours.
    #[error("cannot listen on {addr} for the control API; is the port taken?")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The admin address is taken or not ours.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// There is no way to reach the API server.
    #[error("cannot set up a client of the API server; is this a pod, or is there a kubeconfig?")]
    Client(#[source] Box<kube::Error>),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// A part that runs for ever has ended.
    #[error("a part of the control plane has ended: {0}")]
    Ended(String),
}

/// A control plane whose sockets are open.
pub struct Bound {
    /// Where the control API listens.
    pub addr: SocketAddr,
    /// Where health and metrics are.
    pub admin_addr: SocketAddr,
    listener: TcpListener,
    admin: admin::Bound,
    config: ControlConfig,
    registry: SharedRegistry,
    readiness: Readiness,
}

/// Runs the control plane until SIGTERM, and then until requests in flight are done.
///
/// # Errors
/// Where it cannot start, or a part of it ends by itself.
pub async fn run(config: ControlConfig) -> Result<(), ControlError> {
    bind(config).await?.run(shutdown_signal()).await
}

/// Opens the sockets.
///
/// # Errors
/// Where one of them cannot be opened.
pub async fn bind(config: ControlConfig) -> Result<Bound, ControlError> {
    let failed = |source| ControlError::Listen { addr: config.listen, source };
    let listener = accept::bind(config.listen).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let (registry, readiness) = (SharedRegistry::new(), Readiness::new());
    let admin = Admin { registry: registry.clone(), readiness: readiness.clone() };
    let admin = admin.bind(config.common.admin).await?;
    Ok(Bound { addr, admin_addr: admin.addr, listener, admin, config, registry, readiness })
}

impl Bound {
    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// Where a part of it ends by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ControlError> {
        let (signal, drain) = Drain::new();
        let deadline = self.config.common.drain;
        let admin = tokio::spawn(self.admin.run(drain.clone()));
        let client = Client::try_default().await.map_err(|error| ControlError::Client(Box::new(error)))?;
        let served = Served::new(certs::CONTROL, &self.registry);
        let tls = tls::server_config(Arc::clone(&served.cert) as Arc<_>).map_err(ControlError::Tls)?;
        let parts = start::Setup {
            client,
            namespace: self.config.common.namespace,
            images: self.config.images.iter().map(|image| role::repository(image).to_owned()).collect(),
            clock: Arc::new(SystemClock),
            registry: self.registry,
            readiness: self.readiness,
            drain: drain.clone(),
        };
        tracing::info!(addr = %self.addr, admin = %self.admin_addr, "the control plane starts");
        let outcome = tokio::select! {
            outcome = parts.run(served, self.listener, tls) => outcome,
            () = shutdown => Ok(()),
        };
        if signal.drain(deadline).await == Drained::Deadline {
            tracing::warn!("requests were still in flight at the deadline");
        }
        // It ends with the drain; how does not matter any more.
        let _ = admin.await;
        outcome
    }
}
