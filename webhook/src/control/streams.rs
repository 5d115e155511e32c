//! Open netmap streams: one per pod, the newest wins, and a cap on all of them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

use super::refusal::Refusal;

/// Cap on open streams; further ones are refused.
const MAX_STREAMS: usize = 20_000;

/// The open streams. Clones are the same table.
#[derive(Clone, Debug, Default)]
pub struct Streams(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: AtomicU64,
    open: Mutex<HashMap<String, (u64, CancellationToken)>>,
    gauge: Gauge,
}

/// An open stream's place in the table, freed when dropped.
#[derive(Debug)]
#[must_use = "dropping it closes the stream's place"]
pub struct Place {
    uid: String,
    id: u64,
    superseded: CancellationToken,
    streams: Streams,
}

impl Streams {
    /// No stream yet; `gauge` shows how many there are.
    #[must_use]
    pub fn new(gauge: Gauge) -> Self {
        Self(Arc::new(Inner { gauge, ..Inner::default() }))
    }

    /// A place for a stream of the pod of this uid; the one that had it is told to end.
    ///
    /// # Errors
    /// Where too many streams are open.
    pub fn open(&self, uid: &str) -> Result<Place, Refusal> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let superseded = CancellationToken::new();
        let mut open = self.lock();
        if open.len() >= MAX_STREAMS && !open.contains_key(uid) {
            return Err(Refusal::Unavailable("too many netmap streams are open"));
        }
        if let Some((_, before)) = open.insert(uid.to_owned(), (id, superseded.clone())) {
            before.cancel();
        } else {
            self.0.gauge.inc();
        }
        Ok(Place { uid: uid.to_owned(), id, superseded, streams: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (u64, CancellationToken)>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Completes when the pod opens another stream.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        if open.get(&self.uid).is_some_and(|(id, _)| *id == self.id) {
            open.remove(&self.uid);
            self.streams.0.gauge.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_stream_of_a_pod_wins() {
        let streams = Streams::default();
        let first = streams.open("u").unwrap();
        let other = streams.open("v").unwrap();
        let second = streams.open("u").unwrap();
        first.superseded().await;
        assert!(!second.superseded.is_cancelled() && !other.superseded.is_cancelled());
        drop(first);
        assert_eq!(streams.0.gauge.get(), 2);
        drop((second, other));
        assert_eq!(streams.0.gauge.get(), 0);
    }

    #[tokio::test]
    async fn above_the_cap_only_pods_that_have_a_stream_get_one() {
        let streams = Streams::default();
        let _held: Vec<Place> = (0..MAX_STREAMS).map(|uid| streams.open(&uid.to_string()).unwrap()).collect();
        assert_eq!(streams.open("another").unwrap_err().label(), "unavailable");
        let again = streams.open("7").unwrap();
        assert_eq!(streams.lock().len(), MAX_STREAMS);
        drop(again);
    }
}
