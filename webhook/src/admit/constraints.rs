//! LimitRanges and ResourceQuotas of all namespaces, by watch: any namespace may be labelled next.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        watcher::{Config, watcher},
    },
};
use podwitness_runtime::readiness::Readiness;
use tokio::task::JoinSet;

use super::{
    cache::{self, Cache},
    quota::Quota,
    ranges::Ranges,
};

/// Cap on objects of either kind. What is left out is not reckoned with: a pod that does not fit it is refused by the API
/// server, also where injection is optional.
const MAX: usize = 20_000;

/// What limits the resources of pods.
#[derive(Debug)]
pub(super) struct Constraints {
    ranges: Cache<Ranges>,
    quotas: Cache<Quota>,
}

impl Constraints {
    /// Knows nothing yet.
    pub(super) const fn new() -> Self {
        Self { ranges: Cache::new(MAX), quotas: Cache::new(MAX) }
    }

    /// Starts both watches; readiness waits until each has delivered once.
    pub(super) fn follow(self: &Arc<Self>, client: &Client, readiness: &Readiness, tasks: &mut JoinSet<()>) {
        let ranges = watcher(Api::<LimitRange>::all(client.clone()), Config::default()).default_backoff();
        let quotas = watcher(Api::<ResourceQuota>::all(client.clone()), Config::default()).default_backoff();
        let (all, first) = (Arc::clone(self), readiness.block("limit ranges"));
        tasks.spawn(async move {
            cache::follow("watch limit ranges", ranges, &all.ranges, Ranges::read, first).await;
        });
        let (all, first) = (Arc::clone(self), readiness.block("resource quotas"));
        tasks.spawn(async move {
            cache::follow("watch resource quotas", quotas, &all.quotas, Quota::read, first).await;
        });
    }

    /// What the LimitRanges of a namespace demand together.
    pub(super) fn ranges(&self, namespace: &str) -> Ranges {
        let mut all = Ranges::default();
        self.ranges.within(namespace).iter().for_each(|range| all.narrow(range));
        all
    }

    /// The quotas of a namespace.
    pub(super) fn quotas(&self, namespace: &str) -> Vec<Quota> {
        self.quotas.within(namespace).iter().map(|quota| Quota::clone(quota)).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use kube::runtime::watcher::Event;

    use super::*;

    impl Constraints {
        /// Learns of two objects, as by watch.
        pub(in crate::admit) fn learn(&self, range: LimitRange, quota: ResourceQuota) {
            self.ranges.take(Event::Apply(range), Ranges::read);
            self.quotas.take(Event::Apply(quota), Quota::read);
        }
    }
}
