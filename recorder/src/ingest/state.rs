//! Whether this recorder accepts, is degraded, refuses some, or refuses all: shown by a metric, logged when it changes, and not ready
//! while it refuses, so that others are asked.

use std::{sync::Arc, time::Duration};

use podwitness_core::control::Taking;
use podwitness_runtime::readiness::{BlockReady, Readiness};
use tokio::{
    sync::{Notify, watch as values},
    task::spawn_blocking,
    time::sleep,
};

use crate::{
    metrics::Metrics,
    ship::status::Status,
    store::{SpaceReport, Store},
};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Where the state shows, and who hears of it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Says it in numbers.
    pub metrics: Metrics,
    /// Not ready while it refuses.
    pub readiness: Readiness,
    /// Whoever follows it.
    pub states: values::Sender<Taking>,
    /// Woken when it refuses no more: there is room for what found none.
    pub room: Arc<Notify>,
}

/// Looks until it is dropped.
pub async fn watch(store: Arc<Store>, shipping: Option<Status>, shown: Shown) {
    let Shown { metrics, readiness, states, room } = shown;
    let (mut before, mut blocked) = (Taking::Accepting, None);
    loop {
        let volume = Arc::clone(&store);
        // Without an answer, which only the end of the runtime leaves away, nothing changes.
        let look = move || {
            volume.space().measure_when_due();
            volume.space().state()
        };
        let volume = spawn_blocking(look).await.unwrap_or(before);
        let state = overall(volume, shipping.as_ref());
        metrics.state(state);
        if state != before {
            say(state, &store, shipping.as_ref());
            states.send_replace(state);
            if before == Taking::Refusing {
                room.notify_one();
            }
            before = state;
        }
        blocked = block(state, &readiness, blocked);
        sleep(EVERY).await;
    }
}

fn overall(volume: Taking, shipping: Option<&Status>) -> Taking {
    match volume {
        Taking::Accepting if shipping.is_some_and(|shipping| !shipping.is_well()) => Taking::Degraded,
        state => state,
    }
}

fn block(state: Taking, readiness: &Readiness, blocked: Option<BlockReady>) -> Option<BlockReady> {
    (state == Taking::Refusing)
        .then(|| blocked.unwrap_or_else(|| readiness.block("free space on the volume")))
}

fn say(state: Taking, store: &Store, shipping: Option<&Status>) {
    let failing = shipping.and_then(Status::failing).map(|class| class.as_str());
    let backlog = shipping.map(Status::backlog).unwrap_or_default();
    let (waiting, age) = (backlog.bytes, backlog.age.as_secs());
    let SpaceReport { free, left, stored, above_share } = store.space().report();
    if state == Taking::Accepting {
        tracing::info!(state = state.as_str(), free, left, waiting, age, "everything is accepted again");
    } else {
        tracing::warn!(
            state = state.as_str(),
            free,
            left,
            stored,
            above_share,
            waiting,
            age,
            bucket = failing,
            "the recorder is not well"
        );
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use podwitness_runtime::metrics::SharedRegistry;

    use super::*;
    use crate::bucket::{BucketError, Class};

    #[tokio::test(start_paused = true)]
    async fn the_state_follows_the_volume_and_the_bucket() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path(), 1000).unwrap());
        let (registry, readiness, status) = (SharedRegistry::new(), Readiness::new(), Status::default());
        let metrics = Metrics::register(&registry, &store);
        let (room, states) = (Arc::new(Notify::new()), values::Sender::new(Taking::Accepting));
        let followed = states.subscribe();
        let shown = Shown { metrics, readiness: readiness.clone(), states, room: Arc::clone(&room) };
        let task = tokio::spawn(watch(Arc::clone(&store), Some(status.clone()), shown));
        let is = |state: &str| {
            let text = registry.encode().unwrap();
            Taking::ALL.into_iter().all(|one| {
                let value = u8::from(one.as_str() == state);
                text.contains(&format!("podwitness_recorder_state{{state=\"{}\"}} {value}", one.as_str()))
            }) && followed.borrow().as_str() == state
        };
        let look = async |free: u64| {
            // The volume is looked at with the state, and found again at once.
            for _ in 0..3 {
                store.space().found(free);
                sleep(EVERY / 2).await;
            }
        };
        look(5000).await;
        assert!(is("accepting") && readiness.is_ready());
        look(1500).await;
        assert!(is("degraded") && readiness.is_ready());
        look(999).await;
        assert!(is("refusing") && !readiness.is_ready());
        assert!(room.notified().now_or_never().is_none());
        look(5000).await;
        assert!(is("accepting") && readiness.is_ready());
        assert!(room.notified().now_or_never().is_some(), "it is said that there is room");
        status.failed(&BucketError::test(Class::Denied));
        look(5000).await;
        assert!(is("degraded") && readiness.is_ready());
        status.succeeded();
        look(5000).await;
        assert!(is("accepting"));
        task.abort();
    }
}
