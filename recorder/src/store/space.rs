//! Free space of the volume, and the floor below which nothing new is taken.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::StoreError;

/// Watches a volume.
#[derive(Debug)]
pub struct Space {
    path: PathBuf,
    floor: u64,
    free: AtomicU64,
}

impl Space {
    pub(super) fn new(path: &Path, floor: u64) -> Self {
        Self { path: path.to_owned(), floor, free: AtomicU64::new(u64::MAX) }
    }

    /// Looks whether more may be written. A volume that cannot be asked counts as free: writing will tell.
    ///
    /// # Errors
    /// Where less than the floor is free.
    pub fn check(&self) -> Result<(), StoreError> {
        if let Ok(stat) = rustix::fs::statvfs(&self.path) {
            self.free.store(stat.f_bavail.saturating_mul(stat.f_frsize), Ordering::Relaxed);
        }
        if self.free() < self.floor { Err(StoreError::Full { floor: self.floor }) } else { Ok(()) }
    }

    /// Bytes that were free at the last look; `u64::MAX` before it.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }
}
