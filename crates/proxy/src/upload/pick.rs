//! Which recorder takes a recording: in the order of the grants and of the netmap, those that failed lately last.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podwitness_core::{
    control::{Netmap, RecorderPeer},
    grant::{self, AckLevel, Obligation},
    identity::Caller,
    inject::UntilNetmap,
    request_info::RequestInfo,
};
use podwitness_runtime::drain;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    connection::Connections,
    v2::{Upload, UploadError},
};
use crate::{
    Dial,
    enforce::{Recorders, before_netmap},
};

/// How long all attempts before a session may take together.
const START: Duration = Duration::from_secs(30);
/// How long a recorder that failed is left alone, at first and at most.
const FIRST_REST: Duration = Duration::from_secs(1);
const LAST_REST: Duration = Duration::from_secs(30);
/// Cap on failures that are remembered; above it the memory starts afresh.
const MAX_REMEMBERED: usize = 1024;

/// The way to recorders, shared by all recordings of a proxy.
pub(crate) struct Uploads {
    connections: Connections,
    netmap: watch::Receiver<Option<Arc<Netmap>>>,
    assertion: watch::Receiver<Option<Arc<str>>>,
    pub(super) drain: drain::Watch,
    pub(super) health: Health,
}

/// Whom a recording is for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    obligation: Obligation,
    /// The session, where it began before anybody knew the grants.
    unknown: Option<(Caller, RequestInfo)>,
}

/// What was found for a recording that waits.
pub(crate) enum Picked {
    /// A recorder takes it.
    Upload(Upload),
    /// The grants ask for no recording.
    Unwanted,
}

/// What the netmap says to a plan.
enum Found {
    Recorders(Vec<SocketAddr>),
    None(Recorders),
    Unwanted,
}

/// What is remembered of recorders that failed.
#[derive(Default)]
pub(super) struct Health(Mutex<HashMap<SocketAddr, Failure>>);

struct Failure {
    at: Instant,
    rest: Duration,
}

// === impl Plan

impl Plan {
    /// The recorders of an obligation; if it was made before the first netmap, those that the netmap will name for
    /// this request.
    pub(crate) fn new(obligation: Obligation, caller: &Caller, request: &RequestInfo) -> Self {
        let unknown = obligation.grants.is_empty().then(|| (caller.clone(), request.clone()));
        Self { obligation, unknown }
    }

    /// The recorders that the grants name for a request, as soon as they are known.
    pub(crate) fn by_grants(caller: &Caller, request: &RequestInfo) -> Self {
        Self::new(before_netmap(UntilNetmap::Open), caller, request)
    }

    fn find(&self, netmap: Option<&Netmap>) -> Found {
        let Some(netmap) = netmap else { return Found::None(Recorders::Unknown) };
        let evaluated;
        let obligation = match &self.unknown {
            None => &self.obligation,
            Some((caller, request)) => {
                let Some(found) = grant::evaluate(&netmap.grants, caller, request) else {
                    return Found::Unwanted;
                };
                evaluated = found;
                &evaluated
            }
        };
        match resolve(obligation, netmap) {
            found if found.is_empty() => Found::None(Recorders::Unresolvable),
            found => Found::Recorders(found),
        }
    }

    /// The level that acknowledgements must have.
    fn level(&self) -> Option<AckLevel> {
        self.obligation.require_ack.filter(|_| self.obligation.enforce)
    }
}

