//! Puts the events of all clients into the store.
//!
//! `clients --batches--> writer`: one task and a channel of [`QUEUE`], and a semaphore of bytes that
//! all share; while either is full, clients wait. A commit writes everything that has come while the one before was
//! written, so that the volume itself sets the pace: one event is durable after one synchronisation, and many cost no
//! more. A file is published [`PUBLISH`] after it was begun; at the level `object` each commit is one, and is acknowledged
//! when the bucket has it, so that the bucket sets the pace.

use std::{path::PathBuf, sync::Arc, time::Duration};

use podwitness_core::grant::AckLevel;
use podwitness_runtime::keyed_semaphore::SharePermit;
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::super::commit::Backing;
use crate::{
    metrics::Metrics,
    ship::Shipper,
    store::{
        ShareKey, Store, StoreError,
        events::{Draft, EventLog},
        proportion,
    },
};

/// Batches that wait to be written.
const QUEUE: usize = 256;
/// Cap on the bytes of one commit, but for its last batch.
const MOST: usize = 4 << 20;
/// How long a file is written before it is published.
const PUBLISH: Duration = Duration::from_secs(10);

/// How long events wait for the bucket, where that is what is acknowledged.
const BUCKET: Duration = Duration::from_secs(5);

/// Events of one client that are to become durable together.
#[derive(Debug)]
pub(in crate::ingest) struct Batch {
    /// Whose they are.
    pub(in crate::ingest) owner: ShareKey,
    /// The events.
    pub(in crate::ingest) events: Vec<Draft>,
    /// Free once they are written.
    pub(in crate::ingest) taken: SharePermit,
    /// Told the ids, or what went wrong.
    pub(in crate::ingest) done: oneshot::Sender<Result<Vec<String>, Arc<StoreError>>>,
}

/// Takes batches.
pub(in crate::ingest) type Batches = mpsc::Sender<Batch>;

/// Writes until it is told to finish, and publishes what is open then.
#[derive(Debug)]
pub(in crate::ingest) struct Writer {
    backing: Backing,
    batches: mpsc::Receiver<Batch>,
}

impl Writer {
    pub(in crate::ingest) fn new(backing: Backing) -> (Batches, Self) {
        let (sender, batches) = mpsc::channel(QUEUE);
        (sender, Self { backing, batches })
    }

    /// Writes into `log` until `finish` is cancelled, and then what has come.
    pub(in crate::ingest) async fn run(mut self, mut log: EventLog, finish: CancellationToken) {
        let mut publish = None;
        loop {
            let due = async {
                match publish {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = due => {
                    log = self.published(log).await;
                    publish = None;
                }
                () = finish.cancelled(), if !self.batches.is_closed() => self.batches.close(),
                first = self.batches.recv() => {
                    let Some(first) = first else { break };
                    log = self.commit(first, log).await;
                    if !log.is_open() {
                        publish = None;
                    } else {
                        publish.get_or_insert_with(|| Instant::now() + PUBLISH);
                    }
                }
            }
        }
        drop(self.published(log).await);
    }

    async fn commit(&mut self, first: Batch, log: EventLog) -> EventLog {
        let mut size = bytes(&first);
        let mut batches = vec![first];
        while size < MOST
            && let Ok(batch) = self.batches.try_recv()
        {
            size = size.saturating_add(bytes(&batch));
            batches.push(batch);
        }
        let Backing { store, clock, metrics, .. } = self.backing.clone();
        let (now, begun) = (clock.now_unix(), Instant::now());
        let (mut log, batches, mut result) = blocking(move || {
            let batches = admitted(&store, &metrics, batches);
            if batches.is_empty() { (log, batches, Ok(Vec::new())) } else { write(&store, log, batches, now) }
        })
        .await;
        if batches.is_empty() {
            return log;
        }
        let size = batches.iter().map(bytes).fold(0, usize::saturating_add);
        if result.is_ok()
            && self.backing.ack == AckLevel::Object
            && let Some(shipper) = self.backing.shipper.clone()
        {
            let file;
            (log, file) = publish(log).await;
            if !shipped(&shipper, file).await {
                result = Err(StoreError::Bucket);
            }
        }
        match &result {
            Ok(ids) => self.backing.metrics.events_stored(ids.len() as u64, size as u64, begun.elapsed()),
            Err(error) => {
                tracing::warn!(%error, source = ?std::error::Error::source(error), "events cannot be stored");
            }
        }
        tell(batches, result);
        log
    }
}

impl Writer {
    async fn published(&self, log: EventLog) -> EventLog {
        let (log, file) = publish(log).await;
        if let (Some(shipper), Some(file)) = (&self.backing.shipper, file) {
            shipper.published(file);
        }
        log
    }
}

/// Tells each client what became of its events. One that has gone away hears nothing.
fn tell(batches: Vec<Batch>, result: Result<Vec<String>, StoreError>) {
    match result {
        Ok(ids) => {
            let mut ids = ids.into_iter();
            for Batch { events, taken, done, .. } in batches {
                drop(taken);
                let _ = done.send(Ok(ids.by_ref().take(events.len()).collect()));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for batch in batches {
                let _ = batch.done.send(Err(Arc::clone(&error)));
            }
        }
    }
}

type Written = (EventLog, Vec<Batch>, Result<Vec<String>, StoreError>);

fn write(store: &Store, mut log: EventLog, batches: Vec<Batch>, now: i64) -> Written {
    let before = log.written();
    let result = log.append(batches.iter().flat_map(|batch| &batch.events), now);
    let written = log.written().saturating_sub(before);
    let all = batches.iter().map(bytes).fold(0, usize::saturating_add);
    for batch in &batches {
        let charged = bytes(batch);
        let its = proportion(written, charged as u64, all as u64);
        store.space().settle_events(&batch.owner, charged as u64, its);
    }
    (log, batches, result)
}

/// Those for which there is space. The others are told that there is none; of their clients, not of all.
fn admitted(store: &Store, metrics: &Metrics, batches: Vec<Batch>) -> Vec<Batch> {
    let admitted = batches.into_iter().filter_map(|batch| {
        match store.space().charge(&batch.owner, bytes(&batch) as u64) {
            Ok(()) => Some(batch),
            Err(error) => {
                let share = matches!(error, StoreError::Share { .. });
                metrics.refused(if share { "share" } else { "full" });
                // A client that is gone does not hear of it.
                let _ = batch.done.send(Err(Arc::new(error)));
                None
            }
        }
    });
    admitted.collect()
}

/// Publishes what is open, and says where it lies.
async fn publish(mut log: EventLog) -> (EventLog, Option<PathBuf>) {
    blocking(move || match log.publish() {
        Ok(file) => (log, file),
        Err(error) => {
            tracing::warn!(%error, source = ?std::error::Error::source(&error), "a file of events stays open");
            (log, None)
        }
    })
    .await
}

/// Whether the bucket took the file in time. If not, it is shipped later, and its events come once more.
async fn shipped(shipper: &Shipper, file: Option<PathBuf>) -> bool {
    let Some(file) = file else { return false };
    timeout(BUCKET, shipper.events(&file)).await.is_ok_and(|shipped| shipped.is_ok())
}

/// Work that blocks. A panic in it is passed on, as without a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => std::future::pending().await,
        },
    }
}

fn bytes(batch: &Batch) -> usize {
    batch.events.iter().map(Draft::len).fold(0, usize::saturating_add)
}
