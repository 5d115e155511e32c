//! What is left for recordings, and who may have it.
//!
//! Left is the least of what three things leave:
//!
//! * the file system, but for what the kubelet wants free on it before it evicts pods
//!   ([`SpaceLimits::eviction_percent`]);
//! * its inodes, by the same;
//! * the volume's size limit ([`SpaceLimits::size_limit`]), which nothing but the kubelet enforces: by what lies there.
//!
//! What is written counts at once. Whatever else happens to the volume is seen by the next look (a second) or the next
//! measurement of all files, which takes its time. Below a margin everything is refused, long before the kubelet would
//! evict the pod with all that it has; above it each owner has its share ([`super::shares`]).

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use podwitness_core::control::Taking;
use tokio::time::Instant;

use super::{
    StoreError,
    shares::{ShareKey, Shares},
    usage::Usage,
};

/// How long a look at the file system is good for.
const EVERY: Duration = Duration::from_secs(1);
/// How long a measurement is good for, and how many times as long as it took it is at least.
const MEASURE: Duration = Duration::from_secs(60);
const REST: u32 = 20;
/// The margin is no more than this part of a size limit.
const MARGIN_PART: u64 = 8;
/// A state ends when there is this part of the margin more than where it begins.
const HYSTERESIS_PART: u64 = 8;
/// A part takes this much beside its lines: the blocks of its files, and of their directory.
pub(super) const PART: u64 = 16 << 10;

/// What bounds a store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SpaceLimits {
    /// Bytes that stay free: the margin below which nothing more is taken.
    pub floor: u64,
    /// Bytes that everything on the volume may take: an emptyDir's `sizeLimit`, above which the kubelet evicts the pod.
    pub size_limit: Option<u64>,
    /// Percentage of the file system that recordings leave free: below it the kubelet evicts pods (`nodefs.available`). Of
    /// inodes it is half of that, as by the kubelet's defaults.
    pub eviction_percent: u8,
    /// Whether owners are held to shares.
    pub shares: bool,
}

/// Watches a volume, and counts whose it is.
#[derive(Debug)]
pub struct Space {
    path: PathBuf,
    limits: SpaceLimits,
    state: Mutex<State>,
}

/// How a volume stands, in numbers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SpaceReport {
    /// Bytes that the file system has free; `u64::MAX` where it cannot be asked.
    pub free: u64,
    /// Bytes that may still be written until everything is refused.
    pub left: u64,
    /// Bytes that everything on the volume takes.
    pub stored: u64,
    /// Namespaces and pods that are refused, because they have more than their share.
    pub above_share: usize,
}

#[derive(Debug)]
struct State {
    looked: Option<Instant>,
    found: FileSystem,
    /// Bytes written since the look.
    since_look: u64,
    measured: Option<Measured>,
    measuring: bool,
    /// Bytes by the last measurement, and those written since it began and since the one that is under way began.
    stored: u64,
    since: u64,
    during: u64,
    shares: Shares,
    refusing: bool,
    short: bool,
}

/// The last measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    at: Instant,
    took: Duration,
}

/// A file system by `statvfs`; all zeros where it cannot be asked, which counts as free: writing will tell.
#[derive(Clone, Copy, Debug, Default)]
struct FileSystem {
    total: u64,
    free: u64,
    inodes: u64,
    inodes_free: u64,
}

/// Bytes that one thing leaves, and how many of them are margin.
#[derive(Clone, Copy, Debug)]
struct Bound {
    left: u64,
    margin: u64,
}

impl SpaceLimits {
    /// A floor, and no other limit.
    #[must_use]
    pub const fn floor(floor: u64) -> Self {
        Self { floor, size_limit: None, eviction_percent: 0, shares: true }
    }
}

impl Space {
    pub(super) fn new(path: &Path, limits: SpaceLimits) -> Self {
        let state = State {
            looked: None,
            found: FileSystem::default(),
            since_look: 0,
            measured: None,
            measuring: false,
            stored: 0,
            since: 0,
            during: 0,
            shares: Shares::default(),
            refusing: false,
            short: false,
        };
        Self { path: path.to_owned(), limits, state: Mutex::new(state) }
    }

    /// Tells whether anything more may be written, by a look that is at most a second old.
    ///
    /// # Errors
    /// Where the volume is nearly full.
    pub fn check(&self) -> Result<(), StoreError> {
        self.looked_at().check(&self.limits, 0)
    }

