//! The end of a journal that lies in memory.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};
use podwitness_wire::pack::FRAME;

use super::budget::BudgetShare;

/// Lines are gathered to chunks of at most this size, so that each can be a piece of an upload as it is; what one frame
/// becomes can be more.
const CHUNK: usize = FRAME;

/// What one unit of a stream becomes at most, about: 64 KiB that are not UTF-8, as text and as base64.
const UNIT: u64 = 512 << 10;

/// Chunks of whole lines, the last one still growing. Places are bytes since the beginning of the journal.
#[derive(Debug)]
pub(super) struct Window {
    start: u64,
    len: u64,
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    share: BudgetShare,
}

impl Window {
    pub(super) fn new(share: BudgetShare) -> Self {
        Self { start: 0, len: 0, chunks: VecDeque::new(), tail: BytesMut::new(), share }
    }

    /// Begins an empty window somewhere else.
    pub(super) const fn begin_at(&mut self, start: u64) {
        self.start = start;
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    pub(super) const fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Whether memory is short for all.
    pub(super) fn is_short(&self) -> bool {
        self.share.is_short()
    }

    /// Whether there is memory for what one more unit of a stream becomes.
    pub(super) fn has_room(&self) -> bool {
        self.share.has_room(UNIT)
    }

    /// Appends lines; whether there was room. `whatever` the budget, if told so.
    pub(super) fn push(&mut self, lines: &[u8], whatever: bool) -> bool {
        let len = lines.len() as u64;
        if whatever {
            self.share.grow_anyway(len);
        } else if !self.share.grow(len) {
            return false;
        }
        if self.tail.len() + lines.len() > CHUNK {
            self.seal();
        }
        if lines.len() >= CHUNK / 16 && self.tail.is_empty() {
            // Much comes at once, and more will: one allocation for the chunk.
            self.tail.reserve(CHUNK.max(lines.len()));
        }
        self.tail.extend_from_slice(lines);
        self.len += len;
        true
    }

    /// Lines from `from` on, as many as lie together.
    pub(super) fn read(&mut self, from: u64) -> Option<Bytes> {
        if from >= self.end() {
            return None;
        }
        if from >= self.end() - self.tail.len() as u64 {
            self.seal();
        }
        let mut skip = from.checked_sub(self.start)?;
        for chunk in &self.chunks {
            if skip < chunk.len() as u64 {
                return Some(chunk.slice(usize::try_from(skip).ok()?..));
            }
            skip -= chunk.len() as u64;
        }
        None
    }

    /// Forgets everything before `to`.
    pub(super) fn release(&mut self, to: u64) {
        let mut left = to.min(self.end()).saturating_sub(self.start);
        self.start += left;
        self.len -= left;
        self.share.shrink(left);
        while left > 0 {
            if self.chunks.is_empty() {
                self.seal();
            }
            let Some(chunk) = self.chunks.front_mut() else { return };
            let take = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            chunk.advance(take);
            left -= take as u64;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::budget::Budget;

    #[test]
    fn what_was_pushed_is_read_from_anywhere_until_released() {
        let budget = Budget::new(1 << 20);
        let mut window = Window::new(BudgetShare::of(&budget));
        let line = vec![b'x'; CHUNK / 4 - 1];
        for _ in 0..9 {
            assert!(window.push(&line, false));
        }
        let mut at = 100;
        while let Some(lines) = window.read(at) {
            at += lines.len() as u64;
        }
        assert_eq!(at, window.end());
        window.release(window.end() - 7);
        assert_eq!((window.len(), budget.used()), (7, 7));
        assert_eq!(window.read(window.start()).unwrap().len(), 7);
        assert!(window.read(0).is_none());
        window.release(u64::MAX);
        assert_eq!((window.len(), budget.used()), (0, 0));
    }

    #[test]
    fn a_budget_that_is_used_up_refuses_unless_overruled() {
        let mut window = Window::new(BudgetShare::of(&Budget::new(6)));
        assert!(window.push(b"1234", false));
        assert!(!window.push(b"5", false));
        assert!(window.push(b"5", true));
        assert_eq!(window.end(), 5);
    }
}
