//! The journal of a session: its recording as event lines, append-only, from the relay to whichever recorder.
//!
//! `relay --event lines--> journal --> upload`. Cursors: `acked <= sent <= appended`; `sent` is the uploader's own.
//! What is not acknowledged is kept, so that uploading is always the same: read from `acked` on. It lies in the spool
//! first and in memory behind that: `acked <= spool.end == window.start <= appended`.
//!
//! When full, the policy decides. Under fail open the oldest lines go to the spool, as do all lines that no recorder
//! takes, and, when that is full too, new lines are left out and counted in a gap line. A session that is faster than
//! the disk waits for it in [`Journal::room`] as long as it takes lines. Under fail closed nothing is left out and
//! nothing spooled: the relay waits for recorders there, and a journal holds no more than the grant's lead and what one
//! frame becomes.

mod budget;
mod closing;
mod cursor;
mod events;
mod incidents;
mod lead;
mod rewrites;
mod room;
mod spool;
mod window;

pub use budget::{Budget, Budgets};
pub(crate) use closing::Closed;
pub(crate) use cursor::Next;
pub use incidents::Incidents;
pub use spool::{SealError, Seals};
pub(crate) use spool::{Spooler, Waybill, left_behind};

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use podwitness_core::{
    failure::Policy,
    grant::AckLevel,
    outcome::{End, Outcome},
};
use podwitness_wire::cast::{Encoder, Header};
use tokio::{sync::Notify, time::Instant};

pub(crate) use budget::BudgetShare;
use lead::Ages;
use rewrites::Rewrites;
use spool::Spool;
use window::Window;

/// Bytes of one journal that stay in memory before the spool takes the oldest: what a flood says while its recorder
/// commits, several times over, because a detour over the disk costs more than all else that is done with a line.
const MEMORY: u64 = 4 << 20;
/// One session's journal; all clones are the same.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// For the one uploader: lines came, or the journal ended.
    news: Notify,
    /// For the relay: lines were acknowledged, or the spool has taken some or takes none.
    acks: Notify,
    /// For the one spooler: memory is to be relieved, or the journal is gone.
    pressure: Notify,
    incidents: Incidents,
}

struct State {
    policy: Policy,
    header: Option<Arc<Header>>,
    phase: Phase,
    /// When the session ended, while its outcome is not known.
    closing: Option<Duration>,
    /// How it ended, and the place of the lines that say so.
    ended: Option<(End, u64)>,
    /// What became of the recording of a session that is over.
    outcome: Option<Outcome>,
    /// Time of the last line.
    last: Duration,
    acked: u64,
    spool: Spool,
    window: Window,
    rewrites: Rewrites,
    /// Time of the last line that was read back from the spool.
    read_back: Duration,
    /// Whether lines are API events.
    events: bool,
    /// Whether it was said that something is left out for want of room.
    full: bool,
    ages: Ages,
    /// Bytes of output left out since the last line.
    missed: u64,
    /// Bytes of output left out in all.
    lost: u64,
    /// What the recorder that takes this journal announces; `None` while none does.
    recorder: Option<Option<AckLevel>>,
    /// Since when none does.
    alone_since: Instant,
    /// The same of the last one.
    level: Option<AckLevel>,
    last_recorder: Option<SocketAddr>,
    /// How many have taken it.
    parts: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Lines may come.
    Open,
    /// All lines have come.
    Ended,
    /// The lines are given up; what is shown from here on is lost.
    Discarded,
    /// Nobody asks for the lines, and nothing is lost with them.
    Unwanted,
}

impl Phase {
    const fn is_over(self) -> bool {
        matches!(self, Self::Discarded | Self::Unwanted)
    }
}

// === impl Journal: for the relay

