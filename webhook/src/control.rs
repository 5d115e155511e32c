//! The control plane: keeps certificates, enrols pods, publishes netmaps.
//!
//! A caller is a pod that shows a service-account token of audience `podwitness.dev`; what it is and what it may know
//! follows from objects of the cluster, never from what it says. Changes of those objects become numbered worlds
//! ([`world`]), and each world the netmaps of the pods that follow ([`feed`]).
//!
//! Invariants: nobody is enrolled and nothing is published before every cache was filled; what is published never
//! shrinks by accident ([`hold`]). One replica runs at a time, because the registry of keys is its memory.

pub mod access;
pub mod addresses;
pub mod assertions;
pub mod certificates;
pub mod enrolments;
pub mod events;
pub mod external;
pub mod feed;
pub mod filled;
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
pub mod status;
pub mod streams;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;
pub mod watch;
pub mod world;

pub use issuer::FIELD_MANAGER;

use std::sync::Arc;

use kube::Client;
use podwitness_runtime::{
    clock::SystemClock,
    drain::{Drain, Drained, shutdown_signal},
    tls,
    version::version,
};
use thiserror::Error;

use crate::{
    certs::{self, Keeper, Served},
    config::ControlConfig,
    sockets::{SocketError, Sockets},
};

/// Why the control plane cannot run.
#[derive(Debug, Error)]
pub enum ControlError {
    /// A socket cannot be opened.
    #[error(transparent)]
    Sockets(#[from] SocketError),
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

/// Runs the control plane until SIGTERM, and then until requests in flight are done.
///
/// # Errors
/// Where it cannot start, or a part of it ends by itself.
pub async fn run(config: ControlConfig) -> Result<(), ControlError> {
    let sockets = Sockets::open("control API", config.listen, config.common.admin).await?;
    let (signal, drain) = Drain::new();
    let (addr, admin_addr) = (sockets.addr, sockets.admin.addr);
    let admin = tokio::spawn(sockets.admin.run(drain.clone()));
    let client = Client::try_default().await.map_err(|error| ControlError::Client(Box::new(error)))?;
    let served = Served::new(certs::CONTROL, &sockets.registry);
    let tls = tls::server_config(Arc::clone(&served.cert) as Arc<_>).map_err(ControlError::Tls)?;
    let parts = start::Setup {
        client,
        namespace: config.common.namespace,
        recorder_image: config.recorder_image,
        eviction_percent: config.eviction_percent,
        api_servers: config.api_servers,
        trust: config.common.trust,
        images: config.images.iter().map(|image| role::repository(image).to_owned()).collect(),
        clock: Arc::new(SystemClock),
        registry: sockets.registry,
        readiness: sockets.readiness,
        drain: drain.clone(),
    };
    tracing::info!(version = version(), %addr, admin = %admin_addr, "the control plane starts");
    let outcome = tokio::select! {
        outcome = parts.run(served, sockets.listener, tls) => outcome,
        () = shutdown_signal() => Ok(()),
    };
    if signal.drain(config.common.drain).await == Drained::Deadline {
        tracing::warn!("requests were still in flight at the deadline");
    }
    // It ends with the drain; how does not matter any more.
    let _ = admin.await;
    outcome
}
