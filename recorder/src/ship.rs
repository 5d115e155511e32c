//! Ships what is durable on the volume into a bucket, in the background.
//!
//! ```text
//! committer ──written──► follow (a task an upload) ──segments──┐
//!     ▲                      │ when it has ended               ├─► gate ─ permits ─► bucket
//!     └──────shipped─────────┘──────► backlog (one task) ──────┘
//! writer of events ──published──────────┘  ▲
//!                      the volume, looked at now and then
//! ```
//!
//! The volume is the truth: what the queues lose, a look at the volume finds again, in this process or the next. Only
//! what is in the bucket, whole and checked, is ever removed from the volume.

mod backlog;
mod follow;
pub mod layout;
pub mod manifest;
mod metrics;
mod part;
mod retire;
pub mod segment;
pub mod status;
mod stray;

pub use follow::Shipment;
pub use part::{PartShip, ShipError};

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use podwitness_core::grant::AckLevel;
use podwitness_runtime::metrics::SharedRegistry;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    bucket::{Bucket, BucketError, Put},
    store::{
        Part, Store,
        layout::PartName,
        live::{Held, Live},
        walk::Place,
    },
};
use status::{Status, Waits};

/// Requests at a time: with two buffers of a segment each, 32 MiB.
const REQUESTS: usize = 16;
/// Parts that have ended and wait to be closed. Above it they wait for the next look at the volume.
const ENDED: usize = 1024;
/// How long shipping goes on at shutdown, when nothing more is taken.
pub const LAST: Duration = Duration::from_secs(10);
/// Cap on a file of events: twice what one is published at.
const MAX_EVENTS: u64 = 128 << 20;

/// What shipping is made of.
#[derive(Debug)]
pub struct Setup {
    /// Where to.
    pub bucket: Bucket,
    /// Where from.
    pub store: Arc<Store>,
    /// What an acknowledgement survives: whether somebody waits for the bucket.
    pub ack: AckLevel,
    /// How long files stay on the volume once they are in the bucket; `None` for ever.
    pub keep: Option<Duration>,
    /// Cancelled once what another process left has its end: only then is the volume looked at.
    pub recovered: CancellationToken,
}

/// Ships. Clones are the same.
#[derive(Clone, Debug)]
pub struct Shipper {
    bucket: Bucket,
    store: Arc<Store>,
    status: Status,
    /// Longest time that bytes wait for company.
    gather: Duration,
    permits: Arc<Semaphore>,
    /// For whoever holds a file of events.
    reading: Arc<Semaphore>,
    ended: mpsc::Sender<Ended>,
    /// Parts that a task is at from their beginning, so that no look at the volume brings them to their end beside it.
    followed: Live,
    /// Woken when the volume is to be looked at.
    room: Arc<Notify>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What has to be brought to its end.
#[derive(Debug)]
enum Ended {
    Part(Box<Followed>),
    Events(PathBuf),
}

/// A part that was shipped while it was written.
#[derive(Debug)]
struct Followed {
    ship: PartShip,
    /// What of it waits.
    waits: Waits,
    /// Until it is in the bucket, or left to the next look at the volume.
    _held: Held,
}

impl Shipper {
    /// Begins to ship, within a runtime.
    #[must_use]
    pub fn start(setup: Setup, registry: &SharedRegistry) -> Self {
        let (ended, queue) = mpsc::channel(ENDED);
        let gather = if setup.ack == AckLevel::Object { follow::AT_ONCE } else { follow::GATHER };
        let shipper = Self {
            bucket: setup.bucket,
            store: setup.store,
            status: Status::default(),
            gather,
            permits: Arc::new(Semaphore::new(REQUESTS)),
            reading: Arc::new(Semaphore::new(1)),
            ended,
            followed: Live::default(),
            room: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        metrics::register(registry, &shipper.status);
        shipper.tasks.spawn(backlog::run(shipper.clone(), queue, setup.keep, setup.recovered));
        shipper
    }

    /// How it stands.
    #[must_use]
    pub const fn status(&self) -> &Status {
        &self.status
    }

    /// Ships a part while it is written.
    #[must_use]
    pub fn follow(&self, part: &Part) -> Shipment {
        follow::start(self, part)
    }

    /// Ships a published file of events.
    pub fn published(&self, file: PathBuf) {
        // Full: the next look at the volume finds it.
        let _ = self.ended.try_send(Ended::Events(file));
    }

    /// Ships a published file of events now, once.
    ///
    /// # Errors
    /// Where the bucket does not take it; it is tried again in the background.
    pub async fn events(&self, file: &Path) -> Result<(), ShipError> {
        backlog::events(self, file).await
    }

    /// The volume has room again for what found none: what could not be brought to its end for want of it is tried now.
    pub fn has_room(&self) {
        self.room.notify_one();
    }

    /// Ends, once everything is in the bucket or [`LAST`] is over. What is left is taken up by the next process, if it
    /// finds the same volume.
    pub async fn finish(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// One request, when the bucket may be asked.
    async fn ask<T>(&self, request: impl AsyncFnOnce() -> Result<T, ShipError>) -> Result<T, ShipError> {
        // Never closed; without a permit it would only be less bounded.
        let _permit = self.permits.acquire().await;
        let _probe = self.status.open().await;
        let done = request().await;
        match &done {
            Err(ShipError::Bucket(error)) => self.status.failed(error),
            Err(error @ ShipError::Local { .. }) => tracing::warn!(%error, "a recording cannot be shipped"),
            Ok(_) => self.status.succeeded(),
        }
        done
    }

    async fn put_same(&self, key: &str, content: Bytes) -> Result<(), ShipError> {
        let size = content.len() as u64;
        self.ask(async || {
            if self.bucket.put(key, content.clone()).await? == Put::Exists
                && self.bucket.get(key, MAX_EVENTS).await?.is_none_or(|found| found != content)
            {
                return Err(BucketError::conflict(key).into());
            }
            Ok(())
        })
        .await?;
        self.status.shipped_bytes(size);
        Ok(())
    }

    fn place(path: &Path) -> Option<Place> {
        let name = PartName::of_file(path.file_name()?.to_str()?, "cast")?;
        Some(Place { directory: path.parent()?.to_owned(), name })
    }
}

#[cfg(test)]
mod tests;
