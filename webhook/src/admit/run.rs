//! Opens the sockets, then runs admission until it is told to stop.

use std::{sync::Arc, time::Duration};

use hyper_util::service::TowerToHyperService;
use kube::Client;
use podwitness_runtime::{
    drain::{Drain, Drained, Watch, shutdown_signal},
    http::{Limits, serve_connection},
    tls,
};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

use super::{server, world::World};
use crate::{
    certs::{self, Publisher, Served},
    config::AdmitConfig,
    sockets::{SocketError, Sockets},
};

/// Connections at a time. An API server calls webhooks over HTTP/1.1 and keeps up to 25 for the next
/// (`k8s.io/apiserver/pkg/util/webhook`, `k8s.io/client-go/transport`).
const MAX_CONNECTIONS: usize = 256;
/// How long reviews are still taken after SIGTERM, while endpoints forget this replica.
const LINGER: Duration = Duration::from_secs(5);

/// Why admission cannot run.
#[derive(Debug, Error)]
pub enum AdmitError {
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
    #[error("a part of admission has ended: {0}")]
    Ended(String),
}

/// Runs admission until SIGTERM, and then until reviews in flight are answered.
///
/// # Errors
/// Where it cannot start, or a part of it ends by itself.
pub async fn run(config: AdmitConfig) -> Result<(), AdmitError> {
    let sockets = Sockets::open("reviews", config.listen, config.common.admin).await?;
    let client = Client::try_default().await.map_err(|error| AdmitError::Client(Box::new(error)))?;
    let (signal, drain) = Drain::new();
    let (deadline, readiness) = (config.common.drain, sockets.readiness.clone());
    tracing::info!(addr = %sockets.addr, admin = %sockets.admin.addr, image = config.image, "admission starts");
    let (mut tasks, admin) = start(config, sockets, &client, &drain)?;
    let outcome = tokio::select! {
        ended = tasks.join_next() => Err(AdmitError::Ended(format!("{ended:?}"))),
        () = shutdown_signal() => Ok(()),
    };
    let _leaving = readiness.block("shutdown");
    if outcome.is_ok() {
        tokio::time::sleep(LINGER).await;
    }
    if signal.drain(deadline).await == Drained::Deadline {
        tracing::warn!("reviews were still in flight at the deadline");
    }
    // It ends with the drain; how does not matter any more.
    let _ = admin.await;
    outcome
}

fn start(
    config: AdmitConfig,
    sockets: Sockets,
    client: &Client,
    drain: &Watch,
) -> Result<(JoinSet<()>, JoinHandle<()>), AdmitError> {
    let mut tasks = JoinSet::new();
    let readiness = sockets.readiness;
    let namespace = config.common.namespace.clone();
    let served = Served::new(certs::ADMIT, &sockets.registry);
    let tls = tls::server_config(Arc::clone(&served.cert) as Arc<_>).map_err(AdmitError::Tls)?;
    let world = Arc::new(World::new(config, served.roots(), Some(client)));
    world.follow(client, &readiness, &mut tasks);
    tasks.spawn(Publisher::new(client).run(served.roots(), readiness.block("webhook configuration")));
    let (follower, first) = (client.clone(), readiness.block("certificate"));
    tasks.spawn(async move { served.follow(&follower, &namespace, first).await });
    let router = server::router(world, &sockets.registry, readiness);
    tasks.spawn(serve(sockets.listener, tls, router, drain.clone()));
    Ok((tasks, tokio::spawn(sockets.admin.run(drain.clone()))))
}

async fn serve(listener: TcpListener, config: Arc<ServerConfig>, router: axum::Router, drain: Watch) {
    let until = drain.clone();
    tls::listener::serve(listener, config, drain, MAX_CONNECTIONS, move |stream, peer| {
        let (service, drain) = (TowerToHyperService::new(router.clone()), until.clone());
        async move {
            if let Err(error) = serve_connection(stream, service, &Limits::default(), &drain).await {
                tracing::debug!(%peer, error = &*error as &dyn std::error::Error, "a connection broke");
            }
        }
    })
    .await;
}
