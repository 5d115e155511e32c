//! API events on the volume, as a table that query engines read as it is.
//!
//! ```text
//! ROOT/events/date=2026-08-01/hour=13/FILE.ndjson.zst   immutable: one event a line, zstd (RFC 8878)
//! ROOT/events/.open/2026-08-01.13.FILE.ndjson.zst       the one that is being written
//! ```
//!
//! Every append is durable when it returns. After a while the file is published under its partition, by rename, and
//! another begun; one that a crash left open is published at the next start, without what was torn. Readers of Hive
//! partitions leave names out that begin with a dot.
//!
//! Invariants: a published file never changes. The partition follows from the recorder's own clock. One process writes:
//! an open file is locked, so that no other publishes it.

mod draft;
mod file;

pub use draft::Draft;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{DIR_MODE, StoreError, layout::Hour, quarantine::Quarantine, sync_directory};
use file::OpenFile;

/// Directory of the table, below the root.
pub const TABLE: &str = "events";
/// Where files are while they are written.
const OPEN: &str = ".open";
/// Bytes of a file, compressed, above which it is published.
const MAX_FILE: u64 = 64 << 20;

/// Writes events. All calls block; run them where that is allowed.
#[derive(Debug)]
pub struct EventLog {
    table: PathBuf,
    open: Option<OpenFile>,
    /// Bytes of all files of this process, compressed.
    written: u64,
    quarantine: Quarantine,
}

impl EventLog {
    /// Opens the table below `root` and publishes what a crash left open.
    pub(super) fn open(root: &Path, quarantine: Quarantine) -> Result<Self, StoreError> {
        let log = Self { table: root.join(TABLE), open: None, written: 0, quarantine };
        log.prepare().map_err(|source| StoreError::Io { action: "prepared for events", source })?;
        Ok(log)
    }

    fn prepare(&self) -> io::Result<()> {
        let open = self.table.join(OPEN);
        fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(&open)?;
        for entry in fs::read_dir(&open)?.flatten() {
            let path = entry.path();
            let published = OpenFile::recover(&path, &self.quarantine)
                .and_then(|left| left.map_or(Ok(None), |left| self.publish_file(&left)));
            if let Err(error) = published {
                // One that cannot be read must not keep the others from being written.
                self.quarantine.take(&path, &error);
            }
        }
        Ok(())
    }

    /// Appends events at `now` (Unix seconds), each with its id written in, and gives the ids. All of them are durable
    /// when this returns; after an error none is there.
    ///
    /// # Errors
    /// Where they cannot be written whole.
    pub fn append<'a>(
        &mut self,
        events: impl Iterator<Item = &'a Draft>,
        now: i64,
    ) -> Result<Vec<String>, StoreError> {
        self.try_append(events, now).map_err(|source| StoreError::Io { action: "written", source })
    }

    fn try_append<'a>(
        &mut self,
        events: impl Iterator<Item = &'a Draft>,
        now: i64,
    ) -> io::Result<Vec<String>> {
        let hour = Hour::of(now);
        if self.open.as_ref().is_some_and(|open| open.hour() != hour || open.len() > MAX_FILE) {
            self.try_publish()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(OpenFile::create(&self.table.join(OPEN), hour)?),
        };
        let before = open.len();
        let appended = open.append(events);
        self.written = self.written.saturating_add(open.len().saturating_sub(before));
        if appended.is_err() {
            // Where it ends is not known any more: what is whole of it is published. That the volume fails is the
            // error to report.
            self.open = None;
            let _ = self.prepare();
        }
        appended
    }

    /// Publishes the file that is open, if any, and says where it lies.
    ///
    /// # Errors
    /// Where that fails; the file is tried again at the next start.
    pub fn publish(&mut self) -> Result<Option<PathBuf>, StoreError> {
        self.try_publish().map_err(|source| StoreError::Io { action: "published", source })
    }

    /// Bytes that were appended so far, as they are stored.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Whether a file is open.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    fn try_publish(&mut self) -> io::Result<Option<PathBuf>> {
        self.open.take().map_or(Ok(None), |open| self.publish_file(&open))
    }

    fn publish_file(&self, open: &OpenFile) -> io::Result<Option<PathBuf>> {
        if open.len() == 0 {
            return fs::remove_file(open.path()).map(|()| None);
        }
        let mut directory = self.table.clone();
        for component in open.hour().partition() {
            let parent = directory.clone();
            directory.push(component);
            match fs::DirBuilder::new().mode(DIR_MODE).create(&directory) {
                Ok(()) => sync_directory(&parent)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let published = directory.join(open.published_name());
        fs::rename(open.path(), &published)?;
        sync_directory(&directory)?;
        sync_directory(&self.table.join(OPEN))?;
        Ok(Some(published))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    /// What a draft becomes.
    pub(crate) fn written(draft: &super::Draft, id: &str) -> Vec<u8> {
        let mut out = Vec::new();
        draft.write(id, &mut out);
        out
    }
}

#[cfg(test)]
mod tests;
