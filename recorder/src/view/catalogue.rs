//! What there is, kept up to date by looking again when asked, at most once a second.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podwitness_runtime::clock::Clock;
use tokio::{runtime::Handle, time::Instant};

use super::{
    cast::Joined,
    scan::{Bounds, Scan},
    session::{Filter, Session, Summary, assemble, pieces},
    shelf::Shelf,
};
use crate::bucket::Bucket;

/// About 50 MB of memory at the usual size of metadata.
const BOUNDS: Bounds = Bounds { parts: 50_000, directories: 50_000 };
/// How long a look is believed.
const FRESH: Duration = Duration::from_secs(1);

/// The catalogue of a store. All calls block; run them where that is allowed.
#[derive(Debug)]
pub struct Catalogue {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State {
    scan: Scan,
    bounds: Bounds,
    shelf: Option<Shelf>,
    looked: Option<Instant>,
    listing: Arc<Listing>,
}

#[derive(Debug, Default)]
struct Listing {
    sessions: Vec<Arc<Session>>,
    by_id: HashMap<String, Arc<Session>>,
    truncated: bool,
}

/// One page of a listing.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) sessions: Vec<Summary>,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<String>,
    /// Whether days are too old to be listed.
    pub(super) truncated: bool,
}

impl Catalogue {
    /// The catalogue of what lies below `root`.
    #[must_use]
    pub fn new(root: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self::bounded(root, clock, BOUNDS)
    }

    pub(super) fn bounded(root: PathBuf, clock: Arc<dyn Clock>, bounds: Bounds) -> Self {
        let scan = Scan::new(root, bounds);
        let state = State { scan, bounds, shelf: None, looked: None, listing: Arc::default() };
        Self { state: Mutex::new(state), clock }
    }

    /// The same with what lies in a bucket, asked within a runtime.
    #[must_use]
    pub fn with_bucket(self, bucket: Bucket) -> Self {
        let shelf = Shelf::new(bucket, Handle::current());
        self.state.lock().unwrap_or_else(PoisonError::into_inner).shelf = Some(shelf);
        self
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
        Ok(Page { sessions, next, truncated: listing.truncated })
    }

    /// The recording with this id, its parts joined.
    pub(super) fn cast(&self, id: &str) -> io::Result<Option<Joined>> {
        let listing = self.listing()?;
        let Some(session) = listing.by_id.get(id) else { return Ok(None) };
        Joined::open(&pieces(session)).map(Some)
    }

    fn listing(&self) -> io::Result<Arc<Listing>> {
        // A panic in a look leaves the last listing in place, which is whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_none_or(|looked| looked.elapsed() > FRESH) {
            let mut look = state.scan.look(self.clock.now_unix_millis())?;
            let bounds = state.bounds;
            if let Some(shelf) = &mut state.shelf {
                let (parts, truncated) = shelf.look(bounds);
                look.parts.extend(parts);
                look.truncated |= truncated;
            }
            let sessions = assemble(look.parts);
            let by_id = sessions.iter().map(|one| (one.summary.id.clone(), Arc::clone(one))).collect();
            state.listing = Arc::new(Listing { sessions, by_id, truncated: look.truncated });
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
