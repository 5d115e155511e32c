//! Which parts somebody in this process is at: those that it writes, and those that are shipped while they are written.
//! What is not written, and has no end, was left by a process that died.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Their files. As many as there are uploads, which the peers' caps bound, and those that were not brought to their end
/// yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live(Arc<Mutex<HashSet<PathBuf>>>);

/// One of them, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    live: Live,
    path: PathBuf,
}

impl Live {
    /// Somebody is at `path` from now on.
    pub(crate) fn begin(&self, path: PathBuf) -> Held {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        Held { live: self.clone(), path }
    }

    pub(crate) fn contains(&self, path: &Path) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.live.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}
