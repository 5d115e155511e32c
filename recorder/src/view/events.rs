//! The table of API events: its published files, listed and read.
//!
//! Nothing here looks into a file: whoever has a question asks a query engine.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Bytes;
use serde::Serialize;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

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

/// How long a listing waits for the bucket, and how long it does not wait again for one that failed.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_secs(30);

/// The table of a store, and of a bucket that it is shipped to. All calls block.
#[derive(Clone, Debug)]
pub struct EventTable {
    local: PathBuf,
    bucket: Option<(Bucket, Handle)>,
    /// Until when the bucket is not asked, and why.
    away: Arc<Mutex<Option<(Instant, String)>>>,
}

/// A listing.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) files: Vec<EventFile>,
    /// Why it has none of those that are only in the bucket.
    pub(super) unread: Option<String>,
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
        Self { local: root.join(TABLE), bucket: None, away: Arc::default() }
    }

    /// The same with what lies in a bucket, asked within a runtime.
    #[must_use]
    pub fn with_bucket(self, bucket: Bucket) -> Self {
        Self { bucket: Some((bucket, Handle::current())), ..self }
    }

    /// At most `limit` files behind `after`, oldest first; of one day where `date` names it (`2026-08-01`).
    pub(super) fn list(&self, date: Option<&str>, after: Option<&str>, limit: usize) -> io::Result<Files> {
        let mut files = self.list_local(date, after, limit)?;
        let known: HashSet<String> = files.iter().map(|file| file.path.clone()).collect();
        // A bucket that is away hides nothing that is here.
        let (shipped, unread) = match self.list_bucket_unless_away(date, after, limit) {
            Ok(shipped) => (shipped, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        files.extend(shipped.into_iter().filter(|file| !known.contains(&file.path)));
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        files.truncate(limit);
        Ok(Files { files, unread })
    }

    /// A bucket that failed is not asked again for a while, so that one that hangs does not hold up each page.
    fn list_bucket_unless_away(
        &self,
        date: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<EventFile>, String> {
        if let Some((until, why)) = &*self.away.lock().unwrap_or_else(PoisonError::into_inner)
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        let listed = self.list_bucket(date, after, limit).map_err(|error| error.to_string());
        let failed = listed.as_ref().err().map(|why| {
            tracing::warn!(error = why, "files of events in the bucket are not listed");
            (Instant::now() + PAUSE, why.clone())
        });
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        listed
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
        let listing = bucket.list(&below, after.as_deref(), limit);
        let found = handle.block_on(async { timeout(PATIENCE, listing).await });
        let silent =
            |_| io::Error::other(format!("the bucket has not answered within {} s", PATIENCE.as_secs()));
        let found = found.map_err(silent)?.map_err(io::Error::other)?;
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

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        bucket::testing::silent,
        store::{Store, events::Draft},
    };

    /// In a thread of its own, so that the paused clock goes on.
    async fn list(table: &EventTable) -> Files {
        let ((done, listed), table) = (oneshot::channel(), table.clone());
        let handle = Handle::current();
        std::thread::spawn(move || {
            let _clock = handle.enter();
            done.send(table.list(None, None, 10).unwrap())
        });
        listed.await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_that_never_answers_hides_no_file_and_is_waited_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Store::open(dir.path(), 0).unwrap().events().unwrap();
        log.append([&Draft::new(b"{\"id\":}".to_vec(), 6)].into_iter(), 1_700_000_000).unwrap();
        log.publish().unwrap();
        let table = EventTable::new(dir.path()).with_bucket(silent());
        for wait in [PATIENCE, Duration::ZERO, Duration::ZERO] {
            let before = Instant::now();
            let Files { files, unread } = list(&table).await;
            assert_eq!((files.len(), unread.is_some()), (1, true));
            assert!(before.elapsed() >= wait && before.elapsed() < wait + Duration::from_secs(1));
        }
        tokio::time::advance(PAUSE).await;
        let before = Instant::now();
        list(&table).await;
        assert!(before.elapsed() >= PATIENCE, "it is asked again");
    }
}
