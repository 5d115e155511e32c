//! Reading ahead: what one side of a session has said and the other has not been given yet.
//!
//! The API server drops what it has not sent once the command has ended, so a session that waits for its recorder or
//! its client goes on reading, up to [`limit`] and within the budget of memory; beyond that the sender waits.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use podwitness_wire::{session::Language, ws::MAX_HELD};
use tokio::{io::AsyncRead, time::timeout};

use super::pace::Pace;
use crate::{
    journal::{Budget, BudgetShare},
    stream::{TOGETHER, poll_gather},
};

/// Most that is read ahead of what has gone on.
const READ_AHEAD: usize = 16 << 20;
/// What may always be read ahead: any frame that is held whole, and the reads around it.
pub(super) const LEAST: usize = 2 * MAX_HELD;

/// How many bytes may be read ahead of a server. Where pings are not known as such, the answers to them wait as if nothing
/// were in between.
pub(super) const fn limit(language: Language) -> usize {
    match language {
        Language::Opaque | Language::Undecoded => LEAST,
        Language::Command(..) | Language::Forward(_) => READ_AHEAD,
    }
}

/// One side of a session, with what it has said.
pub(super) struct Ahead<R> {
    reader: R,
    pace: Pace,
    /// What is looked at.
    front: BytesMut,
    /// What stands behind that.
    queue: VecDeque<Bytes>,
    queued: usize,
    spare: BytesMut,
    limit: usize,
    share: BudgetShare,
    /// Something was read, or the end, since [`Ahead::news`] was asked last.
    news: bool,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Ahead<R> {
    /// Reads at most `limit` bytes ahead.
    pub(super) fn new(reader: R, limit: usize, memory: &std::sync::Arc<Budget>) -> Self {
        Self {
            reader,
            pace: Pace::new(),
            front: BytesMut::new(),
            queue: VecDeque::new(),
            queued: 0,
            spare: BytesMut::new(),
            limit,
            share: BudgetShare::of(memory),
            news: false,
            ended: false,
        }
    }

    /// What can be looked at.
    pub(super) fn front(&self) -> &[u8] {
        &self.front
    }

    /// Whether anything was read that has not been taken.
    pub(super) fn holds(&self) -> bool {
        !self.front.is_empty() || !self.queue.is_empty()
    }

    /// Adds to what can be looked at, if anything was read.
    pub(super) fn refill(&mut self) -> bool {
        let Some(bytes) = self.queue.pop_front() else { return false };
        self.queued -= bytes.len();
        self.front.extend_from_slice(&bytes);
        true
    }

    /// Takes bytes off the front.
    pub(super) fn take(&mut self, len: usize) -> Bytes {
        self.share.shrink(len as u64);
        self.front.split_to(len.min(self.front.len())).freeze()
    }

    /// Whether nothing more will come.
    pub(super) const fn ended(&self) -> bool {
        self.ended
    }

    /// Whether more may be read now.
    pub(super) fn may_read(&self) -> bool {
        let held = self.front.len() + self.queued;
        !self.ended && (held < LEAST || (held < self.limit && !self.share.is_short()))
    }

    /// Waits until there is more than when this was asked last, or the end: that may have been read since.
    pub(super) async fn news(&mut self) {
        if !self.news {
            self.read().await;
        }
        self.news = false;
    }

    /// Reads what is there. The end of the stream and its failure are the same: nothing more will come.
    async fn read(&mut self) {
        self.pace.pause().await;
        let len = poll_fn(|cx| self.poll_fill(cx)).await;
        self.news = true;
        self.pace.note(len);
        self.share.grow_anyway(len as u64);
        if !self.spare.is_empty() {
            self.queued += len;
            self.queue.push_back(self.spare.split().freeze());
        }
    }

    /// What is read goes where it is looked at, without a copy on the way, unless much stands there already.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let direct = self.queue.is_empty() && self.front.len() < TOGETHER;
        let into = if direct { &mut self.front } else { &mut self.spare };
        let read = ready!(poll_gather(Pin::new(&mut self.reader), cx, into));
        let len = read.unwrap_or_else(|error| {
            tracing::debug!(%error, "one side of a session broke off");
            0
        });
        self.ended = len == 0;
        Poll::Ready(len)
    }

    /// Does `work`, reading ahead meanwhile.
    pub(super) async fn during<F: Future>(&mut self, work: F) -> F::Output {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.read(), if self.may_read() => {}
            }
        }
    }

    /// Reads and throws away until the stream ends or says nothing for so long.
    pub(super) async fn drain(&mut self, silence: Duration) {
        self.front.clear();
        while !self.ended && timeout(silence, self.read()).await.is_ok() {
            self.front.clear();
            self.queue.clear();
        }
    }
}
