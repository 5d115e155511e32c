//! Parts in a bucket: listed newest day first, within bounds, and read a segment at a time.
//!
//! Objects never change, so that what was read once is kept. Days other than the newest are listed again only now and
//! then. Nothing is asked for but listings and objects, so that credentials that may only read are enough.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

use super::scan::{Bounds, Found, Source};
use crate::{
    bucket::{Bucket, BucketError, Object},
    ship::{
        layout::{BEGIN, MANIFEST, SESSIONS, Segment, part_of},
        manifest::{MAX_MANIFEST, Manifest},
        segment::{self, MAX_STORED},
    },
    store::meta::{MAX_META, Meta},
};

/// How long a look is believed; at days but the newest, how long their listing is.
const FRESH: Duration = Duration::from_secs(5);
const SETTLED: Duration = Duration::from_secs(600);
/// How long a look may take, while whoever asked waits; and how long nobody waits again for a bucket that failed.
const PATIENCE: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_secs(30);
/// Newest days that are listed each time: a session goes on behind midnight.
const NEWEST: usize = 2;
/// Cap on the objects of a day that are listed.
const OBJECTS: usize = 500_000;
/// Objects that are read in one look, and at a time. What is behind them is read in the next.
const READ: usize = 2000;
const AT_ONCE: usize = 16;

/// What is known of a bucket.
#[derive(Debug)]
pub(super) struct Shelf {
    bucket: Bucket,
    handle: Handle,
    days: HashMap<String, Day>,
    /// When it is looked at again.
    next: Option<Instant>,
    failing: bool,
    truncated: bool,
}

#[derive(Clone, Debug, Default)]
struct Day {
    looked: Option<Instant>,
    parts: HashMap<String, Arc<Found>>,
    /// Whether some of it is still to be read.
    partly: bool,
}

/// The objects of one part.
#[derive(Debug, Default)]
struct Objects {
    segments: Vec<Segment>,
    begin: bool,
    manifest: bool,
}

/// A part in a bucket, to be read from anywhere.
#[derive(Clone, Debug)]
pub(super) struct Shelved {
    bucket: Bucket,
    handle: Handle,
    directory: String,
    segments: Arc<[Segment]>,
    closed: bool,
}

impl Shelf {
    pub(super) fn new(bucket: Bucket, handle: Handle) -> Self {
        Self { bucket, handle, days: HashMap::new(), next: None, failing: false, truncated: false }
    }

    /// Every part within the bounds, and whether some were left out. Blocks.
    pub(super) fn look(&mut self, bounds: Bounds) -> (Vec<Arc<Found>>, bool) {
        if self.next.is_none_or(|next| next <= Instant::now()) {
            let handle = self.handle.clone();
            let looked = handle.block_on(async { timeout(PATIENCE, self.refresh(bounds)).await });
            let mut pause = FRESH;
            match looked {
                Ok(Ok(())) => self.failing = false,
                // What was seen so far stays; the next look goes on from there.
                Err(_) => self.truncated = true,
                Ok(Err(error)) => {
                    if !self.failing {
                        tracing::warn!(%error, "the bucket cannot be looked at; what was seen of it before is shown");
                    }
                    (self.failing, self.truncated, pause) = (true, true, PAUSE);
                }
            }
            self.next = Some(Instant::now() + pause);
        }
        let parts = self.days.values().flat_map(|day| day.parts.values().map(Arc::clone));
        (parts.take(bounds.parts).collect(), self.truncated)
    }

