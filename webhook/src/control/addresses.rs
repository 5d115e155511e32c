//! Where API servers are reached: what the objects of the cluster, the setting and DNS say, as it changes.
//!
//! It is found out beside the publisher, because EndpointSlices of a large cluster change all the time and the API
//! server's addresses hardly ever: only a difference makes a new world.

mod find;
mod given;

pub use find::{Found, MAX_ADDRESSES, Objects, find, of_service, of_slice};
pub use given::{Given, MAX_OF_NETWORK, parse};

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    net::lookup_host,
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{filled::Filled, metrics::Metrics, watch::Caches};

/// How long changes are gathered.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// How often names are looked up, and everything is looked at without a change.
const AGAIN: Duration = Duration::from_secs(30);
/// For one look-up.
const LIMIT: Duration = Duration::from_secs(5);
/// Look-ups at a time.
const AT_ONCE: usize = 8;
/// Cap on names; further ones are left out.
const MAX_NAMES: usize = 32;
/// How long nodes and `cluster-info` are waited for at the start: without them less is known, and nothing is wrong.
const FIRST: Duration = Duration::from_secs(10);

/// Addresses behind names.
type Named = BTreeMap<String, Vec<IpAddr>>;

/// Follows the addresses.
pub struct Follower {
    /// Where objects come from.
    pub caches: Caches,
    /// Whether they are there.
    pub filled: Filled,
    /// Told of every change of those objects.
    pub changed: Arc<Notify>,
    /// What the setting says.
    pub given: Vec<Given>,
    /// Where what is found goes.
    pub found: watch::Sender<Option<Arc<Found>>>,
    /// Told of what is found.
    pub tell: Arc<Notify>,
    /// Counts.
    pub metrics: Metrics,
}

impl Follower {
    /// Follows for as long as it runs.
    pub async fn run(self) {
        self.filled.wait().await;
        let (nodes, cluster_info) = (self.caches.nodes.clone(), self.caches.cluster_info.clone());
        let others = async move { tokio::join!(nodes.wait_until_ready(), cluster_info.wait_until_ready()) };
        if timeout(FIRST, others).await.is_err() {
            tracing::warn!(
                "cannot read nodes or kube-public/cluster-info; the API server's addresses there are not known"
            );
        }
        let (wanted, named) = (watch::Sender::default(), watch::Sender::default());
        tokio::join!(self.find(&wanted, named.subscribe()), look_up_all(wanted.subscribe(), &named));
    }

    async fn find(&self, wanted: &watch::Sender<BTreeSet<String>>, mut named: watch::Receiver<Named>) {
        loop {
            let given = self.given();
            let names = given.iter().filter_map(Given::name).map(ToOwned::to_owned).take(MAX_NAMES).collect();
            wanted.send_if_modified(|before| {
                *before != names && {
                    *before = names;
                    true
                }
            });
            let names = named.borrow_and_update().clone();
            self.publish(find(&Objects {
                services: &self.caches.services.state(),
                slices: &self.caches.slices.state(),
                nodes: &self.caches.nodes.state(),
                given: &given,
                named: &names,
            }));
            tokio::select! {
                () = self.changed.notified() => sleep(DEBOUNCE).await,
                // The sender lives as long as this.
                _ = named.changed() => {}
                () = sleep(AGAIN) => {}
            }
        }
    }

    /// The setting, and the server of `kube-public/cluster-info`.
    fn given(&self) -> Vec<Given> {
        let told = self.caches.cluster_info.state();
        let told = told.iter().flat_map(|info| given::of_cluster_info(info));
        self.given.iter().cloned().chain(told).collect()
    }

    fn publish(&self, found: Found) {
        let before = self.found.borrow().clone();
        if before.as_deref() == Some(&found) {
            return;
        }
        self.metrics.api_servers.set(i64::try_from(found.addresses.len()).unwrap_or(i64::MAX));
        if found.left_out > 0 {
            tracing::warn!(
                left_out = found.left_out,
                "more addresses lead to the API server than sidecars can be told"
            );
        }
        tracing::info!(addresses = found.addresses.len(), "the addresses of the API server have changed");
        self.found.send_replace(Some(Arc::new(found)));
        self.tell.notify_one();
    }
}

/// Looks names up for ever. A name that was found once keeps its addresses until it is found to have others.
async fn look_up_all(mut wanted: watch::Receiver<BTreeSet<String>>, named: &watch::Sender<Named>) {
    loop {
        let names = wanted.borrow_and_update().clone();
        let found: Vec<_> =
            stream::iter(names.clone()).map(look_up).buffer_unordered(AT_ONCE).collect().await;
        named.send_if_modified(|known| {
            let before = known.clone();
            known.retain(|name, _| names.contains(name));
            known.extend(found.into_iter().flatten());
            *known != before
        });
        tokio::select! {
            // The sender lives as long as this.
            _ = wanted.changed() => {}
            () = sleep(AGAIN) => {}
        }
    }
}

async fn look_up(name: String) -> Option<(String, Vec<IpAddr>)> {
    let looked_up = async {
        let found = lookup_host((name.as_str(), 0)).await?;
        io::Result::Ok(found.map(|address| address.ip().to_canonical()).collect::<BTreeSet<_>>())
    };
    match timeout(LIMIT, looked_up).await {
        Ok(Ok(found)) => Some((name, found.into_iter().collect())),
        Ok(Err(error)) => {
            tracing::warn!(name, %error, "a name of the API server is not found");
            None
        }
        Err(_) => {
            tracing::warn!(name, "a name of the API server is not found in time");
            None
        }
    }
}

#[cfg(test)]
mod tests;
