//! Opens the sockets, then runs admission until it is told to stop.

use std::{sync::Arc, time::Duration};

use hyper::{
    Request,
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::service::TowerToHyperService;
use kube::Client;
use podwitness_runtime::{
    connection::ConnectionLimiter,
    drain::{Drain, Drained, Watch, shutdown_signal},
    http::{Limits, serve_connection},
    quota::QuotaLimits,
    tls,
    version::version,
};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

use super::{body, events, server, world::World};
use crate::{
    certs::{self, Publisher, Served},
    config::AdmitConfig,
    sockets::{SocketError, Sockets},
};

/// Connections at a time. An API server calls webhooks over HTTP/1.1, has as many connections as reviews (600 at most,
/// by its own limits on requests in flight), and keeps up to 25 for the next (`k8s.io/apiserver/pkg/util/webhook`,
/// `k8s.io/client-go/transport`). Which addresses are an API server's cannot be told, because the way here may
/// translate them.
const CONNECTIONS: QuotaLimits = QuotaLimits { total: 1024, per_key: 640 };
/// In which an idle connection is ended. An API server keeps its own for 90 s (`net/http.DefaultTransport`), used or
/// not yet, and a review that crosses the end of one is lost, and with it, where injection is required, the pod:
/// so it is left to the API server to end them, unless all places are taken.
const IDLE: Duration = Duration::from_secs(120);
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
    tracing::info!(version = version(), addr = %sockets.addr, admin = %sockets.admin.addr, image = config.image, "admission starts");
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
    let (events, publisher) = events::channel(client.clone());
    tasks.spawn(publisher.run());
    let router = server::router(world, events, &sockets.registry, readiness);
    let limiter = ConnectionLimiter::new("admission", CONNECTIONS, &sockets.registry);
    tasks.spawn(serve(sockets.listener, tls, router, limiter, drain.clone()));
    Ok((tasks, tokio::spawn(sockets.admin.run(drain.clone()))))
}

async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    router: axum::Router,
    limiter: ConnectionLimiter,
    drain: Watch,
) {
    let limits = limits();
    let until = drain.clone();
    tls::listener::serve(listener, config, drain, limiter, move |stream, peer, connection| {
        let (router, drain) = (TowerToHyperService::new(router.clone()), until.clone());
        let client = body::ReviewClient { connection: connection.clone(), source: peer.ip() };
        async move {
            let service = service_fn(|mut request: Request<Incoming>| {
                request.extensions_mut().insert(client.clone());
                router.call(request)
            });
            if let Err(error) = serve_connection(stream, service, &limits, &drain, &connection).await {
                tracing::debug!(%peer, error = &*error as &dyn std::error::Error, "a connection broke");
            }
        }
    })
    .await;
}

fn limits() -> Limits {
    Limits { header_timeout: IDLE, idle: None, max_streams: 16, ..Limits::default() }
}

#[cfg(test)]
mod tests;
