//! What there is, kept up to date by looking again when asked, at most once a second.

use std::{
    collections::HashMap,
    io,
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podwitness_runtime::clock::Clock;
use tokio::time::Instant;

use super::{
    bucket_index::{BucketIndex, BucketSnapshot, BucketStatus},
    cast::Joined,
    scan::{self, Bounds, Scan},
    session::{Filter, Session, Summary, assemble, pieces},
};
use crate::{
    bucket::Bucket,
    store::{
        layout::PartName,
        walk::{Place, walk},
    },
};

/// Parts that are listed. About 50 MB of memory at the usual size of metadata.
pub(super) const MAX_LISTED: usize = 50_000;
const BOUNDS: Bounds = Bounds { parts: MAX_LISTED, directories: 50_000 };
/// How long a look is believed.
const FRESH: Duration = Duration::from_secs(1);

/// The catalogue of a store. All calls block; run them where that is allowed.
#[derive(Debug)]
pub struct Catalogue {
    root: PathBuf,
    bounds: Bounds,
    state: Mutex<State>,
    bucket: Option<BucketIndex>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State {
    scan: Scan,
    looked: Option<Instant>,
    listing: Arc<Listing>,
}

#[derive(Debug, Default)]
struct Listing {
    sessions: Vec<Arc<Session>>,
    by_id: HashMap<String, Arc<Session>>,
    truncated: bool,
    bucket: Option<Arc<BucketSnapshot>>,
}

/// One page of a listing.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) sessions: Vec<Summary>,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<String>,
    /// Whether days are too old to be listed.
    pub(super) truncated: bool,
    /// How far it has what is in the bucket, where there is one.
    pub(super) bucket: Option<BucketStatus>,
}

/// What has an id.
#[derive(Debug)]
pub(super) enum Lookup {
    /// One recording, its parts joined.
    Found(Joined),
    /// Recordings of several senders, by their ids in this API, in order.
    Several(Vec<String>),
    /// Nothing.
    Unknown,
    /// Nothing on the volume, and the bucket cannot be asked for this reason.
    Unread(String),
}

impl Catalogue {
    /// The catalogue of what lies below `root`.
    #[must_use]
    pub fn new(root: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self::bounded(root, clock, BOUNDS)
    }

    pub(super) fn bounded(root: PathBuf, clock: Arc<dyn Clock>, bounds: Bounds) -> Self {
        let scan = Scan::new(root.clone(), bounds);
        let state = State { scan, looked: None, listing: Arc::default() };
        Self { root, bounds, state: Mutex::new(state), bucket: None, clock }
    }

    /// The same with what lies in a bucket, which is read in the background from now on. Needs a runtime.
    #[must_use]
    pub fn with_bucket(self, bucket: Bucket) -> Self {
        let index = BucketIndex::start(bucket, self.bounds, Arc::clone(&self.clock));
        Self { bucket: Some(index), ..self }
    }

    /// At most `limit` sessions that match, newest first, behind the session with the id `after`. An `after` that is
    /// gone begins anew.
    pub(super) fn page(&self, filter: &Filter, after: Option<&str>, limit: usize) -> io::Result<Page> {
        let listing = self.listing()?;
        let begin = after.and_then(|after| listing.sessions.iter().position(|one| one.summary.id == after));
        let rest = listing.sessions.iter().skip(begin.map_or(0, |at| at.saturating_add(1)));
        let mut matching = rest.filter(|session| filter.matches(&session.summary));
        let sessions: Vec<_> = matching.by_ref().take(limit).map(|session| with_size(session)).collect();
        let next = matching.next().and_then(|_| sessions.last()).map(|last| last.id.clone());
        let bucket = listing.bucket.as_ref().map(|bucket| bucket.status());
        Ok(Page { sessions, next, truncated: listing.truncated, bucket })
    }

    /// The recording with this id of the API, or of the session with this id as its sender and its events have it; also
    /// one that is too old to be listed.
    pub(super) fn cast(&self, id: &str) -> io::Result<Lookup> {
        let listing = self.listing()?;
        if let Some(session) = listing.by_id.get(id) {
            return Joined::open(&pieces(session)).map(Lookup::Found);
        }
        let listed = listing.sessions.iter().filter(|one| one.summary.session == id);
        let mut found: Vec<_> = listed.map(Arc::clone).collect();
        if found.is_empty() {
            match self.find(id, &listing)? {
                Ok(older) => found = older,
                Err(error) => return Ok(Lookup::Unread(error.to_string())),
            }
        }
        match found.as_slice() {
            [] => Ok(Lookup::Unknown),
            [one] => Joined::open(&pieces(one)).map(Lookup::Found),
            several => Ok(Lookup::Several(several.iter().map(|one| one.summary.id.clone()).collect())),
        }
    }

    /// Sessions with this id that the listing leaves out, because they are too old or not read yet; or why the bucket,
    /// which alone may have them, cannot be asked.
    fn find(&self, id: &str, listing: &Listing) -> io::Result<io::Result<Vec<Arc<Session>>>> {
        let name = id.split_once('.').map_or(id, |(name, _)| name);
        if PartName::new(name, 0).is_none() {
            return Ok(Ok(Vec::new()));
        }
        let mut parts = Vec::new();
        if listing.truncated {
            let mut visit = |place: Place| {
                if place.name.session() == name {
                    parts.push(Arc::new(scan::found(&place)));
                }
                ControlFlow::Continue(())
            };
            match walk(&self.root, &mut visit) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let unread = listing.truncated || listing.bucket.as_ref().is_some_and(|bucket| bucket.status().stale);
        // What was shipped and left the volume since the last pass is in neither.
        if let Some(bucket) = &self.bucket {
            match bucket.find(name, unread, self.bounds) {
                Ok(found) => parts.extend(found),
                Err(error) if parts.is_empty() => return Ok(Err(error)),
                Err(error) => {
                    tracing::warn!(%error, "the bucket cannot be read; what the volume has is shown");
                }
            }
        }
        let mut sessions = assemble(parts);
        sessions.retain(|one| one.summary.id == id || one.summary.session == id);
        Ok(Ok(sessions))
    }

    fn listing(&self) -> io::Result<Arc<Listing>> {
        // A panic in a look leaves the last listing in place, which is whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = self.bucket.as_ref().map(BucketIndex::snapshot);
        let is_known = match (&bucket, &state.listing.bucket) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (now, before) => now.is_none() && before.is_none(),
        };
        if !is_known || state.looked.is_none_or(|looked| looked.elapsed() > FRESH) {
            let mut look = state.scan.look(self.clock.now_unix_millis())?;
            if let Some(bucket) = &bucket {
                look.parts.extend(bucket.parts.iter().map(Arc::clone));
                look.truncated |= bucket.truncated;
            }
            let sessions = assemble(look.parts);
            let by_id = sessions.iter().map(|one| (one.summary.id.clone(), Arc::clone(one))).collect();
            state.listing = Arc::new(Listing { sessions, by_id, truncated: look.truncated, bucket });
            state.looked = Some(Instant::now());
        }
        Ok(Arc::clone(&state.listing))
    }
}

/// Sizes are asked for when they are listed, because files that are written grow without a word.
fn with_size(session: &Session) -> Summary {
    let size = session.parts.iter().map(|part| part.source.length()).sum();
    Summary { size, ..session.summary.clone() }
}

#[cfg(test)]
mod tests;