/// Recorders that satisfy an obligation. Fail closed is satisfied only by those of grants that ask for it.
fn resolve(obligation: &Obligation, netmap: &Netmap) -> Vec<SocketAddr> {
    let level = obligation.require_ack.filter(|_| obligation.enforce);
    let strong = |peer: &RecorderPeer| peer.ack.is_none_or(|ack| level.is_none_or(|level| ack >= level));
    let mut found: Vec<SocketAddr> = Vec::new();
    for choice in obligation.recorders.iter().filter(|choice| choice.enforced || !obligation.enforce) {
        for peer in netmap.recorders.iter().filter(|peer| peer.tags.contains(&choice.tag) && strong(peer)) {
            let address = SocketAddr::from((peer.address, peer.port));
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

// === impl Uploads

impl Uploads {
    pub(crate) fn new(
        dial: Arc<dyn Dial>,
        netmap: watch::Receiver<Option<Arc<Netmap>>>,
        assertion: watch::Receiver<Option<Arc<str>>>,
        drain: drain::Watch,
    ) -> Self {
        let connections = Connections::new(dial, assertion.clone());
        Self { connections, netmap, assertion, drain, health: Health::default() }
    }

    /// What is known of the recorders of a plan without asking any.
    pub(crate) fn known(&self, plan: &Plan) -> Recorders {
        match plan.find(self.netmap.borrow().as_deref()) {
            Found::Recorders(_) => Recorders::Ready,
            Found::None(why) => why,
            Found::Unwanted => Recorders::Unresolvable,
        }
    }

    /// An upload to the first recorder that takes it, or what stands against it.
    pub(crate) async fn connect(&self, plan: &Plan) -> Result<Upload, Recorders> {
        let netmap = self.netmap.borrow().clone();
        let recorders = match plan.find(netmap.as_deref()) {
            Found::Recorders(recorders) => recorders,
            Found::None(why) => return Err(why),
            Found::Unwanted => return Err(Recorders::Unresolvable),
        };
        let deadline = Instant::now() + START;
        let (rested, resting) = self.health.divide(&recorders);
        for recorder in rested.into_iter().chain(resting) {
            if let Ok(Some(upload)) = timeout_at(deadline, self.attempt(recorder, plan)).await {
                return Ok(upload);
            }
        }
        Err(Recorders::Unreachable)
    }

    /// The next upload, as soon as there is a recorder for it.
    pub(crate) async fn next(&self, plan: &Plan) -> Picked {
        let mut netmap = self.netmap.clone();
        loop {
            let current = netmap.borrow_and_update().clone();
            let mut again = None;
            match plan.find(current.as_deref()) {
                Found::Unwanted => return Picked::Unwanted,
                Found::None(_) => {}
                Found::Recorders(recorders) => {
                    for recorder in self.health.divide(&recorders).0 {
                        if let Some(upload) = self.attempt(recorder, plan).await {
                            return Picked::Upload(upload);
                        }
                    }
                    again = self.health.next_attempt(&recorders);
                }
            }
            let rest = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Whoever sends netmaps may be gone for good; then only the rest ends.
                Ok(()) = netmap.changed() => {}
                () = rest => {}
            }
        }
    }

    /// One attempt with one recorder, remembered.
    async fn attempt(&self, recorder: SocketAddr, plan: &Plan) -> Option<Upload> {
        let began = Instant::now();
        match self.open(recorder, plan.level(), began).await {
            Ok(upload) => return Some(upload),
            Err(UploadError::Again) => {}
            Err(error) => {
                self.health.failed(recorder);
                let error = &error as &dyn std::error::Error;
                tracing::info!(%recorder, error, "recorder does not take a recording");
            }
        }
        None
    }

    /// A connection that was there already may have died unnoticed: then once more with a new one.
    async fn open(
        &self,
        recorder: SocketAddr,
        level: Option<AckLevel>,
        began: Instant,
    ) -> Result<Upload, UploadError> {
        loop {
            let hopeless = || self.health.failed_since(recorder, began);
            let (connection, reused) = self.connections.get(recorder, hopeless).await?;
            let assertion = self.assertion.borrow().clone();
            match Upload::open(Arc::clone(&connection), recorder, assertion.as_deref(), level).await {
                Err(error) if error.is_of_connection() => {
                    connection.give_up();
                    if !reused {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }
}

// === impl Health

impl Health {
    /// A recorder failed: it rests, longer each time.
    pub(super) fn failed(&self, recorder: SocketAddr) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_REMEMBERED {
            failures.clear();
        }
        let before = failures.get(&recorder).map(|failure| failure.rest);
        let rest = before.map_or(FIRST_REST, |rest| (rest * 2).min(LAST_REST));
        failures.insert(recorder, Failure { at: Instant::now(), rest });
    }

    /// A recorder acknowledged something: that it failed before is forgotten.
    pub(super) fn recovered(&self, recorder: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&recorder);
    }

    fn failed_since(&self, recorder: SocketAddr, since: Instant) -> bool {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&recorder).is_some_and(|failure| failure.at > since)
    }

    /// Those that may be tried, and those that rest.
    fn divide(&self, recorders: &[SocketAddr]) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        recorders.iter().partition(|recorder| failures.get(recorder).is_none_or(|f| f.at + f.rest <= now))
    }

    /// When the first of them has rested; a little later, so that not everybody comes at once.
    fn next_attempt(&self, recorders: &[SocketAddr]) -> Option<Instant> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rested =
            recorders.iter().map(|r| failures.get(r).map_or_else(Instant::now, |f| f.at + f.rest)).min()?;
        let jitter = RandomState::new().hash_one(()) % 250;
        Some(rested + Duration::from_millis(jitter))
    }
}
