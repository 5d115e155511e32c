//! Reads the store's directories, newest day first, and again only what has changed.
//!
//! A directory is read again when its modification time differs from the last look, or was so recent at that look
//! that a later change may have the same time. Metadata is replaced by rename, so that a changed file changes its
//! directory too. What is kept is bounded: days beyond [`Bounds`] are not looked at.

use std::{
    collections::HashMap,
    fs::{self, DirEntry},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::bucket_index::BucketPart;
use crate::store::{layout::PartName, meta::Meta, read_meta, walk::Place};

/// Directories below a day: cluster, namespace, pod.
const MAX_DEPTH: usize = 4;
/// Age in milliseconds from which a directory's modification time is believed to tell changes apart.
const SETTLED: i64 = 2000;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Parts; days are left out from the first one that begins above it.
    pub(super) parts: usize,
    /// Directories.
    pub(super) directories: usize,
}

/// One part as found.
#[derive(Debug)]
pub(super) struct Found {
    /// The recording.
    pub(super) source: Source,
    /// Its name.
    pub(super) name: PartName,
    /// Its metadata, or why there is none.
    pub(super) meta: Result<Meta, String>,
}

/// Where a recording lies.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// On the volume.
    File(PathBuf),
    /// In a bucket.
    Bucket(BucketPart),
}

impl Source {
    /// Bytes that are there now.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::File(path) => fs::metadata(path).map_or(0, |file| file.len()),
            Self::Bucket(part) => part.length(),
        }
    }

    /// What tells a recording without metadata from others: its directory.
    pub(super) fn place(&self) -> &[u8] {
        match self {
            Self::File(path) => path.parent().unwrap_or(path).as_os_str().as_encoded_bytes(),
            Self::Bucket(part) => part.directory().as_bytes(),
        }
    }
}

/// What the last look saw.
#[derive(Debug)]
pub(super) struct Scan {
    root: PathBuf,
    bounds: Bounds,
    seen: HashMap<PathBuf, Directory>,
}

#[derive(Debug, Default)]
struct Directory {
    modified: i128,
    settled: bool,
    below: Vec<PathBuf>,
    parts: HashMap<PartName, Stamped>,
}

#[derive(Clone, Debug)]
struct Stamped {
    /// Inode and modification time of the metadata; a replacement has another inode.
    stamp: Option<(u64, i128)>,
    found: Arc<Found>,
}

/// The result of one look.
pub(super) struct Look {
    /// Every part within the bounds.
    pub(super) parts: Vec<Arc<Found>>,
    /// Whether older days were left out.
    pub(super) truncated: bool,
}

impl Scan {
    pub(super) fn new(root: PathBuf, bounds: Bounds) -> Self {
        Self { root, bounds, seen: HashMap::new() }
    }

    /// Looks at the store at `now` (Unix milliseconds).
    pub(super) fn look(&mut self, now: i64) -> io::Result<Look> {
        let mut walk = Walk {
            before: std::mem::take(&mut self.seen),
            after: HashMap::new(),
            parts: Vec::new(),
            now: i128::from(now),
            bounds: self.bounds,
        };
        let result = walk.days(&self.root);
        self.seen = walk.after;
        Ok(Look { parts: walk.parts, truncated: result? })
    }
}

/// One walk over the store.
struct Walk {
    before: HashMap<PathBuf, Directory>,
    after: HashMap<PathBuf, Directory>,
    parts: Vec<Arc<Found>>,
    now: i128,
    bounds: Bounds,
}

impl Walk {
    /// Walks days from the newest on; true where some were left out.
    fn days(&mut self, root: &Path) -> io::Result<bool> {
        let years = match numbered(root) {
            // Nothing was ever recorded.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            years => years?,
        };
        for year in years {
            for month in numbered(&year).unwrap_or_default() {
                for day in numbered(&month).unwrap_or_default() {
                    if self.is_full() {
                        return Ok(true);
                    }
                    self.visit(day, 0);
                }
            }
        }
        Ok(self.is_full())
    }

    fn is_full(&self) -> bool {
        self.parts.len() >= self.bounds.parts || self.after.len() >= self.bounds.directories
    }

    fn visit(&mut self, path: PathBuf, depth: usize) {
        if self.is_full() || depth > MAX_DEPTH {
            return;
        }
        let Some(directory) = self.directory(&path) else { return };
        let room = self.bounds.parts.saturating_sub(self.parts.len());
        self.parts.extend(directory.parts.values().take(room).map(|part| Arc::clone(&part.found)));
        let below = directory.below.clone();
        self.after.insert(path, directory);
        for path in below {
            self.visit(path, depth.saturating_add(1));
        }
    }

    /// The directory as it is now, read again only if it may have changed; `None` where it cannot be read.
    fn directory(&mut self, path: &Path) -> Option<Directory> {
        let modified = modified(&fs::symlink_metadata(path).ok()?);
        let before = self.before.remove(path).unwrap_or_default();
        if before.settled && before.modified == modified {
            return Some(before);
        }
        let settled = self.now.saturating_sub(modified / 1_000_000) > i128::from(SETTLED);
        let mut directory = Directory { modified, settled, ..Directory::default() };
        for entry in fs::read_dir(path).ok()?.flatten() {
            directory.add(&entry, &before);
        }
        directory.below.sort_unstable_by(|a, b| b.cmp(a));
        Some(directory)
    }
}

impl Directory {
    fn add(&mut self, entry: &DirEntry, before: &Self) {
        // Links are neither: nothing of ours is one.
        let Ok(kind) = entry.file_type() else { return };
        if kind.is_dir() {
            self.below.push(entry.path());
        } else if kind.is_file()
            && let Some(name) = entry.file_name().to_str().and_then(|name| PartName::of_file(name, "cast"))
        {
            let part = part(entry.path(), &name, before.parts.get(&name));
            self.parts.insert(name, part);
        }
    }
}

/// A part by its place.
pub(super) fn found(place: &Place) -> Found {
    let meta = read_meta(&place.meta()).map_err(|error| error.to_string());
    Found { source: Source::File(place.cast()), name: place.name.clone(), meta }
}

/// The part, with its metadata read again where that was replaced.
fn part(cast: PathBuf, name: &PartName, before: Option<&Stamped>) -> Stamped {
    let path = cast.with_file_name(name.meta());
    let stamp = fs::symlink_metadata(&path).ok().map(|meta| (meta.ino(), modified(&meta)));
    match before {
        Some(before) if before.stamp == stamp && before.found.meta.is_ok() => before.clone(),
        _ => {
            let meta = read_meta(&path).map_err(|error| error.to_string());
            Stamped { stamp, found: Arc::new(Found { source: Source::File(cast), name: name.clone(), meta }) }
        }
    }
}

/// Directories whose names are numbers, greatest first.
fn numbered(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(path)?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Modification time in nanoseconds since the epoch.
fn modified(meta: &fs::Metadata) -> i128 {
    i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
}
