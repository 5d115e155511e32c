//! Puts an upload into the store and acknowledges what is durable.
//!
//! A commit writes everything that has arrived since the last one and syncs it once (group commit); the next begins
//! at the earliest [`GROUP`] after it, unless much has arrived. Nothing is acknowledged that is not durable, and a
//! frame goes out in time even while the volume is slow. Where the level is `object`, what is durable is acknowledged
//! when the bucket has it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use podwitness_core::grant::AckLevel;
use podwitness_runtime::{clock::Clock, keyed_semaphore::SharePermit};
use tokio::{
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout_at},
};

use super::{answer::Acks, intake::Progress};
use crate::{
    metrics::Metrics,
    ship::{Shipment, Shipper},
    store::{
        Part, Store, StoreError,
        layout::PartName,
        meta::{End, Meta, Outcome},
        times,
    },
};

/// Least time between the beginnings of two commits of little.
const GROUP: Duration = Duration::from_millis(20);
/// What is much: a quarter of the default lead of fail closed, so that one commit runs while the next gathers. Each
/// costs a synchronisation and an acknowledgement, which is a packet.
const MUCH: usize = 256 << 10;
/// Cap on one commit.
const MOST: usize = 1 << 20;

/// How long the end of an upload waits for the bucket, where that is what is acknowledged. What is not there by then is
/// on the volume, and is shipped later without a word.
const BUCKET: Duration = Duration::from_secs(10);

/// Steps of an upload, in order.
#[derive(Debug)]
pub(super) enum Step {
    /// The header came.
    Open(Box<(PartName, Meta)>, Bytes, Arc<SharePermit>),
    /// Whole lines came; with them, the session so far says this.
    Lines(Bytes, Progress, Arc<SharePermit>),
    /// That was all.
    End(Ended),
}

/// How receiving ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// In which way.
    pub(super) outcome: Outcome,
    /// What the client is told, if it went wrong.
    pub(super) message: String,
}

/// What became of an upload.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// Session and part, if a header came.
    pub(super) name: Option<PartName>,
    /// In which way it ended.
    pub(super) outcome: Outcome,
    /// What went wrong.
    pub(super) message: String,
    /// Bytes stored.
    pub(super) bytes: u64,
}

/// What commits need.
#[derive(Clone, Debug)]
pub(super) struct Backing {
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    /// Bounds commits that run at a time, and with them the threads that block.
    pub(super) commits: Arc<Semaphore>,
    /// Ships what is stored, where there is a bucket.
    pub(super) shipper: Option<Shipper>,
    /// What an acknowledgement survives.
    pub(super) ack: AckLevel,
}

/// Stores the steps of one upload.
#[derive(Debug)]
pub(super) struct Committer {
    backing: Backing,
    acks: Acks,
    name: Option<PartName>,
    part: Option<Part>,
    progress: Progress,
    stored: u64,
    shipment: Option<Shipment>,
}

/// Everything that one commit writes.
#[derive(Debug, Default)]
struct Batch {
    open: Option<Box<(PartName, Meta)>>,
    pieces: Vec<Bytes>,
    /// Bytes of all pieces.
    len: usize,
    progress: Option<Progress>,
    end: Option<Ended>,
    /// Given back when the commit is over.
    taken: Vec<Arc<SharePermit>>,
}

impl Committer {
    pub(super) fn new(backing: Backing, acks: Acks) -> Self {
        Self {
            backing,
            acks,
            name: None,
            part: None,
            progress: Progress::default(),
            stored: 0,
            shipment: None,
        }
    }

    /// Stores until the steps end.
    pub(super) async fn run(mut self, mut steps: mpsc::Receiver<Step>) -> Report {
        let mut earliest = Instant::now();
        loop {
            let mut batch = Batch::default();
            match self.alive(steps.recv()).await {
                Some(step) => batch.add(step),
                None => batch.end = Some(cut_off()),
            }
            batch.gather(&mut steps, earliest).await;
            earliest = Instant::now() + GROUP;
            let (end, progress) = (batch.end.take(), batch.progress.take());
            if let Err(error) = self.commit(batch).await {
                if matches!(error, StoreError::Share { .. }) {
                    self.backing.metrics.refused("share");
                }
                // Whatever the client says next is not read.
                drop(steps);
                return self.finish(failed(&error)).await;
            }
            self.progress = progress.unwrap_or(self.progress);
            if let Some(end) = end {
                return self.finish(end).await;
            }
        }
    }

