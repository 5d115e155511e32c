//! What lies in a bucket, as of a short while ago: it is read in the background, so that a listing never waits for it.

use std::{io, sync::Arc, time::Duration};

use axum::body::Bytes;
use podwitness_runtime::clock::Clock;
use serde::Serialize;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::scan::{Bounds, Found};
use crate::{
    bucket::Bucket,
    ship::{
        layout::Segment,
        segment::{self, MAX_STORED},
    },
};

mod reader;

use reader::{Pass, Reader};

/// Time between two passes while listings are asked for, while none is, and after one that failed.
const ACTIVE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(30);
const FAILED: Duration = Duration::from_secs(30);
/// How long a pass may take. The next goes on from there.
const PASS: Duration = Duration::from_secs(300);
/// Age from which a snapshot is called stale: two passes were due.
const STALE: Duration = Duration::from_secs(120);
/// How long a session that is in no listing is looked for.
const FIND: Duration = Duration::from_secs(60);

/// The index of a bucket.
#[derive(Debug)]
pub(super) struct BucketIndex {
    bucket: Bucket,
    handle: Handle,
    latest: watch::Receiver<Arc<BucketSnapshot>>,
    asked: Arc<Notify>,
}

/// What the last passes read.
#[derive(Debug, Default)]
pub(super) struct BucketSnapshot {
    /// Every part within the bounds.
    pub(super) parts: Vec<Arc<Found>>,
    /// Whether days are beyond the bounds.
    pub(super) truncated: bool,
    /// When all of it was read last, Unix seconds.
    read: Option<(Instant, i64)>,
    /// Why the last pass came to no end.
    error: Option<String>,
}

/// How far a listing has what is in the bucket.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BucketStatus {
    /// When the bucket was read last to its end, Unix seconds; absent where it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) as_of: Option<i64>,
    /// Whether sessions may be missing here that have been in the bucket for minutes.
    pub(super) stale: bool,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl BucketIndex {
    /// Begins to read the bucket, within a runtime.
    pub(super) fn start(bucket: Bucket, bounds: Bounds, clock: Arc<dyn Clock>) -> Self {
        let (sender, latest) = watch::channel(Arc::default());
        let asked = Arc::new(Notify::new());
        let handle = Handle::current();
        let reader = Reader::new(bucket.clone(), handle.clone(), bounds);
        drop(handle.spawn(keep_reading(reader, sender, Arc::clone(&asked), clock)));
        Self { bucket, handle, latest, asked }
    }

    /// What is known now. Does not wait.
    pub(super) fn snapshot(&self) -> Arc<BucketSnapshot> {
        self.asked.notify_one();
        Arc::clone(&self.latest.borrow())
    }

    /// Every part of a session, be it in the snapshot or not: in any day, or in those near that of its id. Blocks.
    pub(super) fn find(&self, session: &str, any_day: bool, bounds: Bounds) -> io::Result<Vec<Arc<Found>>> {
        let reader = Reader::new(self.bucket.clone(), self.handle.clone(), bounds);
        let found = self.handle.block_on(async { timeout(FIND, reader.find(session, any_day)).await });
        found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)
    }
}

impl BucketSnapshot {
    /// What is to be said of it.
    pub(super) fn status(&self) -> BucketStatus {
        let current = self.read.is_some_and(|(read, _)| read.elapsed() <= STALE);
        let unread = || "the bucket is being read for the first time".to_owned();
        let error = self.error.clone().or_else(|| self.read.is_none().then(unread));
        BucketStatus {
            as_of: self.read.map(|(_, unix)| unix),
            stale: !current || self.error.is_some(),
            error,
        }
    }
}

/// Reads until no index is left.
async fn keep_reading(
    mut reader: Reader,
    sender: watch::Sender<Arc<BucketSnapshot>>,
    asked: Arc<Notify>,
    clock: Arc<dyn Clock>,
) {
    loop {
        let pass = tokio::select! {
            () = sender.closed() => return,
            pass = timeout(PASS, reader.refresh()) => pass,
        };
        let before = Arc::clone(&sender.borrow());
        let (pass, error) = match pass {
            Ok(Ok(pass)) => (Some(pass), None),
            Ok(Err(error)) => (None, Some(error.to_string())),
            Err(_) => (None, Some(format!("the bucket has not been read within {} s", PASS.as_secs()))),
        };
        if let (Some(error), None) = (&error, &before.error) {
            tracing::warn!(%error, "the bucket cannot be read; what was seen of it before is shown");
        }
        let read = match pass {
            Some(Pass { partly: false, .. }) => {
                Some((Instant::now(), clock.now_unix_millis().div_euclid(1000)))
            }
            _ => before.read,
        };
        let truncated = pass.map_or(before.truncated, |pass| pass.truncated);
        let pause = match (&error, pass) {
            (Some(_), _) => FAILED,
            (None, Some(Pass { partly: true, .. })) => Duration::ZERO,
            _ => ACTIVE,
        };
        let _ = sender.send(Arc::new(BucketSnapshot { parts: reader.parts(), truncated, read, error }));
        tokio::select! {
            () = sender.closed() => return,
            () = next_pass(pause, &asked) => {}
        }
    }
}

/// The pause, and then until a listing is asked for, or it is time again in any case.
async fn next_pass(pause: Duration, asked: &Notify) {
    sleep(pause).await;
    if pause == ACTIVE {
        let _ = timeout(IDLE, asked.notified()).await;
    }
}

/// A part in a bucket, to be read from anywhere.
#[derive(Clone, Debug)]
pub(super) struct BucketPart {
    bucket: Bucket,
    handle: Handle,
    directory: String,
    segments: Arc<[Segment]>,
    closed: bool,
}

impl BucketPart {
    /// Its directory.
    pub(super) fn directory(&self) -> &str {
        &self.directory
    }

    /// Bytes of the recording that are there.
    pub(super) fn length(&self) -> u64 {
        self.segments.last().map_or(0, |last| last.offset.saturating_add(last.length.into()))
    }

    /// The segment that holds a byte, and where it begins. Blocks.
    pub(super) fn segment(&self, at: u64) -> io::Result<(u64, Bytes)> {
        let number = self.segments.partition_point(|segment| segment.offset <= at).saturating_sub(1);
        let segment = self.segments.get(number).ok_or(io::ErrorKind::UnexpectedEof)?;
        let key = format!("{}/{segment}", self.directory);
        let stored = self.handle.block_on(self.bucket.get(&key, MAX_STORED)).map_err(io::Error::other)?;
        let lines = segment::read(stored.ok_or(io::ErrorKind::NotFound)?)?;
        if lines.len() as u64 == u64::from(segment.length) {
            Ok((segment.offset, lines))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a segment is not as long as its name says"))
        }
    }
}

#[cfg(test)]
mod tests;
