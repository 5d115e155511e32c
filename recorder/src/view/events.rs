//! The table of API events: its published files, listed and read.
//!
//! Nothing here looks into a file: whoever has a question asks a query engine.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use axum::body::Bytes;
use serde::Serialize;
use tokio::runtime::Handle;

use super::readable::Readable;
use crate::{
    bucket::{Bucket, Object},
    store::events::TABLE,
};

/// Bytes that are read at a time.
const READ: usize = 256 << 10;
/// The same from a bucket, where each request takes its time.
const FETCH: u64 = 1 << 20;

/// A published file.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(super) struct EventFile {
    /// Path below the table, with its partition.
    pub(super) path: String,
    /// Bytes, compressed.
    pub(super) size: u64,
}

/// The table of a store, and of a bucket that it is shipped to. All calls block.
#[derive(Clone, Debug)]
pub struct EventTable {
    local: PathBuf,
    bucket: Option<(Bucket, Handle)>,
}

/// One file of it, open.
pub(super) struct OpenFile {
    from: From,
    length: u64,
}

enum From {
    Volume(File),
    /// With its key.
    Bucket(Bucket, Handle, String),
}

impl EventTable {
    /// The table of what lies below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { local: root.join(TABLE), bucket: None }
    }

    /// The same with what lies in a bucket, asked within a runtime.
    #[must_use]
    pub fn with_bucket(self, bucket: Bucket) -> Self {
        Self { bucket: Some((bucket, Handle::current())), ..self }
    }

    /// At most `limit` files behind `after`, oldest first; of one day where `date` names it (`2026-08-01`).
    pub(super) fn list(
        &self,
        date: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> io::Result<Vec<EventFile>> {
        let mut files = self.list_local(date, after, limit)?;
        let known: HashSet<String> = files.iter().map(|file| file.path.clone()).collect();
        // A bucket that is away hides nothing that is here.
        let shipped = self.list_bucket(date, after, limit).unwrap_or_else(|error| {
            tracing::warn!(%error, "files of events in the bucket are not listed");
            Vec::new()
        });
        files.extend(shipped.into_iter().filter(|file| !known.contains(&file.path)));
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        files.truncate(limit);
        Ok(files)
    }

    fn list_bucket(
        &self,
        date: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> io::Result<Vec<EventFile>> {
        let Some((bucket, handle)) = &self.bucket else { return Ok(Vec::new()) };
        if date.is_some_and(|date| !date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')) {
            return Ok(Vec::new());
        }
        let below = date.map_or_else(|| TABLE.to_owned(), |date| format!("{TABLE}/date={date}"));
        let after = after.filter(|after| !after.is_empty()).map(|after| format!("{TABLE}/{after}"));
        let found =
            handle.block_on(bucket.list(&below, after.as_deref(), limit)).map_err(io::Error::other)?;
        let file = |object: Object| {
            let path = object.key.strip_prefix(TABLE)?.strip_prefix('/')?;
            is_published(path).then(|| EventFile { path: path.to_owned(), size: object.size })
        };
        Ok(found.into_iter().filter_map(file).collect())
    }

    fn list_local(
        &self,
        date: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> io::Result<Vec<EventFile>> {
        let mut found = Vec::new();
        let after = after.unwrap_or_default();
        // A directory is skipped where all below it comes before `after`.
        let wanted = |path: &str| after <= path || after.starts_with(path);
        for day in names(&self.local)? {
            if !wanted(&day) || date.is_some_and(|date| day.strip_prefix("date=") != Some(date)) {
                continue;
            }
            for hour in names(&self.local.join(&day))?.into_iter().map(|hour| format!("{day}/{hour}")) {
                if !wanted(&hour) {
                    continue;
                }
                for path in names(&self.local.join(&hour))?.into_iter().map(|file| format!("{hour}/{file}")) {
                    if path.as_str() <= after {
                        continue;
                    }
                    if found.len() >= limit {
                        return Ok(found);
                    }
                    let size = fs::metadata(self.local.join(&path)).map_or(0, |meta| meta.len());
                    found.push(EventFile { path, size });
                }
            }
        }
        Ok(found)
    }

    /// A published file by its path below the table.
    pub(super) fn open(&self, path: &str) -> io::Result<Option<OpenFile>> {
        if !is_published(path) {
            return Ok(None);
        }
        match File::open(self.local.join(path)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                Ok(Some(OpenFile { from: From::Volume(file), length }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.open_shipped(path),
            Err(error) => Err(error),
        }
    }

    fn open_shipped(&self, path: &str) -> io::Result<Option<OpenFile>> {
        let Some((bucket, handle)) = &self.bucket else { return Ok(None) };
        let key = format!("{TABLE}/{path}");
        let length = handle.block_on(bucket.size(&key)).map_err(io::Error::other)?;
        let from = From::Bucket(bucket.clone(), handle.clone(), key);
        Ok(length.map(|length| OpenFile { from, length }))
    }
}

impl Readable for OpenFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&mut self, at: u64) -> io::Result<Bytes> {
        match &self.from {
            From::Volume(file) => {
                let mut chunk = vec![0; READ];
                let read = file.read_at(&mut chunk, at)?;
                chunk.truncate(read);
                Ok(chunk.into())
            }
            From::Bucket(bucket, handle, key) => {
                let end = at.saturating_add(FETCH).min(self.length);
                let read = handle.block_on(bucket.get_range(key, at..end)).map_err(io::Error::other)?;
                read.ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }
}

/// Whether a path can be one of a published file.
fn is_published(path: &str) -> bool {
    let components: Vec<&str> = path.split('/').collect();
    let plain = |name: &&str| !name.is_empty() && !name.starts_with('.');
    components.len() == 3 && components.iter().all(plain)
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
