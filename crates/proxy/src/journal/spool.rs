//! The part of a journal that lies on disk: the oldest lines of sessions that no recorder takes fast enough, and all
//! lines of those that no recorder takes.
//!
//! Files hold up to 8 MiB each, so that space comes back while a session goes on. They lie in a folder of the session,
//! in which the next process finds them.

mod folder;
mod left;
mod seal;
mod spooler;

pub(crate) use folder::Waybill;
pub(crate) use left::left_behind;
pub use seal::{SealError, Seals};
pub(crate) use spooler::Spooler;

use std::{collections::VecDeque, io, sync::Arc};

use bytes::{Bytes, BytesMut};
use podwitness_wire::spool::{Mac, Region, Regions};
use tokio::time::Duration;

use super::{Budgets, Journal, budget::BudgetShare};
use folder::Lines;

/// Bytes of one file, about.
const SEGMENT: u64 = 8 << 20;
/// Bytes written or read at once; no line is longer.
const STEP: usize = 256 << 10;
/// How long lines without a recorder lie in memory alone: most find one sooner.
pub(super) const ALONE: Duration = Duration::from_secs(1);

/// Files with consecutive parts of a journal.
#[derive(Debug)]
pub(super) struct Spool {
    /// Whether there is a disk that takes lines.
    usable: bool,
    /// Whether the budget of the disk had no room when it was asked last.
    full: bool,
    /// Whether a session has waited for the disk in vain since that took lines last.
    stalled: bool,
    segments: VecDeque<Segment>,
    /// Files of which nothing is needed any more, which the spooler removes; they count until then.
    released: Vec<Segment>,
    /// Whether lines are being written behind the last segment, which stays until then.
    writing: bool,
    /// MAC of the last block.
    last: Mac,
    /// Bytes after which a file is full.
    segment: u64,
    /// Name of the recording, where an earlier process began it.
    pub(super) name: String,
    share: BudgetShare,
}

#[derive(Debug)]
struct Segment {
    lines: Arc<Lines>,
    len: u64,
    /// Where lines are checked together, where they are sealed.
    regions: Regions,
}

/// Where bytes lie on disk.
#[derive(Debug)]
pub(super) struct Place {
    lines: Arc<Lines>,
    offset: u64,
    len: usize,
    /// Whether lines end with the last byte; else the last line may be cut.
    whole: bool,
    /// What is checked together with them.
    region: Option<Region>,
}

/// What lies at a place.
#[derive(Debug)]
pub(super) enum Read {
    /// Whole lines.
    Lines(Bytes),
    /// What is not what was written, up to that place, in the recording of that name.
    Tampered(u64, String),
}

// === impl Spool

impl Spool {
    pub(super) const fn new(usable: bool, share: BudgetShare) -> Self {
        Self {
            usable,
            full: false,
            stalled: false,
            segments: VecDeque::new(),
            released: Vec::new(),
            writing: false,
            last: [0; 32],
            segment: SEGMENT,
            name: String::new(),
            share,
        }
    }

    /// One that holds what an earlier process wrote; it counts whatever the budget.
    fn holding(name: String, segments: Vec<Segment>, mut share: BudgetShare) -> Self {
        share.grow_anyway(segments.iter().map(|segment| segment.len).sum());
        Self { segments: segments.into(), name, ..Self::new(false, share) }
    }

    /// Whether there is a disk that takes lines.
    pub(super) const fn is_usable(&self) -> bool {
        self.usable
    }

    /// Whether lines that wait in memory will soon lie here, as far as is known.
    pub(super) const fn takes_lines(&self) -> bool {
        self.usable && !self.full && !self.stalled
    }

    /// The disk has taken no line for so long that sessions do not wait for it any more, until it takes one.
    pub(super) const fn give_up_waiting(&mut self) {
        self.stalled = true;
    }

    /// Takes no more lines.
    pub(super) const fn stop(&mut self) {
        self.usable = false;
    }

