//! The journal's end for the one uploader: what there is to send, and what became of it. It counts in positions
//! ([`rewrites`](super::rewrites)).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use podwitness_core::{grant::AckLevel, outcome::Outcome};
use podwitness_wire::cast::{Encoder, Header};
use tokio::time::Instant;

use super::{
    Journal, State,
    rewrites::Spot,
    spool::{Place, Read},
};

/// What an uploader finds behind its cursor.
#[derive(Debug)]
pub(crate) enum Next {
    /// Whole lines.
    Lines(Bytes),
    /// Nothing, and nothing will come.
    End,
    /// The journal was discarded.
    Discarded,
}

/// What is found at a position.
enum Found {
    /// That.
    Next(Next),
    /// It lies in the spool, at that place of the journal.
    Spooled(u64, Place),
    /// It is missing in the spool, between these places, in the recording of that name.
    Missing(u64, u64, String),
    /// Nothing yet.
    Nothing,
    /// Something else than a moment before.
    Again,
}

impl Journal {
    /// The header, once it is known; `None` where the journal is discarded first.
    pub(crate) async fn begun(&self) -> Option<Arc<Header>> {
        loop {
            {
                let state = self.state();
                if state.phase.is_over() {
                    return None;
                }
                if let Some(header) = &state.header {
                    return Some(Arc::clone(header));
                }
            }
            self.0.news.notified().await;
        }
    }

    /// What stands behind the position `from`, once there is anything.
    ///
    /// # Errors
    /// Where the spool cannot be read back.
    pub(crate) async fn next(&self, from: u64) -> io::Result<Next> {
        loop {
            let found = self.state().look(from);
            let (place, read) = match found {
                Found::Next(next) => return Ok(next),
                Found::Again => continue,
                Found::Missing(place, to, session) => (place, Read::Tampered(to, session)),
                Found::Spooled(place, lines) => (place, lines.read().await?),
                Found::Nothing => {
                    self.0.news.notified().await;
                    continue;
                }
            };
            match read {
                Read::Lines(lines) => {
                    if let Some(lines) = self.state().read_back(place, lines) {
                        return Ok(Next::Lines(lines));
                    }
                }
                Read::Tampered(to, session) => {
                    self.0.incidents.tampered(&session, to - place);
                    self.state().tampered(place, to);
                }
            }
        }
    }

    /// The position before which everything is acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        let state = self.state();
        state.rewrites.position(state.acked)
    }

    /// A recorder has acknowledged everything before the position `to`.
    pub(crate) fn ack(&self, to: u64) {
        let mut state = self.state();
        let place = state.rewrites.place(to);
        state.ack(place);
        let written = state.decide_if_acked();
        let work = state.is_done() || state.spool.has_released();
        drop(state);
        self.0.acks.notify_waiters();
        if written {
            self.0.news.notify_one();
        }
        if work {
            self.0.pressure.notify_one();
        }
    }

    /// A recorder takes this journal from here on, and announces that level.
    pub(crate) fn taken_by(&self, recorder: SocketAddr, level: Option<AckLevel>) {
        let mut state = self.state();
        state.recorder = Some(level);
        state.level = level;
        state.last_recorder = Some(recorder);
        state.parts = state.parts.saturating_add(1);
        drop(state);
        self.0.acks.notify_waiters();
        self.0.pressure.notify_one();
    }

    /// No recorder takes this journal any more.
    pub(crate) fn left_alone(&self) {
        let mut state = self.state();
        state.recorder = None;
        state.alone_since = Instant::now();
        drop(state);
        self.0.acks.notify_waiters();
        self.0.pressure.notify_one();
    }
}

impl State {
    fn look(&mut self, from: u64) -> Found {
        if self.phase.is_over() {
            return Found::Next(Next::Discarded);
        }
        let place = match self.rewrites.at(from) {
            Spot::Text(text, _) => return Found::Next(Next::Lines(text)),
            Spot::Place(place) => place,
        };
        if let Some(lines) = self.spool.find(place) {
            return Found::Spooled(place, lines);
        }
        let window = self.window.start();
        if place < window {
            // The next process did not find what the last one had written there.
            let to = self.spool.after(place).map_or(window, |next| next.min(window));
            return Found::Missing(place, to, self.spool.name.clone());
        }
        match self.window.read(place) {
            Some(lines) => {
                self.amended(place, lines).map_or(Found::Again, |lines| Found::Next(Next::Lines(lines)))
            }
            None if self.is_written() => Found::Next(Next::End),
            None => Found::Nothing,
        }
    }

    /// Lines were read from the spool.
    fn read_back(&mut self, place: u64, lines: Bytes) -> Option<Bytes> {
        if !self.events
            && let Some(at) = time_of_last(&lines)
        {
            self.read_back = at;
        }
        self.amended(place, lines)
    }

    /// Puts a gap in place of what stands between two places. Nothing can stand in the place of API events.
    fn tampered(&mut self, from: u64, to: u64) {
        self.lost = self.lost.saturating_add(to - from);
        let mut text = Vec::new();
        if !self.events {
            Encoder::tampered(&mut text, self.read_back, to - from);
            self.end_again(&mut text, from, to);
        }
        let nothing = text.is_empty();
        self.rewrites.put(from, to, text.into());
        if nothing && self.acked >= from {
            self.ack(to);
        }
    }

    /// How the session ended, and that there is a gap, where the lines that said so are among those that are not read.
    fn end_again(&self, text: &mut Vec<u8>, from: u64, to: u64) {
        let at = self.last.max(self.read_back);
        if let Some((end, place)) = self.ended
            && (from..to).contains(&place)
        {
            Encoder::new().end(text, at, end.as_str());
        }
        if self.is_written() && to == self.appended() {
            let outcome = self.outcome.filter(|outcome| *outcome == Outcome::Cut).unwrap_or(Outcome::Gap);
            Encoder::close(text, at, outcome.as_str());
        }
    }

    /// The last line promises that nothing is missing, also where that has turned out since. `None` where it now says
    /// something else.
    fn amended(&mut self, place: u64, lines: Bytes) -> Option<Bytes> {
        let is_end = self.is_written() && place + lines.len() as u64 == self.appended();
        if self.rewrites.is_empty() || self.events || !is_end || !promises(&lines) {
            return Some(lines);
        }
        let before = lines.iter().rev().skip(1).position(|byte| *byte == b'\n');
        let start = before.map_or(0, |behind| lines.len() - behind - 1);
        if start > 0 {
            return Some(lines.slice(..start));
        }
        let mut text = Vec::new();
        Encoder::close(&mut text, time_of_last(&lines).unwrap_or_default(), Outcome::Gap.as_str());
        self.rewrites.put(place, self.appended(), text.into());
        None
    }
}

/// Whether the last line says that nothing is missing.
fn promises(lines: &[u8]) -> bool {
    let says =
        |outcome: Outcome| lines.ends_with(format!(",\"x-close\",\"{}\"]\n", outcome.as_str()).as_bytes());
    says(Outcome::RecordedLate) || says(Outcome::Recorded)
}

/// The time of the last of some lines.
fn time_of_last(lines: &[u8]) -> Option<Duration> {
    let line = lines.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
    let text = line.strip_prefix(b"[")?.split(|byte| *byte == b',').next()?;
    Duration::try_from_secs_f64(std::str::from_utf8(text).ok()?.parse().ok()?).ok()
}
