//! A recorded session: opened before anything goes upstream, relayed frame by frame, closed with its outcome.
//!
//! Invariant: the relay appends to a journal and asks it for room; nothing else in it knows that recorders exist.

mod access;
mod ahead;
mod answer;
mod ledger;
mod meta;
mod pace;
mod pongs;
mod pump;
mod relay;
mod sums;
mod tap;

pub(crate) use answer::answered;
pub(crate) use ledger::{Ledger, Shipped};
pub use meta::SessionMeta;
pub use relay::relay;

use std::sync::Arc;

use podwitness_core::{
    control::{Netmap, Notice},
    failure::Policy,
    grant::Obligation,
    status::Status,
};
use podwitness_runtime::{clock::Clock, drain};
use podwitness_wire::session::Language;
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use ulid::Ulid;

use crate::{
    Dial, ProxyConfig,
    enforce::{self, AtStart},
    journal::{Budget, Budgets, Incidents, Journal, Spooler, Waybill, left_behind},
    notices::Notices,
    upload::{Plan, Shipment, Upload, Uploads},
};
use ledger::Counters;
use meta::Origin;
use tap::Summary;

/// Bytes that a session may always hold, whatever is recorded of it: what both directions may read ahead.
pub(crate) const MEMORY: usize = 2 * ahead::LEAST;
/// Recordings that are open or wait for a recorder. Above it, fail open does not record and fail closed refuses.
const MAX_RECORDINGS: usize = 4096;

/// Opens recordings.
pub struct Sessions {
    config: Arc<ProxyConfig>,
    budgets: Budgets,
    uploads: Arc<Uploads>,
    event_uploads: Arc<Uploads>,
    slots: Arc<Semaphore>,
    netmap: watch::Receiver<Option<Arc<Netmap>>>,
    drain: drain::Watch,
    clock: Arc<dyn Clock>,
    counters: Counters,
}

/// What recordings are connected to.
pub struct SessionWiring {
    /// The newest netmap; `None` until the first one arrived.
    pub netmap: watch::Receiver<Option<Arc<Netmap>>>,
    /// The newest assertion, sent with uploads.
    pub assertion: watch::Receiver<Option<Arc<str>>>,
    /// The way to recorders.
    pub recorders: Arc<dyn Dial>,
    /// Takes what people should know; what it does not take is lost.
    pub notices: mpsc::Sender<Notice>,
    /// Tells when to take nothing new.
    pub drain: drain::Watch,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// An open recording. Dropped without [`relay()`], it is that of a session that never started.
#[must_use]
pub struct Recording(Box<Open>);

struct Open {
    meta: SessionMeta,
    origin: Origin,
    obligation: Obligation,
    journal: Journal,
    budgets: Budgets,
    drain: drain::Watch,
    ledger: Ledger,
    /// Free for the next once this session is over and its recording shipped.
    slot: Option<Arc<OwnedSemaphorePermit>>,
}

impl Sessions {
    /// The recordings of one proxy, and those that an earlier process left in its spool.
    #[must_use]
    pub fn new(config: Arc<ProxyConfig>, wiring: SessionWiring, registry: &mut Registry) -> Self {
        let SessionWiring { netmap, assertion, recorders, notices, drain, clock } = wiring;
        let spool = config.spool.as_ref();
        let budgets = Budgets {
            memory: Budget::new(config.memory),
            disk: Budget::new(spool.map_or(0, |spool| spool.limit)),
            dir: spool.map(|spool| Arc::new(spool.dir.clone())),
            seals: spool.and_then(|spool| spool.seals.clone()),
            incidents: Incidents::new(Notices::new(notices)),
        };
        let uploads = Uploads::new(recorders, netmap.clone(), assertion, drain.clone(), &config.pod.uid);
        let sessions = Self {
            event_uploads: Arc::new(uploads.of_events()),
            uploads: Arc::new(uploads),
            slots: Arc::new(Semaphore::new(MAX_RECORDINGS)),
            counters: Counters::register(registry, &budgets),
            config,
            budgets,
            netmap,
            drain,
            clock,
        };
        sessions.resume();
        sessions
    }

    /// Opens a recording. Under fail closed a recorder is dialled and answers first; under fail open nothing waits.
    ///
    /// # Errors
    /// The refusal, where the policy wants a recorder and none takes the recording.
    pub async fn open(&self, meta: SessionMeta, obligation: Obligation) -> Result<Recording, Status> {
        let plan = Plan::new(obligation.clone(), &meta.caller, &meta.request);
        let policy = enforce::policy(&obligation);
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok().map(Arc::new);
        if slot.is_none() {
            self.budgets.incidents.too_many();
        }
        if slot.is_none() && policy != Policy::Open {
            let status = Status::unavailable("podwitness: too many recordings are open in this pod", 10);
            return Err(self.refused(&meta, &obligation.grants, status));
        }
        let (recorders, first) = match &policy {
            Policy::Open => (self.uploads.known(&plan), None),
            Policy::Closed { .. } => match self.uploads.connect(&plan).await {
                Ok(upload) => (enforce::Recorders::Ready, Some(upload)),
                Err(why) => (why, None),
            },
        };
        match enforce::at_start(&obligation, recorders) {
            AtStart::Record | AtStart::RecordLater => {}
            AtStart::Refuse(status) => return Err(self.refused(&meta, &obligation.grants, status)),
        }
        let recording = self.recording(meta, obligation, Journal::new(policy, &self.budgets), slot);
        self.ship(&recording, plan, first);
        Ok(recording)
    }