    /// Tells whether an owner may begin something.
    ///
    /// # Errors
    /// Where the volume is nearly full, or the owner has more than its share.
    pub fn admits(&self, owner: &ShareKey) -> Result<(), StoreError> {
        self.looked_at().admit(&self.limits, owner, PART)
    }

    /// Counts a part that an owner begins.
    ///
    /// # Errors
    /// As [`Self::admits`].
    pub(super) fn begin(&self, owner: &ShareKey) -> Result<(), StoreError> {
        self.charge(owner, PART)
    }

    /// Counts bytes that an owner is about to write.
    ///
    /// # Errors
    /// As [`Self::admits`]; nothing is counted then.
    pub fn charge(&self, owner: &ShareKey, bytes: u64) -> Result<(), StoreError> {
        let mut state = self.looked_at();
        state.admit(&self.limits, owner, bytes)?;
        state.count(bytes);
        state.shares.add(owner, bytes);
        Ok(())
    }

    /// They were not written.
    pub fn refund(&self, owner: &ShareKey, bytes: u64) {
        let mut state = self.lock();
        state.uncount(bytes);
        state.shares.take_back(owner, bytes);
    }

    /// Of bytes that were charged so many were written, into a file of events.
    pub fn settle_events(&self, owner: &ShareKey, charged: u64, written: u64) {
        let mut state = self.lock();
        state.uncount(charged.saturating_sub(written));
        state.shares.take_back(owner, charged);
        state.shares.add_events(owner, written);
    }

    /// How the volume stands, by a look that is at most a second old.
    #[must_use]
    pub fn state(&self) -> Taking {
        let mut state = self.looked_at();
        let room = state.room(&self.limits);
        match (state.refusing, state.shares.above(room), state.short) {
            (true, _, _) => Taking::Refusing,
            (false, 1.., _) => Taking::Limiting,
            (false, 0, true) => Taking::Degraded,
            (false, 0, false) => Taking::Accepting,
        }
    }

    /// The same in numbers.
    #[must_use]
    pub fn report(&self) -> SpaceReport {
        let mut state = self.looked_at();
        let left = state.room(&self.limits);
        let free = if state.found.total == 0 { u64::MAX } else { state.found.free };
        SpaceReport { free, left, stored: state.stored(), above_share: state.shares.above(left) }
    }

    /// Measures everything that lies there, if that is due. Blocks.
    pub fn measure_when_due(&self) {
        {
            let mut state = self.lock();
            let rest = |last: Measured| last.took.saturating_mul(REST).max(MEASURE);
            if state.measuring || state.measured.is_some_and(|last| last.at.elapsed() < rest(last)) {
                return;
            }
            state.measuring = true;
            state.during = 0;
            state.shares.measuring();
        }
        let begun = Instant::now();
        let usage = Usage::of(&self.path);
        let mut state = self.lock();
        state.measuring = false;
        state.measured = Some(Measured { at: Instant::now(), took: begun.elapsed() });
        match usage {
            Ok(usage) => {
                (state.stored, state.since) = (usage.total, state.during);
                state.shares.measured(&usage);
            }
            Err(error) => tracing::warn!(%error, "what lies on the volume cannot be counted"),
        }
    }

