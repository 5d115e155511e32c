//! From changes in the cluster to published worlds: gather for a moment, build, look whether anything would vanish by
//! accident, and publish. What was found is written into the objects' status elsewhere ([`StatusWriter`](super::status::StatusWriter)).

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use kube::ResourceExt as _;
use podwitness_core::{
    control::{Issuer, ServingNames},
    trust::TrustSetting,
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{
    addresses::Found,
    enrolments::{Enrolments, Remembered},
    external::Endpoints,
    filled::Filled,
    hold::{Held, Hold},
    metrics::Metrics,
    pod::Pod,
    sources,
    watch::Caches,
    world::{Published, World},
};
/// How long changes are gathered.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// After this time everything is looked at again, also without a change: held worlds, failed writes, gone pods.
const AGAIN: Duration = Duration::from_secs(10);
/// The same while a world is held back.
const AGAIN_HELD: Duration = Duration::from_secs(1);

/// What stays the same in every world.
#[derive(Clone, Debug)]
pub struct Fixed {
    /// Id of the cluster.
    pub cluster: String,
    /// Keys that sign assertions.
    pub issuers: Vec<Issuer>,
    /// Which pods may have a certificate of the cluster's CA.
    pub trust: TrustSetting,
}

/// Publishes worlds.
pub struct Publisher {
    /// Where objects come from.
    pub caches: Caches,
    /// Whether they are there.
    pub filled: Filled,
    /// Told of every change.
    pub changed: Arc<Notify>,
    /// Keys of pods.
    pub enrolments: Enrolments,
    /// Addresses of recorders outside the cluster.
    pub endpoints: Endpoints,
    /// Where API servers are reached; nothing is published before that was looked for.
    pub addresses: watch::Receiver<Option<Arc<Found>>>,
    /// For which names certificates of the cluster's CA are; none is issued before they are known.
    pub serving: watch::Receiver<Option<Arc<ServingNames>>>,
    /// What stays the same.
    pub fixed: Fixed,
    /// PEM roots of the control API's certificate, as they change; nothing is published without them.
    pub roots: watch::Receiver<Option<Arc<str>>>,
    /// Where worlds go.
    pub worlds: watch::Sender<Option<Arc<Published>>>,
    /// Keeps worlds from shrinking.
    pub hold: Hold,
    /// Counts.
    pub metrics: Metrics,
    /// Told when status may have to be written.
    pub status: Arc<Notify>,
}

impl Publisher {
    /// Publishes for as long as it runs; the caches are waited for first.
    pub async fn run(mut self) {
        self.filled.wait().await;
        // An error says that the certificate's keeper is gone, which ends the program elsewhere.
        let _ = self.roots.wait_for(Option::is_some).await;
        let _ = self.addresses.wait_for(Option::is_some).await;
        self.remember();
        let mut held = None;
        loop {
            let now_held = self.once().await.err();
            report(held.as_ref(), now_held.as_ref());
            self.metrics.held.set(i64::from(now_held.is_some()));
            held = now_held;
            self.next_change(if held.is_some() { AGAIN_HELD } else { AGAIN }).await;
        }
    }

    async fn next_change(&mut self, again: Duration) {
        let change = async {
            tokio::select! {
                () = self.changed.notified() => {}
                Ok(()) = self.roots.changed() => {}
            }
        };
        if timeout(again, change).await.is_ok() {
            sleep(DEBOUNCE).await;
        }
    }

    async fn once(&mut self) -> Result<(), Held> {
        let (grants, recorders) = (self.caches.grants.state(), self.caches.recorders.state());
        let names = [
            grants.iter().map(|grant| grant.name_any()).collect::<BTreeSet<_>>(),
            recorders.iter().map(|recorder| recorder.name_any()).collect(),
        ];
        self.hold.check(names).await?;
        self.endpoints.want(&recorders);
        let pods = self.caches.pods.state();
        self.prune(&pods);
        self.metrics.widened.set(sources::widened(&self.caches.namespaces.state()));
        self.publish(self.build(&pods));
        self.status.notify_one();
        Ok(())
    }

    fn build(&self, pods: &[Arc<Pod>]) -> World {
        let caches = &self.caches;
        let (recorders, zones) = (caches.recorders.state(), sources::zones(&caches.nodes.state()));
        World {
            cluster: self.fixed.cluster.clone(),
            issuers: self.fixed.issuers.clone(),
            roots: self.roots.borrow().iter().map(ToString::to_string).collect(),
            grants: sources::grants(&caches.grants.state()),
            recorders: sources::peers(&recorders, &self.enrolments.lock(), pods, &self.endpoints, &zones),
            zones,
            namespaces: sources::namespaces(&caches.namespaces.state()),
            api_servers: self.api_servers(),
            trust: self.fixed.trust,
            serving: self.serving.borrow().as_deref().cloned(),
        }
    }

    /// The API server always has an address: none at all is an accident.
    fn api_servers(&self) -> Found {
        if let Some(found) = self.addresses.borrow().as_deref().filter(|found| !found.addresses.is_empty()) {
            return found.clone();
        }
        let before = self.worlds.borrow();
        before.as_ref().map(|published| published.world.api_servers.clone()).unwrap_or_default()
    }

    fn publish(&self, world: World) {
        let before = self.worlds.borrow().clone();
        if before.as_ref().is_some_and(|published| published.world == world) {
            return;
        }
        let generation = before.map_or(1, |published| published.generation.saturating_add(1));
        tracing::info!(
            generation,
            grants = world.grants.len(),
            replicas = world.recorders.len(),
            "the netmap has changed"
        );
        self.metrics.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.metrics.replicas.set(i64::try_from(world.recorders.len()).unwrap_or(i64::MAX));
        self.worlds.send_replace(Some(Arc::new(Published { generation, world })));
    }

    fn prune(&self, pods: &[Arc<Pod>]) {
        let live: BTreeSet<&str> = pods.iter().filter(|pod| !pod.finished()).map(|pod| pod.uid()).collect();
        let mut registry = self.enrolments.lock();
        registry.prune(|uid| live.contains(uid));
        self.metrics.enrolled.set(i64::try_from(registry.len()).unwrap_or(i64::MAX));
    }

    /// Replicas that enrolled before this run of the control plane.
    fn remember(&self) {
        for recorder in self.caches.recorders.state() {
            let name = recorder.name_any();
            if let Some(found) = recorder.status.as_ref().and_then(|status| status.external.as_ref()) {
                self.endpoints.remember(found);
            }
            for replica in recorder.status.iter().flat_map(|status| &status.replicas) {
                let endpoint = replica.endpoint.parse::<SocketAddr>().ok();
                self.enrolments.remember(Remembered {
                    recorder: &name,
                    uid: &replica.pod_uid,
                    key: &replica.key,
                    ip: endpoint.map(|endpoint| endpoint.ip().to_string()),
                });
            }
        }
    }
}

fn report(before: Option<&Held>, now: Option<&Held>) {
    match (before, now) {
        (before, Some(held)) if before != Some(held) => {
            tracing::warn!(%held, "the netmap is kept as it is");
        }
        (Some(_), None) => tracing::info!("the netmap follows its objects again"),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