    async fn refresh(&mut self, bounds: Bounds) -> Result<(), BucketError> {
        let (mut seen, mut left, mut budget) = (HashSet::new(), bounds.parts, READ);
        let (mut truncated, mut newest) = (false, 0);
        'days: for year in self.numbered(SESSIONS).await? {
            for month in self.numbered(&year).await? {
                for day in self.numbered(&month).await? {
                    if left == 0 {
                        truncated = true;
                        break 'days;
                    }
                    newest += 1;
                    let before = self.days.get(&day).cloned().unwrap_or_default();
                    let settled = newest > NEWEST
                        && !before.partly
                        && before.looked.is_some_and(|looked| looked.elapsed() < SETTLED);
                    let now =
                        if settled { before } else { self.day(&day, before, left, &mut budget).await? };
                    truncated |= now.partly;
                    left = left.saturating_sub(now.parts.len());
                    self.days.insert(day.clone(), now);
                    seen.insert(day);
                }
            }
        }
        self.days.retain(|day, _| seen.contains(day));
        self.truncated = truncated;
        Ok(())
    }

    /// Directories whose names are numbers, greatest first.
    async fn numbered(&self, below: &str) -> Result<Vec<String>, BucketError> {
        let mut names = self.bucket.directories(below).await?;
        names.retain(|name| name.parse::<u32>().is_ok());
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names.into_iter().map(|name| format!("{below}/{name}")).collect())
    }

    async fn day(
        &self,
        day: &str,
        mut before: Day,
        most: usize,
        budget: &mut usize,
    ) -> Result<Day, BucketError> {
        let objects = self.bucket.list(day, None, OBJECTS).await?;
        let mut now =
            Day { looked: Some(Instant::now()), partly: objects.len() >= OBJECTS, ..Day::default() };
        let mut wanted = Vec::new();
        for (directory, found) in group(objects).into_iter().rev().take(most) {
            match before.parts.remove(&directory) {
                // Only what is not closed goes on, or is closed now.
                Some(known) if is_same(&known, &found) => {
                    now.parts.insert(directory, known);
                }
                _ if *budget == 0 => now.partly = true,
                _ => {
                    *budget -= 1;
                    wanted.push((directory, found));
                }
            }
        }
        let mut read =
            stream::iter(wanted.into_iter().map(|(directory, objects)| self.part(directory, objects)))
                .buffer_unordered(AT_ONCE);
        while let Some(part) = read.next().await {
            let (directory, part) = part?;
            now.parts.extend(part.map(|part| (directory, Arc::new(part))));
        }
        Ok(now)
    }

    /// Reads what is known of a part. None where it is none of ours.
    async fn part(
        &self,
        directory: String,
        objects: Objects,
    ) -> Result<(String, Option<Found>), BucketError> {
        let name = directory.rsplit_once('/').and_then(|(_, name)| part_of(name));
        let Some(name) = name else { return Ok((directory, None)) };
        let meta = if objects.manifest {
            let text = self.bucket.get(&format!("{directory}/{MANIFEST}"), MAX_MANIFEST).await?;
            read::<Manifest>(text.as_deref()).map(|manifest| manifest.meta)
        } else if objects.begin {
            let text = self.bucket.get(&format!("{directory}/{BEGIN}"), MAX_META as u64).await?;
            read::<Meta>(text.as_deref())
        } else {
            Err("the bucket does not say whose it is".to_owned())
        };
        let shelved = Shelved {
            bucket: self.bucket.clone(),
            handle: self.handle.clone(),
            directory: directory.clone(),
            segments: line_up(objects.segments),
            closed: objects.manifest,
        };
        Ok((directory, Some(Found { source: Source::Bucket(shelved), name, meta })))
    }
}

impl Shelved {
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

fn read<T: serde::de::DeserializeOwned>(text: Option<&[u8]>) -> Result<T, String> {
    serde_json::from_slice(text.unwrap_or_default()).map_err(|error| error.to_string())
}

/// Objects by the directory that they lie in.
fn group(objects: Vec<Object>) -> BTreeMap<String, Objects> {
    let mut groups = BTreeMap::<String, Objects>::new();
    for object in objects {
        let Some((directory, name)) = object.key.rsplit_once('/') else { continue };
        if !groups.contains_key(directory) {
            groups.insert(directory.to_owned(), Objects::default());
        }
        let Some(group) = groups.get_mut(directory) else { continue };
        match name {
            BEGIN => group.begin = true,
            MANIFEST => group.manifest = true,
            _ => group.segments.extend(name.parse::<Segment>()),
        }
    }
    groups
}

/// Segments of which each goes on where the one before ends. Where there are two, as after a crash, the longer one is
/// taken: both hold the same.
fn line_up(mut segments: Vec<Segment>) -> Arc<[Segment]> {
    segments.sort_unstable_by_key(|segment| (segment.offset, std::cmp::Reverse(segment.length)));
    let mut reached = 0_u64;
    segments.retain(|segment| {
        let next = segment.offset == reached;
        if next {
            reached = reached.saturating_add(segment.length.into());
        }
        next
    });
    segments.into()
}

fn is_same(known: &Found, objects: &Objects) -> bool {
    match &known.source {
        Source::Bucket(shelved) => {
            known.meta.is_ok()
                && (shelved.closed || (!objects.manifest && shelved.segments.len() >= objects.segments.len()))
        }
        Source::File(_) => false,
    }
}

#[cfg(test)]
mod tests;