impl Journal {
    /// An empty journal.
    #[must_use]
    pub fn new(policy: Policy, budgets: &Budgets) -> Self {
        let spools = budgets.dir.is_some() && policy == Policy::Open;
        let state = State {
            policy,
            header: None,
            phase: Phase::Open,
            closing: None,
            ended: None,
            outcome: None,
            last: Duration::ZERO,
            acked: 0,
            spool: Spool::new(spools, BudgetShare::of(&budgets.disk)),
            window: Window::new(BudgetShare::of(&budgets.memory)),
            rewrites: Rewrites::default(),
            read_back: Duration::ZERO,
            events: false,
            full: false,
            ages: Ages::default(),
            missed: 0,
            lost: 0,
            recorder: None,
            alone_since: Instant::now(),
            level: None,
            last_recorder: None,
            parts: 0,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            news: Notify::new(),
            acks: Notify::new(),
            pressure: Notify::new(),
            incidents: budgets.incidents.clone(),
        }))
    }

    /// The policy under which the session is recorded.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.state().policy.clone()
    }

    /// From here on the session is held to a policy, if that asks for more than the one before; false where the
    /// session is over.
    pub(crate) fn tighten(&self, policy: Policy) -> bool {
        let mut state = self.state();
        if state.phase != Phase::Open {
            return false;
        }
        if state.policy == Policy::Open && policy != Policy::Open {
            state.policy = policy;
            // What lies there is read from there; no more is put aside.
            state.spool.stop();
        }
        drop(state);
        self.0.pressure.notify_one();
        true
    }

    /// States the header; before it nothing is uploaded.
    pub fn begin(&self, header: Header) {
        self.state().header = Some(Arc::new(header));
        self.0.news.notify_one();
    }

    /// Appends whole lines that record so many bytes of output. Never waits. The uploader learns of them by
    /// [`Journal::tell`].
    pub fn append(&self, at: Duration, lines: &[u8], output: u64) {
        let mut state = self.state();
        match state.phase {
            Phase::Open => {}
            Phase::Unwanted => return,
            Phase::Ended | Phase::Discarded => return state.miss(output),
        }
        state.last = at;
        let kept = state.append(at, lines);
        if !kept {
            state.miss(output);
        }
        let pressed = state.is_pressed(Instant::now());
        let full = !kept && state.is_newly_full();
        drop(state);
        if full {
            self.0.incidents.full();
        }
        if pressed {
            self.0.pressure.notify_one();
        }
    }

    /// Lets the uploader know of what was appended. Apart, because waking it costs more than most lines do.
    pub fn tell(&self) {
        self.0.news.notify_one();
    }

    /// Counts output that was shown and cannot be recorded.
    pub fn miss(&self, output: u64) {
        self.state().miss(output);
    }

    /// No line comes any more. A journal that was never begun is that of a session that never started.
    pub fn end(&self) {
        let mut state = self.state();
        if state.header.is_none() {
            drop(state);
            self.unwanted();
            return;
        }
        if state.phase == Phase::Open {
            let last = state.last;
            state.settle(last, true);
            state.phase = Phase::Ended;
        }
        drop(state);
        self.0.news.notify_one();
        self.0.pressure.notify_one();
    }

    /// Gives up what no recorder has taken. Gives the bytes of those lines.
    pub fn discard(&self) -> u64 {
        self.throw_away(Phase::Discarded)
    }

    /// Nobody asks for this recording.
    pub fn unwanted(&self) {
        self.throw_away(Phase::Unwanted);
    }

    fn throw_away(&self, phase: Phase) -> u64 {
        let mut state = self.state();
        let appended = state.appended();
        let left = appended - state.acked;
        if !state.phase.is_over() {
            state.phase = phase;
        }
        state.decide_without_lines();
        state.ack(appended);
        drop(state);
        self.0.news.notify_one();
        self.0.acks.notify_waiters();
        self.0.pressure.notify_one();
        left
    }

    /// Bytes of output that were shown and are not recorded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.state().lost
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State

impl State {
    const fn appended(&self) -> u64 {
        self.window.end()
    }

    /// Bytes of lines that nobody has acknowledged. Lines that were given up never are.
    fn ahead(&self) -> u64 {
        if self.phase == Phase::Discarded { u64::MAX } else { self.appended() - self.acked }
    }

    /// Whether the lines were kept. Under fail closed they always are: the relay waits for them.
    fn append(&mut self, at: Duration, lines: &[u8]) -> bool {
        let whatever = self.policy != Policy::Open;
        if !self.settle(at, whatever) || !self.window.push(lines, whatever) {
            return false;
        }
        self.ages.note(self.window.end() - lines.len() as u64, Instant::now());
        true
    }

    /// Writes the gap line that is due, and tells whether none is due any more.
    fn settle(&mut self, at: Duration, whatever: bool) -> bool {
        if self.missed == 0 {
            return true;
        }
        let mut line = Vec::new();
        Encoder::gap(&mut line, at, self.missed);
        let kept = self.window.push(&line, whatever);
        if kept {
            self.missed = 0;
        }
        kept
    }

    /// Whether this is the first time that there is no room.
    const fn is_newly_full(&mut self) -> bool {
        !std::mem::replace(&mut self.full, true)
    }

    const fn miss(&mut self, output: u64) {
        self.missed = self.missed.saturating_add(output);
        self.lost = self.lost.saturating_add(output);
    }

    /// Whether the spooler should relieve memory: this journal holds much, or all together do, or no recorder takes
    /// what it holds.
    fn is_pressed(&self, now: Instant) -> bool {
        let len = self.window.len();
        let alone = || self.alone_at().is_some_and(|alone| alone <= now);
        let is_full = || self.window.is_short() || !self.window.has_room();
        self.spool.is_usable() && len > 0 && (len > MEMORY || is_full() || alone())
    }

    /// When lines without a recorder go to the disk.
    fn alone_at(&self) -> Option<Instant> {
        (self.recorder.is_none() && self.spool.is_usable()).then(|| self.alone_since + spool::ALONE)
    }

    fn ack(&mut self, to: u64) {
        self.acked = self.acked.max(to.min(self.appended()));
        self.spool.release(self.acked);
        self.window.release(self.acked);
        self.ages.release(self.acked, self.appended());
    }

    /// Whether nothing will come behind what there is.
    fn is_written(&self) -> bool {
        self.phase == Phase::Ended && self.closing.is_none()
    }

    /// Whether nothing is left to be uploaded.
    fn is_done(&self) -> bool {
        self.phase.is_over() || (self.is_written() && self.acked == self.appended())
    }
}

#[cfg(test)]
mod tests;
