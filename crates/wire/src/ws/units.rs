//! What a relay passes on at once: whole frames up to 64 KiB, pieces of longer ones.
//!
//! A relay that waits for whole frames can pause or end a session between two of them. Holding longer ones would let
//! a peer choose how much is held, so those are streamed and, should the session end within one, padded.

use super::{Head, Opcode, WsError, encode, head::Fragments};
use crate::channel::Source;

/// Longest frame that is held until it is whole, head included.
pub const MAX_HELD: usize = 64 << 10;
/// Longest rest of an open frame that is padded; behind a longer one no message can follow.
pub const MAX_PADDING: u64 = 1 << 20;

/// Bytes that go on together.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// How many.
    pub len: usize,
    /// Whether they are a control frame, which never waits.
    pub control: bool,
    after: State,
}

/// Where a stream stands.
///
/// Cursor: `left` bytes of the frame that is being streamed have not gone on; zero between frames.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    left: u64,
    fragments: Fragments,
}

/// Cuts one direction of a stream into units, and knows what has gone on.
#[derive(Debug)]
pub struct Units {
    from: Source,
    state: State,
}

impl Units {
    /// A cutter at the beginning of what that end says.
    #[must_use]
    pub fn new(from: Source) -> Self {
        Self { from, state: State::default() }
    }

    /// The unit at the beginning of `bytes`; `None` while more bytes are needed, never more than [`MAX_HELD`]. It
    /// has gone on only once it was given to [`Units::gone_on`].
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn peek(&self, bytes: &[u8]) -> Result<Option<Unit>, WsError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut state = self.state;
        let mut control = false;
        if state.left == 0 {
            let Some(head) = Head::parse(self.from, bytes)? else { return Ok(None) };
            if head.frame_len() <= MAX_HELD as u64 && head.frame_len() > bytes.len() as u64 {
                return Ok(None);
            }
            state.fragments.note(self.from, &head)?;
            state.left = head.frame_len();
            control = head.opcode.is_control();
        }
        let len = usize::try_from(state.left).unwrap_or(usize::MAX).min(bytes.len()).min(MAX_HELD);
        state.left -= len as u64;
        Ok(Some(Unit { len, control, after: state }))
    }

    /// Takes note that a unit has gone on.
    pub const fn gone_on(&mut self, unit: Unit) {
        self.state = unit.after;
    }

    /// Whether what has gone on ends with a whole frame: behind it a control frame may follow (RFC 6455 §5.4).
    #[must_use]
    pub const fn is_between_frames(&self) -> bool {
        self.state.left == 0
    }

    /// The bytes after which a message of ours may follow: the rest of an open frame as zeros, the end of an open
    /// message. `None` where that would take more than [`MAX_PADDING`].
    #[must_use]
    pub fn finish(&self) -> Option<Vec<u8>> {
        if self.state.left > MAX_PADDING {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(self.state.left).ok()?];
        if self.state.fragments.open() {
            bytes.extend(encode(Opcode::Continuation, &[], None));
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{frames, in_pieces};

    fn take(units: &mut Units, bytes: &[u8]) -> Option<usize> {
        let unit = units.peek(bytes).unwrap()?;
        units.gone_on(unit);
        Some(unit.len)
    }

    fn lens(stream: &[u8]) -> Vec<usize> {
        let (mut units, mut rest, mut lens) = (Units::new(Source::Server), stream, vec![]);
        while let Some(len) = take(&mut units, rest) {
            lens.push(len);
            rest = &rest[len..];
        }
        lens
    }

    #[test]
    fn a_short_frame_waits_until_it_is_whole() {
        let frame = encode(Opcode::Binary, &[7; 300], None);
        assert!(Units::new(Source::Server).peek(&frame[..303]).unwrap().is_none());
        assert_eq!(Units::new(Source::Server).peek(&frame).unwrap().unwrap().len, 304);
    }

    #[test]
    fn a_long_frame_is_streamed() {
        let frame = encode(Opcode::Binary, &[7; 100_000], None);
        assert_eq!(lens(&frame), [MAX_HELD, 100_010 - MAX_HELD]);
        let mut units = Units::new(Source::Server);
        assert_eq!(take(&mut units, &frame[..20]), Some(20));
        assert_eq!(units.finish().unwrap().len(), 100_010 - 20);
    }

    #[test]
    fn an_open_message_is_ended_by_an_empty_fragment() {
        let mut units = Units::new(Source::Server);
        assert!(units.finish().unwrap().is_empty());
        take(&mut units, &[0x02, 1, 1]);
        assert_eq!(units.finish().unwrap(), [0x80, 0]);
    }

    #[test]
    fn what_has_not_gone_on_leaves_nothing_open() {
        let units = Units::new(Source::Server);
        units.peek(&[0x02, 1, 1]).unwrap().unwrap();
        assert!(units.finish().unwrap().is_empty());
    }

    #[test]
    fn behind_a_huge_frame_nothing_is_padded() {
        let mut units = Units::new(Source::Server);
        take(&mut units, &[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
        assert_eq!(units.finish(), None);
    }

    #[test]
    fn control_frames_are_told_apart() {
        let units = Units::new(Source::Server);
        assert!(units.peek(&[0x89, 0]).unwrap().unwrap().control);
        assert!(!units.peek(&[0x82, 0]).unwrap().unwrap().control);
    }

    #[test]
    fn within_a_long_frame_no_control_frame_may_follow() {
        let frame = encode(Opcode::Binary, &[7; 100_000], None);
        let mut units = Units::new(Source::Server);
        assert!(units.is_between_frames());
        take(&mut units, &frame[..20]);
        assert!(!units.is_between_frames());
        take(&mut units, &frame[20..]);
        take(&mut units, &frame[20 + MAX_HELD..]);
        assert!(units.is_between_frames());
    }

    proptest! {
        #[test]
        fn units_are_the_stream_wherever_it_is_cut(
            stream in frames(), cuts in prop::collection::vec(0usize..4096, 0..12)
        ) {
            let (mut units, mut held, mut out) = (Units::new(Source::Server), vec![], vec![]);
            for piece in in_pieces(&stream, &cuts) {
                held.extend_from_slice(piece);
                while let Some(len) = take(&mut units, &held) {
                    out.extend(held.drain(..len));
                }
                prop_assert!(held.len() <= MAX_HELD);
            }
            prop_assert_eq!(out, stream);
        }
    }
}
