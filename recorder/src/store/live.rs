//! Which parts this process writes: what is none of these, and has no end, was left by one that died.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// The files that are written. As many as there are uploads, which the peers' caps bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Live(Arc<Mutex<HashSet<PathBuf>>>);

/// One of them, until this is dropped.
#[derive(Debug)]
pub(super) struct Writing {
    live: Live,
    path: PathBuf,
}

impl Live {
    /// `path` is about to be created.
    pub(super) fn begin(&self, path: PathBuf) -> Writing {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        Writing { live: self.clone(), path }
    }

    pub(super) fn contains(&self, path: &Path) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.live.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}
