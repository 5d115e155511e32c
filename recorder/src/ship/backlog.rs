//! Brings to its end what nobody writes any more: closes parts, ships files of events, and at last removes from the
//! volume what has been in the bucket for as long as it is to be kept.
//!
//! The volume is looked at when the process begins, and then every [`EVERY`].

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use podwitness_core::control::Taking;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Ended, Followed, LAST, PartShip, ShipError, Shipper,
    part::blocking,
    retire::{self, Keep},
    status::Waits,
    stray,
};
use crate::{
    bucket::Class,
    store::{Store, events::TABLE, live::Live, mark, meta::Meta, read_meta, walk::Place},
};

/// How often the volume is looked at.
const EVERY: Duration = Duration::from_secs(30);
/// The same while space is short, which what is in the bucket can give back.
const SHORT: Duration = Duration::from_secs(5);
/// Files that a look finds at a time. What is behind them waits for the next look.
const FOUND: usize = 1024;
/// How long a file rests of which nothing can become soon, and how many are remembered.
const CONFLICT: Duration = Duration::from_secs(600);
const LATER: usize = 16 << 10;
/// The same where it is the volume that failed.
const LOCAL: Duration = Duration::from_secs(60);
/// When the volume is looked at again after the bucket failed; the gate makes it later.
const RETRY: Duration = Duration::from_secs(2);
/// Files that are brought to their end at a time.
const AT_ONCE: usize = 8;

/// What a look at the volume found.
#[derive(Debug, Default)]
struct Look {
    parts: Vec<Place>,
    events: Vec<PathBuf>,
    bytes: u64,
    oldest: Option<SystemTime>,
}

/// Until the shipper is told to stop.
pub(super) async fn run(
    shipper: Shipper,
    queue: mpsc::Receiver<Ended>,
    keep: Option<Duration>,
    recovered: CancellationToken,
) {
    let stop = shipper.stop.clone();
    let followed = shipper.followed.clone();
    let mut backlog = Backlog::new(shipper, followed, HashMap::new());
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = backlog.work(queue, Keep::new(keep), &recovered) => return,
    }
    let Backlog { shipper, later, .. } = backlog;
    // Nothing is written or followed any more: what was, is all at rest.
    let mut backlog = Backlog::new(shipper.clone(), Live::default(), later);
    let last = async { while backlog.sweep().await {} };
    if timeout(LAST, last).await.is_err() || shipper.status.backlog().bytes > 0 {
        let left = shipper.status.backlog();
        tracing::warn!(bytes = left.bytes, age = left.age.as_secs(), "recordings stay on the volume");
    }
}

/// One task, and those that it has at work.
struct Backlog {
    shipper: Shipper,
    /// Parts that are none of its business yet.
    followed: Live,
    tasks: JoinSet<(PathBuf, Done)>,
    /// What is not to be tried before.
    later: HashMap<PathBuf, Instant>,
    /// Whether the bucket failed since the last look.
    failed: bool,
}

/// What came of a file.
enum Done {
    /// It is in the bucket.
    Shipped,
    /// Nothing, and nothing will soon.
    Later(Duration),
    /// Nothing: it is tried again at the next look.
    Failed,
}

impl Backlog {
    fn new(shipper: Shipper, followed: Live, later: HashMap<PathBuf, Instant>) -> Self {
        Self { shipper, followed, tasks: JoinSet::new(), later, failed: false }
    }

    async fn work(&mut self, mut queue: mpsc::Receiver<Ended>, keep: Keep, recovered: &CancellationToken) {
        recovered.cancelled().await;
        stray::remove(&self.shipper).await;
        let (mut look_at, room) = (Instant::now(), Arc::clone(&self.shipper.room));
        loop {
            // Not biased: neither what has ended nor a look at the volume, which also removes what may go, is to wait for as
            // long as there is always some of the other.
            tokio::select! {
                () = room.notified() => {
                    self.later.clear();
                    look_at = Instant::now();
                }
                Some(done) = self.tasks.join_next() => {
                    self.done(done);
                    if self.failed {
                        look_at = look_at.min(Instant::now() + RETRY);
                    }
                }
                ended = queue.recv(), if self.tasks.len() < self.at_once() => {
                    let Some(ended) = ended else { return };
                    let shipper = self.shipper.clone();
                    self.tasks.spawn(async move {
                        match ended {
                            Ended::Part(part) => {
                                let Followed { ship, waits, _held } = *part;
                                (ship.place().cast(), close(&shipper, ship, Some(&waits)).await.into())
                            }
                            Ended::Events(file) => {
                                let done = events(&shipper, &file).await.into();
                                (file, done)
                            }
                        }
                    });
                }
                () = sleep_until(look_at) => {
                    // So that nobody brings to its end what is under way.
                    while let Some(done) = self.tasks.join_next().await {
                        self.done(done);
                    }
                    let more = self.sweep().await;
                    retire::retire(&self.shipper, keep).await;
                    let short = self.shipper.store.space().state() != Taking::Accepting;
                    let pause = match (more, self.failed) {
                        (true, _) => Duration::ZERO,
                        (false, true) => RETRY,
                        (false, false) if short => SHORT,
                        (false, false) => EVERY,
                    };
                    look_at = Instant::now() + pause;
                }
            }
        }
    }

