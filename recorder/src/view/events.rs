//! The table of API events: its published files, listed and read.
//!
//! Nothing here looks into a file: whoever has a question asks a query engine.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use axum::body::Bytes;
use serde::Serialize;

use super::readable::Readable;
use crate::store::events::TABLE;

/// Bytes that are read at a time.
const READ: usize = 256 << 10;

/// A published file.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(super) struct EventFile {
    /// Path below the table, with its partition.
    pub(super) path: String,
    /// Bytes, compressed.
    pub(super) size: u64,
}

/// The table of a store. All calls block.
#[derive(Clone, Debug)]
pub struct EventTable(PathBuf);

/// One file of it, open.
pub(super) struct OpenFile {
    file: File,
    length: u64,
}

impl EventTable {
    /// The table of what lies below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self(root.join(TABLE))
    }

    /// At most `limit` files behind `after`, oldest first; of one day where `date` names it (`2026-08-01`).
    pub(super) fn list(
        &self,
        date: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> io::Result<Vec<EventFile>> {
        let mut found = Vec::new();
        let after = after.unwrap_or_default();
        // A directory is skipped where all below it comes before `after`.
        let wanted = |path: &str| after <= path || after.starts_with(path);
        for day in names(&self.0)? {
            if !wanted(&day) || date.is_some_and(|date| day.strip_prefix("date=") != Some(date)) {
                continue;
            }
            for hour in names(&self.0.join(&day))?.into_iter().map(|hour| format!("{day}/{hour}")) {
                if !wanted(&hour) {
                    continue;
                }
                for path in names(&self.0.join(&hour))?.into_iter().map(|file| format!("{hour}/{file}")) {
                    if path.as_str() <= after {
                        continue;
                    }
                    if found.len() >= limit {
                        return Ok(found);
                    }
                    let size = fs::metadata(self.0.join(&path)).map_or(0, |meta| meta.len());
                    found.push(EventFile { path, size });
                }
            }
        }
        Ok(found)
    }

    /// A published file by its path below the table.
    pub(super) fn open(&self, path: &str) -> io::Result<Option<OpenFile>> {
        let components: Vec<&str> = path.split('/').collect();
        let plain = |name: &&str| !name.is_empty() && !name.starts_with('.');
        if components.len() != 3 || !components.iter().all(plain) {
            return Ok(None);
        }
        match File::open(self.0.join(path)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                Ok(Some(OpenFile { file, length }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Readable for OpenFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&mut self, at: u64) -> io::Result<Bytes> {
        let mut chunk = vec![0; READ];
        let read = self.file.read_at(&mut chunk, at)?;
        chunk.truncate(read);
        Ok(chunk.into())
    }
}

/// Names in a directory that do not begin with a dot, sorted; none where there is no such directory.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
