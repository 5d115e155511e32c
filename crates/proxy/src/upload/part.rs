//! One part of a recording, whichever version of the protocol carries it: its header, its lines, its end.

use std::sync::Arc;

use bytes::Bytes;
use podwitness_wire::cast::{Header, HeaderError, Part, line};

/// How far a recording has come over all its parts.
pub(super) struct Progress {
    header: Arc<Header>,
    part: u32,
}

impl Progress {
    pub(super) const fn new(header: Arc<Header>, part: u32) -> Self {
        Self { header, part }
    }

    /// The header line of the next part, which begins at `offset`. Other recorders get none of our own keys.
    pub(super) fn next_part(&mut self, offset: u64, ours: bool) -> Result<Vec<u8>, HeaderError> {
        let number = self.part;
        self.part = self.part.saturating_add(1);
        if ours { self.header.to_line(Part { number, offset }) } else { self.header.to_plain_line() }
    }
}

/// How an upload ended well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// Everything is acknowledged, and the recorder has closed its file.
    Complete,
    /// The journal was discarded; the upload is broken off.
    Discarded,
}

/// Whole lines without those that only our recorders know.
pub(super) fn known(lines: Bytes) -> Bytes {
    let additive = |line: &&[u8]| line::is_additive(line);
    if !lines.split_inclusive(|byte| *byte == b'\n').any(|line| additive(&line)) {
        return lines;
    }
    let kept = lines.split_inclusive(|byte| *byte == b'\n').filter(|line| !additive(line));
    kept.collect::<Vec<_>>().concat().into()
}
