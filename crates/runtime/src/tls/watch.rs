//! Watching a directory that the kubelet writes.
//!
//! The kubelet replaces the whole content at once: the visible files are links through `..data`, whose target it swaps
//! by rename (`pkg/volume/util/atomic_writer.go`). A watch on a file never sees that, so that the directory's content
//! is read every few seconds instead, and any difference is a change.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Interval, MissedTickBehavior};

/// Files looked at; further ones, in order of name, are ignored.
const MAX_FILES: usize = 256;
/// Bytes looked at in each file; what follows is ignored.
const MAX_FILE: u64 = 1 << 20;

/// Polls a directory's content. A directory that is missing or cannot be read is content like any other: it changes
/// when it comes back.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    ticks: Interval,
    seen: Option<u64>,
}

impl Directory {
    /// Watches the files of `path`, looking every `period`.
    ///
    /// The first call of [`Self::changed`] takes note of the content; begin it before reading the files, so that no
    /// change falls between.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, period: Duration) -> Self {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { path: path.into(), ticks, seen: None }
    }

    /// Takes note of the content now, so that [`Self::changed`] compares with this moment.
    pub async fn note(&mut self) {
        self.seen = Some(self.fingerprint().await);
    }

    /// Completes when the content differs from what it was when this last completed. Nothing is lost when the future
    /// is dropped before.
    pub async fn changed(&mut self) {
        if self.seen.is_none() {
            self.note().await;
        }
        loop {
            self.ticks.tick().await;
            let now = self.fingerprint().await;
            if self.seen != Some(now) {
                self.seen = Some(now);
                return;
            }
        }
    }

    async fn fingerprint(&self) -> u64 {
        let path = self.path.clone();
        // The task only reads; it fails only if the runtime is going down, where no change matters any more.
        tokio::task::spawn_blocking(move || fingerprint(&path)).await.unwrap_or_default()
    }
}

fn fingerprint(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    entries(path).map_err(|error| error.kind()).hash(&mut hasher);
    hasher.finish()
}

/// Content hash by file name. Names that begin with `..` are the kubelet's own.
fn entries(path: &Path) -> io::Result<BTreeMap<OsString, Option<u64>>> {
    let mut names: Vec<OsString> = fs::read_dir(path)?
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
        .filter(|name| !name.as_encoded_bytes().starts_with(b".."))
        .collect();
    names.sort();
    names.truncate(MAX_FILES);
    Ok(names.into_iter().map(|name| (name.clone(), file(&path.join(name)).ok())).collect())
}

fn file(path: &Path) -> io::Result<u64> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut content)?;
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests;