    async fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        if batch.open.is_none() && batch.pieces.is_empty() {
            return Ok(());
        }
        if let Some(open) = &batch.open {
            self.name = Some(open.0.clone());
        }
        let (backing, part) = (self.backing.clone(), self.part.take());
        let now = backing.clock.now_unix();
        let work = async move {
            // Never closed; without a permit the commit would only be less bounded.
            let permit = Arc::clone(&backing.commits).acquire_owned().await;
            let begun = Instant::now();
            let done = spawn_blocking(move || {
                let done = write(&backing.store, part, batch, now);
                drop(permit);
                done
            });
            (done.await, begun.elapsed())
        };
        let (done, took) = self.alive(work).await;
        let Ok((part, result)) = done else {
            return Err(StoreError::Io { action: "written", source: std::io::ErrorKind::Interrupted.into() });
        };
        self.part = part;
        result?;
        let stored = self.part.as_ref().map_or(0, Part::written);
        self.backing.metrics.committed(stored.saturating_sub(self.stored), took);
        self.stored = stored;
        if self.shipment.is_none() {
            let shipper = self.backing.shipper.as_ref().zip(self.part.as_ref());
            self.shipment = shipper.map(|(shipper, part)| shipper.follow(part));
        }
        if let Some(shipment) = &self.shipment {
            shipment.written(stored);
        }
        if self.backing.ack != AckLevel::Object {
            self.acks.safe(stored);
        }
        Ok(())
    }

    /// Waits for `work` and meanwhile sends the frames that are due, and what comes to be in the bucket.
    async fn alive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                bytes = shipped(self.shipment.as_mut()), if self.backing.ack == AckLevel::Object => {
                    self.acks.safe(bytes);
                }
                () = sleep_until(self.acks.due()) => self.acks.repeat(),
            }
        }
    }

    /// Where acknowledgements wait for the bucket, waits until all of a whole upload is there. False where it takes too
    /// long. Nobody waits for the rest of one that broke off.
    async fn is_shipped(&mut self, outcome: Outcome) -> bool {
        let (stored, until) = (self.stored, Instant::now() + BUCKET);
        if self.backing.ack != AckLevel::Object || outcome != Outcome::Complete || stored == 0 {
            return true;
        }
        loop {
            let Some(shipment) = &mut self.shipment else { return false };
            let bytes = shipment.shipped();
            self.acks.safe(bytes);
            if bytes >= stored {
                return true;
            }
            let wait = self.acks.due().min(until);
            if timeout_at(wait, shipment.changed()).await.is_err() && Instant::now() >= until {
                return false;
            }
        }
    }

    async fn finish(mut self, ended: Ended) -> Report {
        let Ended { mut outcome, mut message } = ended;
        let shipped = self.is_shipped(outcome).await;
        if let Some(part) = self.part.take() {
            let progress = std::mem::take(&mut self.progress);
            let at = self.backing.clock.now_unix_millis();
            let end = End {
                outcome,
                message: message.clone(),
                at,
                bytes: part.written(),
                duration: times::duration(progress.at, part.meta().facts.start, at),
                exit: progress.exit,
                session_end: progress.end,
                session_outcome: progress.outcome,
                gap: progress.gap,
                torn: 0,
                damaged: 0,
            };
            let finished = self.alive(spawn_blocking(move || part.finish(end))).await;
            if let Ok(Err(error)) = finished {
                tracing::warn!(%error, "the end of a recording is not marked");
                if outcome == Outcome::Complete {
                    (outcome, message) = (Outcome::Failed, error.to_string());
                }
            }
        }
        // Only now, with its end in place, is the part to be closed in the bucket too.
        drop(self.shipment.take());
        if outcome == Outcome::Complete && !shipped {
            (outcome, message) = (Outcome::Failed, StoreError::Bucket.to_string());
        }
        if outcome != Outcome::Complete {
            self.acks.fail(&message).await;
        }
        Report { name: self.name, outcome, message, bytes: self.stored }
    }
}

impl Batch {
    fn add(&mut self, step: Step) {
        match step {
            Step::Open(open, header, taken) => {
                self.open = Some(open);
                self.push(header);
                self.taken.push(taken);
            }
            Step::Lines(lines, progress, taken) => {
                self.push(lines);
                self.progress = Some(progress);
                self.taken.push(taken);
            }
            Step::End(end) => self.end = Some(end),
        }
    }

    fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        self.pieces.push(piece);
    }

    /// Adds what arrives until `until`, or until it is much, and then what is there already.
    async fn gather(&mut self, steps: &mut mpsc::Receiver<Step>, until: Instant) {
        while self.end.is_none() && self.len < MUCH {
            match timeout_at(until, steps.recv()).await {
                Ok(Some(step)) => self.add(step),
                Ok(None) => self.end = Some(cut_off()),
                Err(_) => break,
            }
        }
        while self.end.is_none() && self.len < MOST {
            match steps.try_recv() {
                Ok(step) => self.add(step),
                Err(_) => break,
            }
        }
    }
}

/// Bytes in the bucket, when they become more.
async fn shipped(shipment: Option<&mut Shipment>) -> u64 {
    match shipment {
        Some(shipment) => {
            shipment.changed().await;
            shipment.shipped()
        }
        None => std::future::pending().await,
    }
}

/// The blocking half of a commit.
fn write(
    store: &Store,
    part: Option<Part>,
    batch: Batch,
    now: i64,
) -> (Option<Part>, Result<(), StoreError>) {
    let mut part = match (part, batch.open) {
        (Some(part), _) => part,
        (None, Some(open)) => match store.create(&open.0, open.1, now) {
            Ok(part) => part,
            Err(error) => return (None, Err(error)),
        },
        (None, None) => return (None, Ok(())),
    };
    let result = store.append(&mut part, &batch.pieces);
    drop(batch.taken);
    if result.is_err() && part.written() == 0 {
        store.discard(part);
        return (None, result);
    }
    (Some(part), result)
}

/// Receiving ended without a word, which only a defect of ours does.
fn cut_off() -> Ended {
    Ended { outcome: Outcome::Failed, message: "receiving was cut off".to_owned() }
}

fn failed(error: &StoreError) -> Ended {
    let outcome = if matches!(error, StoreError::Exists { .. }) { Outcome::Refused } else { Outcome::Failed };
    // That an owner has more than its share is said once, where it comes to be.
    if outcome == Outcome::Failed && !matches!(error, StoreError::Share { .. }) {
        tracing::warn!(%error, source = ?std::error::Error::source(error), "a recording cannot be stored");
    }
    Ended { outcome, message: error.to_string() }
}
