//! Journals of events, one for each set of recorders that may take them and each policy.
//!
//! A lane is opened by its first event and ends when none has come for [`IDLE`]; while the process drains, sooner. At
//! most [`MAX_LANES`] are open: above it, events find no room.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podwitness_core::grant::{AckLevel, Obligation, RecorderChoice};
use tokio::{runtime::Handle, time::sleep};

use crate::{enforce::Recorders, journal::Journal, session::Sessions};

const MAX_LANES: usize = 64;
/// How long a lane lasts without events.
const IDLE: Duration = Duration::from_secs(60);
/// The same while the process drains.
const IDLE_AT_THE_END: Duration = Duration::from_millis(500);

/// All lanes.
#[derive(Clone)]
pub(super) struct Lanes(Arc<Shared>);

struct Shared {
    sessions: Arc<Sessions>,
    open: Mutex<HashMap<Key, Lane>>,
}

/// What lanes are told apart by.
#[derive(Clone, Eq, Hash, PartialEq)]
struct Key {
    recorders: Vec<RecorderChoice>,
    enforce: bool,
    level: Option<AckLevel>,
    lead: u64,
}

struct Lane {
    journal: Journal,
    /// It was used since the last look.
    used: bool,
}

/// Where an event stands on its way.
pub(super) struct Standing {
    journal: Journal,
    place: u64,
    /// What is known of its recorders without asking any.
    known: Recorders,
}

impl Standing {
    /// Waits until the event is acknowledged, or tells what stands against it.
    pub(super) async fn recorded(self) -> Recorders {
        if self.known != Recorders::Ready {
            return self.known;
        }
        self.journal.acked_to(self.place).await
    }
}

impl Lanes {
    pub(super) fn new(sessions: Arc<Sessions>) -> Self {
        Self(Arc::new(Shared { sessions, open: Mutex::default() }))
    }

    /// Puts an event on its lane. `None` where there is no room.
    pub(super) fn put(&self, obligation: &Obligation, line: &[u8]) -> Option<Standing> {
        let key = Key {
            recorders: obligation.recorders.clone(),
            enforce: obligation.enforce,
            level: obligation.require_ack,
            lead: obligation.lead,
        };
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.contains_key(&key) {
            // A witness may be dropped with the runtime itself: then nobody could carry what it says.
            if open.len() >= MAX_LANES || Handle::try_current().is_err() {
                return None;
            }
            let journal = self.0.sessions.lane(obligation);
            open.insert(key.clone(), Lane { journal, used: true });
            tokio::spawn(self.clone().rest(key.clone()));
        }
        let lane = open.get_mut(&key)?;
        lane.used = true;
        let journal = lane.journal.clone();
        let place = journal.offer(line);
        drop(open);
        Some(Standing { place: place?, journal, known: self.0.sessions.known(obligation) })
    }

    /// Ends a lane that is not used any more.
    async fn rest(self, key: Key) {
        loop {
            tokio::select! {
                () = sleep(IDLE) => {}
                () = self.0.sessions.draining() => sleep(IDLE_AT_THE_END).await,
            }
            let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(lane) = open.get_mut(&key) else { return };
            if !std::mem::take(&mut lane.used) {
                lane.journal.end();
                open.remove(&key);
                return;
            }
        }
    }
}