    /// Looks at the volume and brings to its end what it finds. True where there is more to do at once.
    async fn sweep(&mut self) -> bool {
        self.later.retain(|_, until| *until > Instant::now());
        self.failed = false;
        let Some(found) = self.look().await else { return false };
        let full = found.parts.len().saturating_add(found.events.len()) >= FOUND;
        let mut shipped = false;
        let parts = found.parts.into_iter().map(Ok);
        for next in parts.chain(found.events.into_iter().map(Err)) {
            while self.tasks.len() >= self.at_once() {
                let Some(done) = self.tasks.join_next().await else { break };
                shipped |= self.done(done);
            }
            if self.failed {
                // The rest would fail, too, one after the other: the next look finds it.
                break;
            }
            let shipper = self.shipper.clone();
            self.tasks.spawn(async move {
                match next {
                    Ok(place) => (place.cast(), part(&shipper, place).await),
                    Err(file) => {
                        let done = events(&shipper, &file).await.into();
                        (file, done)
                    }
                }
            });
        }
        while let Some(done) = self.tasks.join_next().await {
            shipped |= self.done(done);
        }
        // What is left is what waits.
        let _ = self.look().await;
        full && shipped
    }

    /// Files to bring to their end at a time: one tells whether the bucket is back.
    fn at_once(&self) -> usize {
        if self.shipper.status.failing().is_some() { 1 } else { AT_ONCE }
    }

    /// Counts what waits, too.
    async fn look(&self) -> Option<Look> {
        let (store, now) = (Arc::clone(&self.shipper.store), Instant::now());
        let later: HashSet<PathBuf> =
            self.later.iter().filter(|(_, until)| **until > now).map(|(path, _)| path.clone()).collect();
        let followed = self.followed.clone();
        let found = blocking(move || {
            look(&store, &later, &followed)
                .map_err(|source| ShipError::Local { path: store.root().to_owned(), source })
        });
        let found = found.await.ok()?;
        let age = found.oldest.and_then(|oldest| oldest.elapsed().ok()).unwrap_or_default();
        self.shipper.status.found(found.bytes, age);
        Some(found)
    }

    /// True where something is in the bucket now. A panic is in the log, and its file in the next look.
    fn done(&mut self, done: Result<(PathBuf, Done), JoinError>) -> bool {
        match done {
            Ok((_, Done::Shipped)) => true,
            Ok((_, Done::Failed)) => {
                self.failed = true;
                false
            }
            Ok((path, Done::Later(pause))) if self.later.len() < LATER => {
                self.later.insert(path, Instant::now() + pause);
                false
            }
            Ok(_) | Err(_) => false,
        }
    }
}

impl From<Result<(), ShipError>> for Done {
    fn from(result: Result<(), ShipError>) -> Self {
        match result {
            Ok(()) => Self::Shipped,
            // The bucket holds something else, and will the next time.
            Err(ShipError::Bucket(error)) if error.class() == Class::Conflict => Self::Later(CONFLICT),
            Err(ShipError::Local { .. }) => Self::Later(LOCAL),
            Err(ShipError::Bucket(_)) => Self::Failed,
        }
    }
}

/// A part that another process began, or whose task could not bring it to its end.
async fn part(shipper: &Shipper, place: Place) -> Done {
    let at = place.clone();
    let meta = blocking(move || {
        read_meta(&at.meta()).map_err(|source| ShipError::Local { path: at.meta(), source })
    });
    match meta.await {
        // Another process writes it, or its end did not find room and comes when there is some.
        Ok(Meta { end: None, .. }) => Done::Later(RETRY),
        Ok(meta) => {
            let resumed = async {
                let ship = PartShip::new(shipper.bucket.clone(), shipper.store.root(), place, &meta)?;
                close(shipper, ship.resume().await?, None).await
            };
            resumed.await.into()
        }
        Err(_) => Done::Later(LOCAL),
    }
}

