//! The `view` role: the catalogue and its API, on loopback.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::service::TowerToHyperService;
use podwitness_runtime::{
    accept::accept,
    clock::SystemClock,
    connection::ConnectionLimiter,
    drain::Drain,
    http::{Limits, serve_connection, tracked},
    quota::{QuotaLimits, QuotaMetrics},
    version::version,
};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::{
    bucket::open::{OpenError, open},
    config::ViewConfig,
    view::{Catalogue, EventTable, api},
};

/// Connections at a time. All come over the pod's loopback, so that one source may have all.
const CONNECTIONS: QuotaLimits = QuotaLimits { total: 64, per_key: 64 };

/// Why the viewer cannot begin.
#[derive(Debug, Error)]
pub enum ViewError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for the viewer; is the port taken?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The bucket's settings cannot be used.
    #[error(transparent)]
    Bucket(#[from] OpenError),
}

/// The viewer with its socket open.
pub struct Bound {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    catalogue: Arc<Catalogue>,
    events: EventTable,
    deadline: Duration,
}

/// Opens the socket.
///
/// # Errors
/// Where the address cannot be listened on, or the bucket's settings cannot be used.
pub async fn bind(config: ViewConfig) -> Result<Bound, ViewError> {
    let address = config.listen;
    let failed = |source| ViewError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(version = version(), %address, store = %config.common.store.display(), "listening");
    let mut events = EventTable::new(&config.common.store);
    let mut catalogue = Catalogue::new(config.common.store, Arc::new(SystemClock));
    if let Some(s3) = &config.common.s3 {
        let bucket = open(s3)?;
        (events, catalogue) = (events.with_bucket(bucket.clone()), catalogue.with_bucket(bucket));
    }
    let catalogue = Arc::new(catalogue);
    Ok(Bound { address, listener, catalogue, events, deadline: config.common.drain })
}

impl Bound {
    /// Answers until `stop` completes, then lets downloads finish.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (signal, watch) = Drain::new();
        let router = api::router(self.catalogue, self.events);
        let draining = watch.clone();
        let until = async move { draining.draining().await };
        // The viewer has no metrics of its own.
        let limiter = ConnectionLimiter::with(CONNECTIONS, QuotaMetrics::default());
        let serving = accept(self.listener, limiter, until, |io, _, connection| {
            let (service, watch) = (TowerToHyperService::new(router.clone()), watch.clone());
            async move {
                let guard = watch.guard();
                let service = tracked(service, &connection);
                // A client that hangs up is no error of ours.
                let _ = serve_connection(io, service, &Limits::default(), &watch, &connection).await;
                drop(guard);
            }
        });
        let ending = async {
            stop.await;
            signal.drain(self.deadline).await
        };
        let ((), drained) = tokio::join!(serving, ending);
        tracing::info!(?drained, "drained");
    }
}