    /// Where the lines from `from` on lie, if they are here.
    pub(super) fn find(&self, from: u64) -> Option<Place> {
        let segment = self.segments.iter().find(|s| (s.lines.start..s.end()).contains(&from))?;
        let offset = from - segment.lines.start;
        let left = segment.len - offset;
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(STEP);
        let region = segment.regions.at(offset);
        Some(Place { lines: Arc::clone(&segment.lines), offset, len, whole: len as u64 == left, region })
    }

    /// Where the next lines behind `from` lie.
    pub(super) fn after(&self, from: u64) -> Option<u64> {
        self.segments.iter().map(|segment| segment.lines.start).find(|start| *start > from)
    }

    /// Gives files that lie wholly before `to` to the spooler, which removes them where no lock is held.
    pub(super) fn release(&mut self, to: u64) {
        while self.segments.front().is_some_and(|segment| segment.end() <= to) {
            if self.writing && self.segments.len() == 1 {
                return;
            }
            self.released.extend(self.segments.pop_front());
        }
    }

    /// Whether there are files for the spooler to remove.
    pub(super) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// The files to be removed.
    fn take_released(&mut self) -> Vec<Segment> {
        std::mem::take(&mut self.released)
    }

    /// All released files were removed with their folder.
    fn all_removed(&mut self) {
        let len = self.take_released().iter().map(|segment| segment.len).sum();
        self.removed(len);
    }

    /// So many bytes of files were removed.
    fn removed(&mut self, len: u64) {
        self.share.shrink(len);
        self.full = false;
    }

    fn written(&mut self, lines: Arc<Lines>, len: u64, mac: Mac) {
        self.last = mac;
        self.stalled = false;
        match self.segments.back_mut() {
            Some(last) if Arc::ptr_eq(&last.lines, &lines) => last.push(len),
            _ => {
                let mut segment = Segment::new(lines, 0);
                segment.push(len);
                self.segments.push_back(segment);
            }
        }
    }
}

impl Segment {
    fn new(lines: impl Into<Arc<Lines>>, len: u64) -> Self {
        Self { lines: lines.into(), len, regions: Regions::default() }
    }

    fn push(&mut self, len: u64) {
        self.len += len;
        if self.lines.sealed.is_some() {
            self.regions.push(len);
        }
    }

    fn end(&self) -> u64 {
        self.lines.start + self.len
    }
}

impl Place {
    /// Reads whole lines, and checks that they are what was written.
    pub(super) async fn read(self) -> io::Result<Read> {
        if let Some(region) = self.region {
            return self.read_sealed(region).await;
        }
        let whole = self.whole;
        let mut bytes = blocking(move || {
            let mut bytes = BytesMut::zeroed(self.len);
            self.lines.read(&mut bytes, self.offset)?;
            Ok(bytes)
        })
        .await?;
        if !whole {
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes.truncate(end);
        }
        if bytes.is_empty() {
            Err(io::ErrorKind::InvalidData.into())
        } else {
            Ok(Read::Lines(bytes.freeze()))
        }
    }

    async fn read_sealed(self, region: Region) -> io::Result<Read> {
        blocking(move || {
            let Some(lines) = self.lines.checked(&region)? else {
                return Ok(Read::Tampered(self.lines.start + region.end(), self.lines.session().to_owned()));
            };
            let from = usize::try_from(self.offset - region.offset).unwrap_or(usize::MAX).min(lines.len());
            Ok(Read::Lines(Bytes::from(lines).slice(from..)))
        })
        .await
    }
}

// === impl Journal

impl Journal {
    /// What an earlier process wrote from a place on, up to another, and ended with `close`.
    fn resumed(
        budgets: &Budgets,
        waybill: &Waybill,
        (start, end): (u64, u64),
        segments: Vec<Segment>,
        close: &[u8],
    ) -> Self {
        let journal = Self::new(podwitness_core::failure::Policy::Open, budgets);
        let mut state = journal.state();
        state.header = Some(Arc::new(waybill.header.clone()));
        state.events = waybill.events.is_some();
        state.spool = Spool::holding(waybill.session.clone(), segments, BudgetShare::of(&budgets.disk));
        state.window.begin_at(end);
        state.window.push(close, true);
        state.acked = start;
        state.phase = super::Phase::Ended;
        drop(state);
        journal
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