    /// Counts a session that is refused because it cannot be recorded, and writes its line.
    pub(crate) fn refused(&self, meta: &SessionMeta, grants: &[String], status: Status) -> Status {
        self.counters.refused();
        access::refused(meta, grants, &status.message);
        status
    }

    fn recording(
        &self,
        meta: SessionMeta,
        obligation: Obligation,
        journal: Journal,
        slot: Option<Arc<OwnedSemaphorePermit>>,
    ) -> Recording {
        let cluster = self.netmap.borrow().as_ref().map(|netmap| netmap.cluster.clone());
        Recording(Box::new(Open {
            origin: Origin {
                pod: self.config.pod.clone(),
                cluster: cluster.unwrap_or_default(),
                started: self.clock.now_unix(),
            },
            ledger: self.counters.ledger(),
            budgets: self.budgets.clone(),
            drain: self.drain.clone(),
            meta,
            obligation,
            journal,
            slot,
        }))
    }

    /// Sets the recording on its way; without a slot it goes nowhere.
    fn ship(&self, Recording(recording): &Recording, plan: Plan, first: Option<Upload>) {
        let Some(slot) = recording.slot.clone() else {
            recording.journal.discard();
            return;
        };
        let (journal, meta) = (&recording.journal, &recording.meta);
        let waybill = Waybill {
            session: meta.id.to_string(),
            caller: meta.caller.clone(),
            request: meta.request.clone(),
            ..Waybill::default()
        };
        if let Some(dir) = self.budgets.dir.as_deref().filter(|_| journal.policy() == Policy::Open) {
            tokio::spawn(Spooler::of(journal.clone(), dir, waybill.clone(), &self.budgets).run());
        }
        self.send(journal.clone(), &waybill, plan, first, slot);
    }

    /// A journal of events for the recorders of an obligation, on its way until it ends.
    pub(crate) fn lane(&self, obligation: &Obligation) -> Journal {
        let journal = Journal::of_events(enforce::policy(obligation), &self.budgets);
        let waybill = Waybill {
            session: Ulid::new().to_string(),
            events: Some(obligation.clone()),
            ..Waybill::default()
        };
        if let Some(dir) = self.budgets.dir.as_deref().filter(|_| journal.policy() == Policy::Open) {
            tokio::spawn(Spooler::of(journal.clone(), dir, waybill.clone(), &self.budgets).run());
        }
        self.send_events(journal.clone(), &waybill, obligation.clone());
        journal
    }

    /// What is known of the recorders of an obligation without asking any.
    pub(crate) fn known(&self, obligation: &Obligation) -> enforce::Recorders {
        self.event_uploads.known(&Plan::known(obligation.clone()))
    }

    /// What goes wrong with recordings and events that wait.
    pub(crate) const fn incidents(&self) -> &Incidents {
        &self.budgets.incidents
    }

    /// Completes when the process is told to end.
    pub(crate) async fn draining(&self) {
        self.drain.draining().await;
    }

    /// Ships what an earlier process had put aside, by the grants of now.
    fn resume(&self) {
        for left in left_behind(&self.budgets, MAX_RECORDINGS) {
            if let Some(obligation) = left.waybill.events.clone() {
                tracing::info!("API events of an earlier process are shipped");
                tokio::spawn(left.spooler.run());
                self.send_events(left.journal, &left.waybill, obligation);
                continue;
            }
            let Some(slot) = Arc::clone(&self.slots).try_acquire_owned().ok().map(Arc::new) else { return };
            let Waybill { session, caller, request, .. } = &left.waybill;
            tracing::info!(session, "a recording of an earlier process is shipped");
            let plan = Plan::by_grants(caller, request);
            tokio::spawn(left.spooler.run());
            self.send(left.journal, &left.waybill, plan, None, slot);
        }
    }

    fn send_events(&self, journal: Journal, waybill: &Waybill, obligation: Obligation) {
        let shipment = Shipment {
            session: waybill.session.clone(),
            journal,
            plan: Plan::known(obligation),
            first_part: 0,
            guard: self.drain.guard(),
            // Events are counted by themselves, not as recordings.
            ledger: Counters::default().ledger(),
        };
        tokio::spawn(shipment.run(Arc::clone(&self.event_uploads), None));
    }

    fn send(
        &self,
        journal: Journal,
        waybill: &Waybill,
        plan: Plan,
        first: Option<Upload>,
        slot: Arc<OwnedSemaphorePermit>,
    ) {
        let shipment = Shipment {
            session: waybill.session.clone(),
            journal,
            plan,
            first_part: u32::from(waybill.process) << 16,
            guard: self.drain.guard(),
            ledger: self.counters.ledger(),
        };
        let uploads = Arc::clone(&self.uploads);
        tokio::spawn(async move {
            shipment.run(uploads, first).await;
            drop(slot);
        });
    }
}

impl Recording {
    /// The same as [`Sessions::refused`], where the API server had agreed to the session already.
    pub(crate) fn refused(self, status: Status) -> Status {
        let open = &self.0;
        open.ledger.refused();
        access::refused(&open.meta, &open.obligation.grants, &status.message);
        status
    }
}

impl Open {
    /// Waits until it is known what became of the recording of a session that is over, and says so.
    async fn settle(&self, language: Option<Language>, summary: &Summary) {
        self.ledger.ended();
        let closed = self.journal.closed().await;
        access::closed(self, language, summary, &closed);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.0.journal.end();
    }
}
