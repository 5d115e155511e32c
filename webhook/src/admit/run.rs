//! Binds the sockets, then runs admission until it is told to stop.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::service::TowerToHyperService;
use kube::Client;
use podwitness_runtime::{
    accept,
    admin::{self, Admin},
    drain::{Drain, Drained, Watch, shutdown_signal},
    http::{Limits, serve_connection},
    metrics::SharedRegistry,
    readiness::Readiness,
    tls,
};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::{net::TcpListener, task::JoinSet};

use super::{server, world::World};
use crate::{
    certs::{self, Publisher, Served},
    config::AdmitConfig,
};

/// Connections at a time; the API server holds one or two per replica, over HTTP/2.
const MAX_CONNECTIONS: usize = 256;
/// How long reviews are still taken after SIGTERM, while endpoints forget this replica.
const LINGER: Duration = Duration::from_secs(5);

/// Why admission cannot run.
#[derive(Debug, Error)]
pub enum AdmitError {
    /// The webhook's address is taken or not ours.
    #[error("cannot listen on {addr} for reviews; is the port taken?")]
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
    #[error("a part of admission has ended: {0}")]
    Ended(String),
}

/// Admission with its sockets open.
pub struct Bound {
    /// Where reviews are taken.
    pub addr: SocketAddr,
    /// Where health and metrics are.
    pub admin_addr: SocketAddr,
    listener: TcpListener,
    admin: admin::Bound,
    config: AdmitConfig,
    registry: SharedRegistry,
    readiness: Readiness,
}

/// Runs admission until SIGTERM, and then until reviews in flight are answered.
///
/// # Errors
/// Where it cannot start, or a part of it ends by itself.
pub async fn run(config: AdmitConfig) -> Result<(), AdmitError> {
    bind(config).await?.run(shutdown_signal()).await
}

/// Opens the sockets.
///
/// # Errors
/// Where one of them cannot be opened.
pub async fn bind(config: AdmitConfig) -> Result<Bound, AdmitError> {
    let failed = |source| AdmitError::Listen { addr: config.listen, source };
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
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AdmitError> {
        let client = Client::try_default().await.map_err(|error| AdmitError::Client(Box::new(error)))?;
        let (signal, drain) = Drain::new();
        let deadline = self.config.common.drain;
        let readiness = self.readiness.clone();
        tracing::info!(addr = %self.addr, admin = %self.admin_addr, image = self.config.image, "admission starts");
        let (mut tasks, admin) = self.start(&client, &drain)?;
        let outcome = tokio::select! {
            ended = tasks.join_next() => Err(AdmitError::Ended(format!("{ended:?}"))),
            () = shutdown => Ok(()),
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
        self,
        client: &Client,
        drain: &Watch,
    ) -> Result<(JoinSet<()>, tokio::task::JoinHandle<()>), AdmitError> {
        let mut tasks = JoinSet::new();
        let readiness = self.readiness;
        let namespace = self.config.common.namespace.clone();
        let served = Served::new(certs::ADMIT, &self.registry);
        let config = tls::server_config(Arc::clone(&served.cert) as Arc<_>).map_err(AdmitError::Tls)?;
        let world = Arc::new(World::new(self.config, served.roots(), Some(client)));
        world.follow(client, &readiness, &mut tasks);
        tasks.spawn(Publisher::new(client).run(served.roots(), readiness.block("webhook configuration")));
        let (follower, first) = (client.clone(), readiness.block("certificate"));
        tasks.spawn(async move { served.follow(&follower, &namespace, first).await });
        let router = server::router(world, &self.registry);
        tasks.spawn(serve(self.listener, config, router, drain.clone()));
        Ok((tasks, tokio::spawn(self.admin.run(drain.clone()))))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: SocketAddr) -> AdmitConfig {
        let env = |name: &str| {
            let value = match name {
                "PODWITNESS_SIDECAR_IMAGE" => "podwitness.dev/sidecar:dev",
                "PODWITNESS_ADMIN" => "127.0.0.1:0",
                _ => return None,
            };
            Some(value.to_owned())
        };
        AdmitConfig { listen, ..AdmitConfig::read(&env).unwrap() }
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_at_startup() {
        let first = bind(config("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let Err(error) = bind(config(first.addr)).await else { panic!("two listen on {}", first.addr) };
        assert!(error.to_string().contains(&first.addr.to_string()), "{error}");
    }
}