/// Ships what is left of a part, and its manifest. What waits of it is counted in `waits`, unless a look at the volume
/// counts it.
async fn close(shipper: &Shipper, mut ship: PartShip, waits: Option<&Waits>) -> Result<(), ShipError> {
    let place = ship.place().clone();
    let closed = try_close(shipper, &mut ship, waits).await;
    match closed {
        Ok(Some(meta)) => shipper.ask(async || ship.finish(meta).await).await,
        Ok(None) => Ok(()),
        Err(error) => {
            if let ShipError::Local { .. } = &error {
                let (store, at) = (Arc::clone(&shipper.store), place.clone());
                let text = error.to_string();
                // What cannot be read now, cannot the next time: people have to look.
                let aside = move || {
                    if unreadable(&at) {
                        store.quarantine().take(&at.cast(), &text);
                        store.quarantine().take(&at.meta(), &text);
                    }
                    Ok(())
                };
                blocking(aside).await?;
            }
            Err(error)
        }
    }
}

/// Whether a recording is not there, or cannot be read to the end that its metadata names.
fn unreadable(place: &Place) -> bool {
    let end = read_meta(&place.meta()).ok().and_then(|meta| meta.end).map_or(0, |end| end.bytes);
    let read = fs::File::open(place.cast()).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
    !read.is_ok_and(|read| read >= end)
}

/// The metadata with its end, once everything is in the bucket; none where the part has no end.
async fn try_close(
    shipper: &Shipper,
    ship: &mut PartShip,
    waits: Option<&Waits>,
) -> Result<Option<Meta>, ShipError> {
    let place = ship.place().clone();
    let (meta, length) = blocking(move || {
        let failed = |source| ShipError::Local { path: place.cast(), source };
        let meta = read_meta(&place.meta()).map_err(failed)?;
        let length = fs::metadata(place.cast()).map_err(failed)?.len();
        match &meta.end {
            Some(end) if end.bytes > length => Err(failed(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok((meta, length)),
        }
    })
    .await?;
    if meta.end.is_none() {
        return Ok(None);
    }
    if let Some(waits) = waits {
        waits.bytes(length.saturating_sub(ship.shipped()));
    }
    // With what was torn: it is in no acknowledgement, and in the file. An empty one has a beginning, too.
    while ship.shipped() < length || length == 0 {
        let size = shipper.ask(async || ship.segment(length).await).await?;
        shipper.status.shipped_bytes(size);
        if let Some(waits) = waits {
            waits.left(length.saturating_sub(ship.shipped()));
        }
        if length == 0 {
            break;
        }
    }
    Ok(Some(meta))
}

/// One published file of events.
pub(super) async fn events(shipper: &Shipper, file: &Path) -> Result<(), ShipError> {
    let failed = |source| ShipError::Local { path: file.to_owned(), source };
    let below = file.strip_prefix(shipper.store.root()).map_err(|error| failed(io::Error::other(error)))?;
    let key: Vec<_> = below.iter().map(|name| name.to_string_lossy()).collect();
    // One at a time, because they are large. Never closed.
    let _reading = shipper.reading.acquire().await;
    let content = tokio::fs::read(file).await.map_err(failed)?;
    shipper.put_same(&key.join("/"), content.into()).await?;
    let path = file.to_owned();
    blocking(move || mark::put_file(&path).map_err(|source| ShipError::Local { path, source })).await
}

/// Everything that rests on the volume, that nobody follows, and that is not marked as shipped. Blocks.
fn look(store: &Store, later: &HashSet<PathBuf>, followed: &Live) -> io::Result<Look> {
    let mut found = Look::default();
    let count = |path: &Path, found: &mut Look| {
        let Ok(about) = fs::metadata(path) else { return };
        found.bytes = found.bytes.saturating_add(about.len());
        if let Ok(modified) = about.modified() {
            found.oldest = Some(found.oldest.map_or(modified, |oldest| oldest.min(modified)));
        }
    };
    store.resting(&mut |place| {
        if !followed.contains(&place.cast()) && fs::symlink_metadata(mark::path(&place)).is_err() {
            count(&place.cast(), &mut found);
            if found.parts.len() < FOUND && !later.contains(&place.cast()) {
                found.parts.push(place);
            }
        }
        ControlFlow::Continue(())
    })?;
    for file in published(store.root()) {
        if mark::of_file(&file).is_some_and(|mark| fs::symlink_metadata(mark).is_err()) {
            count(&file, &mut found);
            if found.events.len() < FOUND && !later.contains(&file) {
                found.events.push(file);
            }
        }
    }
    Ok(found)
}

/// Every published file of events.
pub(super) fn published(root: &Path) -> Vec<PathBuf> {
    let visible = |path: PathBuf| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !name.starts_with('.'))
        })
    };
    visible(root.join(TABLE)).flat_map(visible).flat_map(visible).collect()
}
