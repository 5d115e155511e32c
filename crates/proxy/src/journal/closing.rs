//! The end of a journal: its last line says what became of the recording, and is written once that is known.
//!
//! It is known at once of a session that was cut, and where something is missing. Any other recording waits for its
//! recorder: acknowledged up to its end in time, it was recorded; else, or where its end goes to the disk because no
//! recorder takes it, it is late. So the line never promises what has not happened.

use std::{net::SocketAddr, time::Duration};

use podwitness_core::outcome::{End, Outcome};
use podwitness_wire::cast::Encoder;

use super::{Journal, Phase, State};

/// How long after the end of a session its acknowledgement is in time. Other people's recorders speak every 5 s.
const IN_TIME: Duration = Duration::from_secs(10);

/// What is known of the journal of a session that is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Closed {
    /// What became of the recording.
    pub(crate) outcome: Outcome,
    /// Bytes of output that are not in it.
    pub(crate) lost: u64,
    /// How many recorders took it so far, one after the other.
    pub(crate) parts: u32,
    /// The last of them.
    pub(crate) recorder: Option<SocketAddr>,
}

impl Journal {
    /// The session has ended, with these last lines of its own.
    pub(crate) fn close(&self, at: Duration, lines: &[u8], end: End) {
        let mut state = self.state();
        state.close(at, lines, end);
        drop(state);
        self.tell_everybody();
    }

    /// What is known once the outcome is, which takes [`IN_TIME`] at most. For sessions that were closed.
    pub(crate) async fn closed(&self) -> Closed {
        // Whether it was decided in time or not, it is decided then.
        let _ = tokio::time::timeout(IN_TIME, self.decided()).await;
        let mut state = self.state();
        state.decide(Outcome::RecordedLate);
        let closed = Closed {
            outcome: state.outcome.unwrap_or(Outcome::RecordedLate),
            lost: state.lost,
            parts: state.parts,
            recorder: state.last_recorder,
        };
        drop(state);
        self.tell_everybody();
        closed
    }

    async fn decided(&self) {
        loop {
            let acked = self.0.acks.notified();
            tokio::pin!(acked);
            acked.as_mut().enable();
            if self.state().outcome.is_some() {
                return;
            }
            acked.await;
        }
    }

    fn tell_everybody(&self) {
        self.0.news.notify_one();
        self.0.acks.notify_waiters();
        self.0.pressure.notify_one();
    }
}

impl State {
    fn close(&mut self, at: Duration, lines: &[u8], end: End) {
        match self.phase {
            Phase::Open => {}
            Phase::Ended => return,
            Phase::Unwanted => return self.outcome = Some(Outcome::Unwanted),
            Phase::Discarded => {
                return self.outcome = Outcome::at_end(end, self.lost).or(Some(Outcome::Gap));
            }
        }
        // A few bytes, whatever the budget: without them nobody knows that this is the end.
        self.settle(at, true);
        self.ended = Some((end, self.window.end()));
        self.window.push(lines, true);
        self.last = at;
        self.phase = Phase::Ended;
        self.closing = Some(at);
        if let Some(outcome) = Outcome::at_end(end, self.lost) {
            self.decide(outcome);
        }
    }

    /// Writes the last line of a session that is over, if it is not there, and tells whether it did.
    pub(super) fn decide(&mut self, outcome: Outcome) -> bool {
        let Some(at) = self.closing.take() else { return false };
        let whole = matches!(outcome, Outcome::Recorded | Outcome::RecordedLate);
        let outcome = if whole && self.lost > 0 { Outcome::Gap } else { outcome };
        self.outcome = Some(outcome);
        let mut line = Vec::new();
        Encoder::close(&mut line, at, outcome.as_str());
        self.window.push(&line, true)
    }

    /// The lines are given up, so that nobody reads the outcome in them.
    pub(super) fn decide_without_lines(&mut self) {
        if self.closing.take().is_some() {
            let unwanted = self.phase == Phase::Unwanted;
            self.outcome = Some(if unwanted { Outcome::Unwanted } else { Outcome::Gap });
        }
    }

    /// Writes the last line where all others are acknowledged, and tells whether it did.
    pub(super) fn decide_if_acked(&mut self) -> bool {
        self.acked == self.appended() && self.decide(Outcome::Recorded)
    }
}
