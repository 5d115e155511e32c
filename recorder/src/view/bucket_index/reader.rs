//! Reads a bucket's listings and what is not known yet of its parts, newest day first, within bounds.
//!
//! Objects never change, so that what was read once is kept. Days other than the newest are listed again only now and
//! then. Nothing is asked for but listings and objects, so that credentials that may only read are enough.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{runtime::Handle, time::Instant};

use super::{
    super::scan::{Bounds, Found, Source},
    BucketPart,
};
use crate::{
    bucket::{Bucket, BucketError, Object},
    ship::{
        layout::{BEGIN, MANIFEST, SESSIONS, Segment, part_of},
        manifest::{MAX_MANIFEST, Manifest},
    },
    store::meta::{MAX_META, Meta},
};

/// How long the listing of days but the newest is believed.
const SETTLED: Duration = Duration::from_secs(600);
/// Newest days that are listed each time: a session goes on behind midnight.
const NEWEST: usize = 2;
/// Cap on the objects of a day that are listed.
const OBJECTS: usize = 500_000;
/// Objects that are read in one pass, and at a time. What is behind them is read in the next.
const READ: usize = 2000;
const AT_ONCE: usize = 16;
/// Days around that of its id in which all parts of a session lie: it goes on behind midnight, or was uploaded late.
const NEAR: u64 = 2;

/// What was read of a bucket.
#[derive(Debug)]
pub(super) struct Reader {
    bucket: Bucket,
    handle: Handle,
    bounds: Bounds,
    days: HashMap<String, Day>,
}

/// How far a pass came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pass {
    /// Whether days, or objects of a day, are beyond the bounds.
    pub(super) truncated: bool,
    /// Whether the next pass has more to read at once.
    pub(super) partly: bool,
}

#[derive(Clone, Debug, Default)]
struct Day {
    looked: Option<Instant>,
    parts: HashMap<String, Arc<Found>>,
    /// Whether some of it is still to be read.
    partly: bool,
    /// Whether it has more objects than are listed.
    truncated: bool,
}

/// The objects of one part.
#[derive(Debug, Default)]
struct Objects {
    segments: Vec<Segment>,
    begin: bool,
    manifest: bool,
}

impl Reader {
    pub(super) fn new(bucket: Bucket, handle: Handle, bounds: Bounds) -> Self {
        Self { bucket, handle, bounds, days: HashMap::new() }
    }

    /// Every part that was read so far, within the bounds.
    pub(super) fn parts(&self) -> Vec<Arc<Found>> {
        let parts = self.days.values().flat_map(|day| day.parts.values().map(Arc::clone));
        parts.take(self.bounds.parts).collect()
    }

    /// Reads what is new. What was read stays where it fails or is dropped; the next pass goes on from there.
    pub(super) async fn refresh(&mut self) -> Result<Pass, BucketError> {
        let (mut seen, mut left, mut budget) = (HashSet::new(), self.bounds.parts, READ);
        let (mut pass, mut newest) = (Pass::default(), 0);
        'days: for year in self.numbered(SESSIONS).await? {
            for month in self.numbered(&year).await? {
                for day in self.numbered(&month).await? {
                    if left == 0 {
                        pass.truncated = true;
                        break 'days;
                    }
                    newest += 1;
                    let before = self.days.get(&day).cloned().unwrap_or_default();
                    let settled = newest > NEWEST
                        && !before.partly
                        && before.looked.is_some_and(|looked| looked.elapsed() < SETTLED);
                    let now =
                        if settled { before } else { self.day(&day, before, left, &mut budget).await? };
                    pass.truncated |= now.truncated;
                    pass.partly |= now.partly;
                    left = left.saturating_sub(now.parts.len());
                    self.days.insert(day.clone(), now);
                    seen.insert(day);
                }
            }
        }
        self.days.retain(|day, _| seen.contains(day));
        Ok(pass)
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
        let truncated = objects.len() >= OBJECTS;
        let mut now = Day { looked: Some(Instant::now()), truncated, ..Day::default() };
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
        let stored = BucketPart {
            bucket: self.bucket.clone(),
            handle: self.handle.clone(),
            directory: directory.clone(),
            segments: line_up(objects.segments),
            closed: objects.manifest,
        };
        Ok((directory, Some(Found { source: Source::Bucket(stored), name, meta })))
    }

    /// Every part of a session, wherever it lies where `any_day` is true. Days near that of the session's id, if that is
    /// a ULID, are looked into first.
    pub(super) async fn find(&self, session: &str, any_day: bool) -> Result<Vec<Arc<Found>>, BucketError> {
        let begun = ulid::Ulid::from_string(session).ok().map(|id| id.timestamp_ms() / 86_400_000);
        let mut days = Vec::new();
        for year in self.numbered(SESSIONS).await? {
            for month in self.numbered(&year).await? {
                days.extend(self.numbered(&month).await?);
            }
        }
        let distance = |day: &String| begun.map_or(0, |begun| day_number(day).abs_diff(begun));
        days.sort_by_key(distance);
        let mut found = Vec::new();
        for day in days {
            let is_near = begun.is_some() && distance(&day) <= NEAR;
            if !is_near && (!any_day || (begun.is_some() && !found.is_empty())) {
                break;
            }
            for (directory, objects) in group(self.bucket.list(&day, None, OBJECTS).await?) {
                let name = directory.rsplit_once('/').and_then(|(_, name)| part_of(name));
                if name.is_some_and(|name| name.session() == session) {
                    found.extend(self.part(directory, objects).await?.1.map(Arc::new));
                }
            }
        }
        Ok(found)
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
        Source::Bucket(part) => {
            known.meta.is_ok()
                && (part.closed || (!objects.manifest && part.segments.len() >= objects.segments.len()))
        }
        Source::File(_) => false,
    }
}

/// Days since 1970 of `…/YYYY/MM/DD`.
pub(super) fn day_number(path: &str) -> u64 {
    let mut numbers = path.rsplit('/').map(|name| name.parse::<u64>().unwrap_or_default());
    let (day, month, year) = (numbers.next(), numbers.next(), numbers.next());
    let (day, month, year) = (day.unwrap_or(1), month.unwrap_or(1), year.unwrap_or(1970));
    // Of Howard Hinnant's days_from_civil, for years from 1 on.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
    let in_year = (153_u64.saturating_mul(month) + 2) / 5 + day.saturating_sub(1);
    let before = year.saturating_mul(365) + year / 4 - year / 100 + year / 400;
    before.saturating_add(in_year).saturating_sub(719_468)
}
