//! Writes what was found into the status of Grants and Recorders, apart from publishing: an API server that takes no
//! status, or only slowly, keeps no world from its pods.

use std::sync::Arc;

use kube::Client;
use podwitness_runtime::clock::Clock;
use tokio::sync::Notify;

use super::{enrolments::Enrolments, external::Endpoints, watch::Caches};
use crate::{
    grants,
    recorders::{self, Outcomes},
};

/// Writes status.
pub struct StatusWriter {
    /// Where objects come from.
    pub caches: Caches,
    /// Told by the publisher after each look at the cluster. While a round is under way, one is remembered.
    pub due: Arc<Notify>,
    /// Keys of pods.
    pub enrolments: Enrolments,
    /// What came of making the objects of recorders.
    pub outcomes: Outcomes,
    /// Addresses of recorders outside the cluster.
    pub endpoints: Endpoints,
    /// For dates.
    pub clock: Arc<dyn Clock>,
    /// Writes.
    pub client: Client,
}

impl StatusWriter {
    /// Writes for as long as it runs. What fails is tried again in the next round.
    pub async fn run(self) {
        loop {
            self.due.notified().await;
            self.once().await;
        }
    }

    async fn once(&self) {
        let (grants, recorders) = (self.caches.grants.state(), self.caches.recorders.state());
        let pods = self.caches.pods.state();
        let now = self.clock.now_unix();
        let seen = recorders::Seen {
            enrolments: &self.enrolments,
            outcomes: &self.outcomes,
            endpoints: &self.endpoints,
            pods: &pods,
        };
        recorders::reconcile(&self.client, &recorders, &seen, now).await;
        grants::reconcile(&self.client, &grants, &recorders, now).await;
    }
}
