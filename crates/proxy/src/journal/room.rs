//! When what was appended to a journal may be shown: at once, or after waiting for recorders or for the spool.

use std::time::Duration;

use podwitness_core::{
    failure::{MAX_PAUSE, Policy},
    status::Status,
};
use tokio::time::Instant;

use super::{Journal, Phase, State};
use crate::enforce::{self, InSession, Recorders};

/// How long a session waits under fail open for a disk that takes nothing.
const DISK_PATIENCE: Duration = Duration::from_secs(5);

impl Journal {
    /// Waits until what was appended may be shown. Under fail open that is at once, or once memory has room again for
    /// what comes next, where the spool is making it.
    ///
    /// # Errors
    /// The reason to end the session, where a pause has lasted too long.
    pub async fn room(&self) -> Result<(), Status> {
        let mut paused: Option<Instant> = None;
        loop {
            let acked = self.0.acks.notified();
            tokio::pin!(acked);
            acked.as_mut().enable();
            let now = Instant::now();
            match self.verdict(now, paused) {
                InSession::Relay => return Ok(()),
                InSession::End(status) => return Err(status),
                InSession::Wait => {}
            }
            let since = *paused.get_or_insert(now);
            let limit = if self.state().policy == Policy::Open { DISK_PATIENCE } else { MAX_PAUSE };
            let _ = tokio::time::timeout_at(since + limit + Duration::from_millis(1), acked).await;
        }
    }

    /// Whether what was appended may not be shown yet.
    pub(crate) fn holds_back(&self) -> bool {
        self.verdict(Instant::now(), None) == InSession::Wait
    }

    fn verdict(&self, now: Instant, paused: Option<Instant>) -> InSession {
        let mut state = self.state();
        if state.waits_for_disk(now, paused) {
            return InSession::Wait;
        }
        let recorders = if state.recorder.is_some() { Recorders::Ready } else { Recorders::Unreachable };
        let lead = state.ages.lead(state.ahead(), now, paused, state.level);
        enforce::in_session(&state.policy, lead, recorders)
    }
}

impl State {
    /// Whether a session under fail open that is paused since then waits for its spool: what comes next would be left
    /// out, although the disk has room.
    fn waits_for_disk(&mut self, now: Instant, paused: Option<Instant>) -> bool {
        let waits = self.policy == Policy::Open
            && self.phase == Phase::Open
            && self.header.is_some()
            && self.window.len() > 0
            && !self.window.has_room()
            && self.spool.takes_lines();
        if waits && paused.is_some_and(|since| now.duration_since(since) > DISK_PATIENCE) {
            self.spool.give_up_waiting();
            return false;
        }
        waits
    }
}
