//! Removes from the volume what is in the bucket: after the time it is to be kept, or sooner where space is short, and
//! only once the bucket has been asked whether everything of it is there.

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use podwitness_core::control::Taking;

use super::{
    ShipError, Shipper, backlog,
    layout::MANIFEST,
    manifest::{MAX_MANIFEST, Manifest},
    part::blocking,
};
use crate::store::{Store, layout::Hour, mark, walk::Place};

/// Files that are removed in one pass; the next pass goes on.
const AT_ONCE: usize = 1024;
/// Cap on the objects of a part that are listed.
const OBJECTS: usize = 1 << 20;

/// How long files stay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep(Option<Duration>);

/// What may go.
enum Old {
    Part(Place, String),
    Events(PathBuf),
}

impl Keep {
    pub(super) const fn new(keep: Option<Duration>) -> Self {
        Self(keep)
    }

    /// How old the mark of a file has to be. Where space is short any is old enough, unless files stay for ever.
    fn least(self, state: Taking) -> Option<Duration> {
        self.0.map(|keep| if state == Taking::Accepting { keep } else { Duration::ZERO })
    }
}

/// One pass.
pub(super) async fn retire(shipper: &Shipper, keep: Keep) {
    let store = std::sync::Arc::clone(&shipper.store);
    let path = store.root().to_owned();
    let old = blocking(move || find(&store, keep).map_err(|source| ShipError::Local { path, source })).await;
    for old in old.unwrap_or_default() {
        let state = shipper.store.space().state();
        let removed = match old {
            Old::Part(place, key) => part(shipper, place, &key).await,
            Old::Events(file) => events(shipper, file).await,
        };
        match removed {
            Ok(()) => {
                shipper.store.space().freed();
                tracing::debug!(state = state.as_str(), "a file left the volume");
            }
            // Asked again in the next pass. A bucket that is away keeps everything here.
            Err(error) => {
                tracing::warn!(%error, "a file stays on the volume");
                if matches!(&error, ShipError::Bucket(error) if error.class() != crate::bucket::Class::Conflict)
                {
                    return;
                }
            }
        }
    }
}

fn find(store: &Store, keep: Keep) -> io::Result<Vec<Old>> {
    let mut found = Vec::new();
    let Some(least) = keep.least(store.space().state()) else { return Ok(found) };
    let old = |mark: &Path| age(mark).is_some_and(|age| age >= least);
    store.resting(&mut |place| {
        if old(&mark::path(&place))
            && let Some(key) = mark::read(&place)
        {
            found.push(Old::Part(place, key));
        }
        if found.len() < AT_ONCE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let events = backlog::published(store.root()).into_iter();
    let events = events.filter(|file| mark::of_file(file).is_some_and(|mark| old(&mark)));
    found.extend(events.take(AT_ONCE).map(Old::Events));
    Ok(found)
}

fn age(path: &Path) -> Option<Duration> {
    fs::symlink_metadata(path).ok()?.modified().ok()?.elapsed().ok()
}

/// Removes a part if the bucket has all of it: a manifest, every object it names, as large as it says, and as many bytes
/// as there are here.
async fn part(shipper: &Shipper, place: Place, key: &str) -> Result<(), ShipError> {
    let missing = || ShipError::from(crate::bucket::BucketError::conflict(key));
    let manifest = shipper
        .ask(async || Ok(shipper.bucket.get(&format!("{key}/{MANIFEST}"), MAX_MANIFEST).await?))
        .await?
        .ok_or_else(missing)?;
    let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|_| missing())?;
    let objects = shipper.ask(async || Ok(shipper.bucket.list(key, None, OBJECTS).await?)).await?;
    let sizes: std::collections::HashMap<&str, u64> =
        objects.iter().filter_map(|object| Some((object.key.rsplit_once('/')?.1, object.size))).collect();
    if manifest.segments.iter().any(|entry| sizes.get(entry.name.as_str()) != Some(&entry.stored)) {
        return Err(missing());
    }
    let root = shipper.store.root().to_owned();
    blocking(move || {
        let failed = |source| ShipError::Local { path: place.cast(), source };
        if fs::metadata(place.cast()).map_err(failed)?.len() != manifest.bytes {
            return Err(failed(io::ErrorKind::InvalidData.into()));
        }
        // Whoever finds no recording does not ask for the rest.
        for path in [place.cast(), place.meta(), mark::path(&place)] {
            fs::remove_file(&path).map_err(failed)?;
        }
        // Left where a process died between its last two steps.
        let _ = fs::remove_file(mark::notes(&place));
        remove_empty(&root, &place.directory);
        Ok(())
    })
    .await
}

async fn events(shipper: &Shipper, file: PathBuf) -> Result<(), ShipError> {
    let failed = |source| ShipError::Local { path: file.clone(), source };
    let below = file.strip_prefix(shipper.store.root()).map_err(|error| failed(io::Error::other(error)))?;
    let key: Vec<_> = below.iter().map(|name| name.to_string_lossy()).collect();
    let key = key.join("/");
    let there = shipper.ask(async || Ok(shipper.bucket.size(&key).await?)).await?;
    let here = tokio::fs::metadata(&file).await.map_err(failed)?.len();
    if there != Some(here) {
        return Err(crate::bucket::BucketError::conflict(&key).into());
    }
    let mark = mark::of_file(&file).unwrap_or_default();
    tokio::fs::remove_file(&file).await.map_err(failed)?;
    tokio::fs::remove_file(&mark).await.map_err(|source| ShipError::Local { path: mark, source })
}

/// Removes directories that hold nothing any more, of days that nothing is created under.
fn remove_empty(root: &Path, directory: &Path) {
    let now =
        SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let Ok(below) = directory.strip_prefix(root) else { return };
    let day: Vec<_> = below.iter().take(3).map(|name| name.to_string_lossy()).collect();
    let date = format!("date={}", day.join("-"));
    if [now, now.saturating_sub(86_400)].iter().any(|now| Hour::of(*now).partition().contains(&date)) {
        return;
    }
    for directory in directory.ancestors().take_while(|path| *path != root) {
        // Not empty: whatever lies there stays.
        if fs::remove_dir(directory).is_err() {
            return;
        }
    }
}
