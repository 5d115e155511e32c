//! What a relay passes on at once: whole frames up to 64 KiB, pieces of longer ones.
//!
//! A relay that waits for whole frames can pause or end a session between two of them. Holding longer ones would let
//! a peer choose how much is held, so those are streamed and, should the session end within one, padded.

use super::{Head, Opcode, WsError, encode, head::Fragments};

/// Longest frame that is held until it is whole, head included.
pub const MAX_HELD: usize = 64 << 10;
/// Longest rest of an open frame that is padded; behind a longer one no message can follow.
pub const MAX_PADDING: u64 = 1 << 20;

/// How many of the next bytes go on together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unit {
    /// Bytes.
    pub len: usize,
    /// Whether they are a control frame, which never waits.
    pub control: bool,
}

/// Cuts one direction of a stream into units.
///
/// Cursor: `left` bytes of the frame that is being streamed have not been handed out; zero between frames.
#[derive(Debug, Default)]
pub struct Units {
    left: u64,
    fragments: Fragments,
}

impl Units {
    /// A cutter at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The unit at the beginning of `bytes`, which the caller takes off; `None` while more bytes are needed. Never
    /// asks for more than [`MAX_HELD`].
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<Unit>, WsError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        if self.left == 0 {
            let Some(head) = Head::parse(bytes)? else { return Ok(None) };
            if head.frame_len() <= MAX_HELD as u64 && head.frame_len() > bytes.len() as u64 {
                return Ok(None);
            }
            self.fragments.note(&head)?;
            self.left = head.frame_len();
            let len = self.take(bytes);
            return Ok(Some(Unit { len, control: head.opcode.is_control() }));
        }
        Ok(Some(Unit { len: self.take(bytes), control: false }))
    }

    /// The bytes after which a message of ours may follow: the rest of an open frame as zeros, the end of an open
    /// message. `None` where that would take more than [`MAX_PADDING`].
    #[must_use]
    pub fn finish(&self) -> Option<Vec<u8>> {
        if self.left > MAX_PADDING {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(self.left).ok()?];
        if self.fragments.open() {
            bytes.extend(encode(Opcode::Continuation, &[], None));
        }
        Some(bytes)
    }

    fn take(&mut self, bytes: &[u8]) -> usize {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len()).min(MAX_HELD);
        self.left -= len as u64;
        len
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{frames, in_pieces};

    fn lens(stream: &[u8]) -> Vec<usize> {
        let (mut units, mut rest, mut lens) = (Units::new(), stream, vec![]);
        while let Some(unit) = units.next(rest).unwrap() {
            lens.push(unit.len);
            rest = &rest[unit.len..];
        }
        lens
    }

    #[test]
    fn a_short_frame_waits_until_it_is_whole() {
        let frame = encode(Opcode::Binary, &[7; 300], None);
        assert_eq!(Units::new().next(&frame[..303]).unwrap(), None);
        assert_eq!(Units::new().next(&frame).unwrap(), Some(Unit { len: 304, control: false }));
    }

    #[test]
    fn a_long_frame_is_streamed() {
        let frame = encode(Opcode::Binary, &[7; 100_000], None);
        assert_eq!(lens(&frame), [MAX_HELD, 100_010 - MAX_HELD]);
        let mut units = Units::new();
        assert_eq!(units.next(&frame[..20]).unwrap().unwrap().len, 20);
        assert_eq!(units.finish().unwrap().len(), 100_010 - 20);
    }

    #[test]
    fn an_open_message_is_ended_by_an_empty_fragment() {
        let mut units = Units::new();
        assert!(units.finish().unwrap().is_empty());
        let _ = units.next(&[0x02, 1, 1]).unwrap();
        assert_eq!(units.finish().unwrap(), [0x80, 0]);
    }

    #[test]
    fn behind_a_huge_frame_nothing_is_padded() {
        let mut units = Units::new();
        let _ = units.next(&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0, 1]).unwrap();
        assert_eq!(units.finish(), None);
    }

    proptest! {
        #[test]
        fn units_are_the_stream_wherever_it_is_cut(
            stream in frames(), cuts in prop::collection::vec(0usize..4096, 0..12)
        ) {
            let (mut units, mut held, mut out) = (Units::new(), vec![], vec![]);
            for piece in in_pieces(&stream, &cuts) {
                held.extend_from_slice(piece);
                while let Some(unit) = units.next(&held).unwrap() {
                    out.extend(held.drain(..unit.len));
                }
                prop_assert!(held.len() <= MAX_HELD);
            }
            prop_assert_eq!(out, stream);
        }
    }
}