    /// Something was removed: what lies there is measured anew, as soon as the last measurement has rested.
    pub fn freed(&self) {
        if let Some(last) = &mut self.lock().measured
            && let Some(earlier) = last.at.checked_sub(MEASURE)
            && last.took.saturating_mul(REST) < MEASURE
        {
            last.at = earlier;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters are whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held for the look, so that no writer goes on without one.
    fn looked_at(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if state.looked.is_none_or(|at| at.elapsed() >= EVERY) {
            state.looked = Some(Instant::now());
            if let Ok(stat) = rustix::fs::statvfs(&self.path) {
                state.found = FileSystem {
                    total: stat.f_blocks.saturating_mul(stat.f_frsize),
                    free: stat.f_bavail.saturating_mul(stat.f_frsize),
                    inodes: stat.f_files,
                    inodes_free: stat.f_favail,
                };
                state.since_look = 0;
            }
        }
        state.turn(&self.limits);
        state
    }

    /// Goes on as if the last look, taken now, had found so many bytes free.
    #[cfg(test)]
    pub(crate) fn found(&self, free: u64) {
        let mut state = self.lock();
        state.looked = Some(Instant::now());
        state.found = FileSystem { total: 1 << 40, free, inodes: 0, inodes_free: 0 };
        state.since_look = 0;
    }

    /// Bytes that were free at the last look; `u64::MAX` where there was none.
    #[must_use]
    pub fn free(&self) -> u64 {
        let found = self.lock().found;
        if found.total == 0 { u64::MAX } else { found.free }
    }
}

impl State {
    const fn stored(&self) -> u64 {
        self.stored.saturating_add(self.since)
    }

    const fn count(&mut self, bytes: u64) {
        self.since_look = self.since_look.saturating_add(bytes);
        self.since = self.since.saturating_add(bytes);
        self.during = self.during.saturating_add(bytes);
    }

    const fn uncount(&mut self, bytes: u64) {
        self.since_look = self.since_look.saturating_sub(bytes);
        self.since = self.since.saturating_sub(bytes);
        self.during = self.during.saturating_sub(bytes);
    }

    /// What each thing leaves.
    fn bounds(&self, limits: &SpaceLimits) -> [Bound; 3] {
        let free = Bound { left: u64::MAX, margin: limits.floor };
        let FileSystem { total, inodes, inodes_free, .. } = self.found;
        let percent = u64::from(limits.eviction_percent);
        let file_system = match total {
            0 => free,
            _ => Bound {
                left: self.found.free.saturating_sub(self.since_look).saturating_sub(part(total, percent)),
                margin: limits.floor,
            },
        };
        // A part is three inodes. Half of a percentage, rounded up.
        let reserved = part(inodes, percent.div_ceil(2));
        let inodes = match (inodes, percent) {
            (0, _) | (_, 0) => free,
            _ if inodes_free <= reserved.saturating_add(inodes / 100) => Bound { left: 0, margin: 1 },
            _ => free,
        };
        let volume = limits.size_limit.map_or(free, |limit| Bound {
            left: limit.saturating_sub(self.stored()),
            margin: limits.floor.min(limit / MARGIN_PART),
        });
        [file_system, inodes, volume]
    }

    /// What may be written until everything is refused.
    fn room(&self, limits: &SpaceLimits) -> u64 {
        let rooms = self.bounds(limits).map(|bound| bound.left.saturating_sub(bound.margin));
        rooms.into_iter().min().unwrap_or_default()
    }

    /// Into the state that follows from what is left.
    fn turn(&mut self, limits: &SpaceLimits) {
        let bounds = self.bounds(limits);
        let below = |times: u64, within: bool| {
            bounds.iter().any(|Bound { left, margin }| {
                let more = if within { margin / HYSTERESIS_PART } else { 0 };
                *left < margin.saturating_mul(times).saturating_add(more)
            })
        };
        (self.refusing, self.short) = (below(1, self.refusing), below(2, self.short));
    }

    fn check(&self, limits: &SpaceLimits, more: u64) -> Result<(), StoreError> {
        let [file_system, inodes, volume] = self.bounds(limits);
        let room = |bound: &Bound| bound.left.saturating_sub(bound.margin);
        let tight = if room(&volume) < room(&file_system) { volume } else { file_system };
        match (inodes.left, self.refusing || more > tight.left) {
            (0, true) => Err(StoreError::Inodes),
            (_, true) => Err(StoreError::Full { floor: tight.margin }),
            (_, false) => Ok(()),
        }
    }

    fn admit(&mut self, limits: &SpaceLimits, owner: &ShareKey, more: u64) -> Result<(), StoreError> {
        self.check(limits, more)?;
        if !limits.shares {
            return Ok(());
        }
        let room = self.room(limits);
        self.shares.check(owner, more, room).map_err(|exceeded| {
            let (owner, used) = (exceeded.owner, exceeded.used);
            if exceeded.is_news {
                tracing::warn!(
                    owner,
                    used,
                    free = room,
                    "an owner has more than its share of the volume of recordings, and is refused; others are not"
                );
            }
            StoreError::Share { owner, used }
        })
    }
}

/// So many hundredths, rounded up.
fn part(of: u64, percent: u64) -> u64 {
    let scaled = u128::from(of).saturating_mul(u128::from(percent)).div_ceil(100);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
