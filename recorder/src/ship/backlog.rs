//! Brings to its end what nobody writes any more: closes parts, ships files of events, and at last removes from the
//! volume what has been in the bucket for as long as it is to be kept.
//!
//! The volume is looked at when the process begins, and then every [`EVERY`].

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Ended, LAST, PartShip, ShipError, Shipper,
    part::blocking,
    retire::{self, Keep},
};
use crate::store::{events::TABLE, mark, meta::Meta, read_meta, walk::Place};

/// How often the volume is looked at.
const EVERY: Duration = Duration::from_secs(30);
/// Files that a look finds at a time. What is behind them waits for the next look.
const FOUND: usize = 1024;
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
pub(super) async fn run(shipper: Shipper, mut queue: mpsc::Receiver<Ended>, keep: Option<Duration>) {
    let stop = shipper.stop.clone();
    let keep = Keep::new(keep);
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work(&shipper, &mut queue, &keep) => return,
    }
    let last = async {
        // Nothing is written any more: what was, is all at rest.
        while sweep(&shipper, &mut JoinSet::new()).await {}
    };
    if timeout(LAST, last).await.is_err() || shipper.status.backlog().bytes > 0 {
        let left = shipper.status.backlog();
        tracing::warn!(bytes = left.bytes, age = left.age.as_secs(), "recordings stay on the volume");
    }
}

async fn work(shipper: &Shipper, queue: &mut mpsc::Receiver<Ended>, keep: &Keep) {
    let (mut look_at, mut tasks) = (Instant::now(), JoinSet::new());
    loop {
        tokio::select! {
            biased;
            // What it came to is in the log, and in what the next look finds.
            Some(_) = tasks.join_next() => {}
            ended = queue.recv(), if tasks.len() < AT_ONCE => {
                let Some(ended) = ended else { return };
                let shipper = shipper.clone();
                tasks.spawn(async move {
                    match ended {
                        Ended::Part(ship) => close(&shipper, *ship).await,
                        Ended::Events(file) => events(&shipper, &file).await,
                    }
                });
            }
            () = sleep_until(look_at), if tasks.len() < AT_ONCE => {
                // So that nobody brings to its end what is under way.
                while tasks.join_next().await.is_some() {}
                let more = sweep(shipper, &mut tasks).await;
                while tasks.join_next().await.is_some() {}
                retire::retire(shipper, keep).await;
                look_at = if more { Instant::now() } else { Instant::now() + EVERY };
            }
        }
    }
}

/// Looks at the volume and brings to its end what it finds. True where there is more to do at once.
async fn sweep(shipper: &Shipper, tasks: &mut JoinSet<Result<(), ShipError>>) -> bool {
    let store = std::sync::Arc::clone(&shipper.store);
    let Ok(found) = blocking(move || {
        look(&store).map_err(|source| ShipError::Local { path: store.root().to_owned(), source })
    })
    .await
    else {
        return false;
    };
    let age = found.oldest.and_then(|oldest| oldest.elapsed().ok()).unwrap_or_default();
    shipper.status.found(found.bytes, age);
    let full = found.parts.len().saturating_add(found.events.len()) >= FOUND;
    let mut progress = false;
    let parts = found.parts.into_iter().map(Ok);
    for next in parts.chain(found.events.into_iter().map(Err)) {
        while tasks.len() >= AT_ONCE {
            progress |= matches!(tasks.join_next().await, Some(Ok(Ok(()))));
        }
        let shipper = shipper.clone();
        tasks.spawn(async move {
            match next {
                Ok(place) => part(&shipper, place).await,
                Err(file) => events(&shipper, &file).await,
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        progress |= matches!(done, Ok(Ok(())));
    }
    if let Some(left) = remaining(shipper).await {
        shipper.status.found(left.0, left.1);
    }
    full && progress
}

async fn remaining(shipper: &Shipper) -> Option<(u64, Duration)> {
    let store = std::sync::Arc::clone(&shipper.store);
    let path = store.root().to_owned();
    let found =
        blocking(move || look(&store).map_err(|source| ShipError::Local { path, source })).await.ok()?;
    let age = found.oldest.and_then(|oldest| oldest.elapsed().ok()).unwrap_or_default();
    Some((found.bytes, age))
}

/// A part that another process began, or whose task could not bring it to its end.
async fn part(shipper: &Shipper, place: Place) -> Result<(), ShipError> {
    let at = place.clone();
    let meta = blocking(move || {
        read_meta(&at.meta()).map_err(|source| ShipError::Local { path: at.meta(), source })
    })
    .await?;
    if meta.end.is_none() {
        return Ok(());
    }
    let ship = PartShip::new(shipper.bucket.clone(), shipper.store.root(), place, &meta)?;
    close(shipper, ship.resume().await?).await
}

/// Ships what is left of a part, and its manifest.
async fn close(shipper: &Shipper, mut ship: PartShip) -> Result<(), ShipError> {
    let place = ship.place().clone();
    let closed = try_close(shipper, &mut ship).await;
    match closed {
        Ok(Some(meta)) => shipper.ask(async || ship.finish(meta).await).await,
        Ok(None) => Ok(()),
        Err(error) => {
            if let ShipError::Local { .. } = &error {
                let (store, at) = (std::sync::Arc::clone(&shipper.store), place.clone());
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
async fn try_close(shipper: &Shipper, ship: &mut PartShip) -> Result<Option<Meta>, ShipError> {
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
    let waits = shipper.status.waits();
    loop {
        // With what was torn: it is in no acknowledgement, and in the file.
        waits.bytes(length.saturating_sub(ship.shipped()));
        let size = shipper.ask(async || ship.segment(length).await).await?;
        shipper.status.succeeded(size);
        if ship.shipped() >= length {
            return Ok(Some(meta));
        }
    }
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

/// Everything that rests on the volume and is not marked as shipped. Blocks.
fn look(store: &crate::store::Store) -> io::Result<Look> {
    let mut found = Look::default();
    let count = |path: &Path, found: &mut Look| {
        let Ok(about) = fs::metadata(path) else { return };
        found.bytes = found.bytes.saturating_add(about.len());
        if let Ok(modified) = about.modified() {
            found.oldest = Some(found.oldest.map_or(modified, |oldest| oldest.min(modified)));
        }
    };
    store.resting(&mut |place| {
        if fs::symlink_metadata(mark::path(&place)).is_err() {
            count(&place.cast(), &mut found);
            if found.parts.len() < FOUND {
                found.parts.push(place);
            }
        }
        ControlFlow::Continue(())
    })?;
    for file in published(store.root()) {
        if mark::of_file(&file).is_some_and(|mark| fs::symlink_metadata(mark).is_err()) {
            count(&file, &mut found);
            if found.events.len() < FOUND {
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
