//! The journal's end for the one uploader: what there is to send, and what became of it.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use podwitness_core::grant::AckLevel;
use podwitness_wire::cast::Header;
use tokio::time::Instant;

use super::Journal;

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

    /// What stands behind `from`, once there is anything.
    ///
    /// # Errors
    /// Where the spool cannot be read back.
    pub(crate) async fn next(&self, from: u64) -> io::Result<Next> {
        loop {
            let spooled = {
                let mut state = self.state();
                if state.phase.is_over() {
                    return Ok(Next::Discarded);
                }
                match state.spool.find(from) {
                    Some(place) => Some(place),
                    None => match state.window.read(from) {
                        Some(lines) => return Ok(Next::Lines(lines)),
                        None if state.is_written() => return Ok(Next::End),
                        None => None,
                    },
                }
            };
            match spooled {
                Some(place) => return place.read().await.map(Next::Lines),
                None => self.0.news.notified().await,
            }
        }
    }

    /// The first byte that no recorder has acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        self.state().acked
    }

    /// A recorder has acknowledged everything before `to`.
    pub(crate) fn ack(&self, to: u64) {
        let mut state = self.state();
        state.ack(to);
        let written = state.decide_if_acked();
        let done = state.is_done();
        drop(state);
        self.0.acks.notify_waiters();
        if written {
            self.0.news.notify_one();
        }
        if done {
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
