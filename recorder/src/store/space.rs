//! Free space of the volume, and the floor below which nothing new is taken.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use podwitness_core::control::Taking;
use tokio::time::Instant;

use super::StoreError;

/// How long a look at the volume is good for. The floor is far above what comes in that time, and a volume that is
/// full all the same says so when it is written to.
const EVERY: Duration = Duration::from_secs(1);

/// Watches a volume.
#[derive(Debug)]
pub struct Space {
    path: PathBuf,
    floor: u64,
    free: AtomicU64,
    looked: Mutex<Option<Instant>>,
}

impl Space {
    pub(super) fn new(path: &Path, floor: u64) -> Self {
        Self { path: path.to_owned(), floor, free: AtomicU64::new(u64::MAX), looked: Mutex::default() }
    }

    /// Tells whether more may be written, by a look that is at most a second old. A volume that cannot be asked counts
    /// as free: writing will tell.
    ///
    /// # Errors
    /// Where less than the floor is free.
    pub fn check(&self) -> Result<(), StoreError> {
        self.look();
        if self.free() < self.floor { Err(StoreError::Full { floor: self.floor }) } else { Ok(()) }
    }

    /// How the volume stands, by a look that is at most a second old: degraded below twice the floor.
    #[must_use]
    pub fn state(&self) -> Taking {
        match (self.check(), self.free()) {
            (Err(_), _) => Taking::Refusing,
            (Ok(()), free) if free < self.floor.saturating_mul(2) => Taking::Degraded,
            _ => Taking::Accepting,
        }
    }

    fn look(&self) {
        // Held for the look, so that nobody goes on without one.
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        *looked = Some(Instant::now());
        if let Ok(stat) = rustix::fs::statvfs(&self.path) {
            self.free.store(stat.f_bavail.saturating_mul(stat.f_frsize), Ordering::Relaxed);
        }
    }

    /// Goes on as if the last look, taken now, had found so many bytes free.
    #[cfg(test)]
    pub(crate) fn found(&self, free: u64) {
        *self.looked.lock().unwrap() = Some(Instant::now());
        self.free.store(free, Ordering::Relaxed);
    }

    /// Bytes that were free at the last look; `u64::MAX` before it.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }
}
