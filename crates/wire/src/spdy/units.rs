//! What a relay passes on at once: whole frames up to 64 KiB, pieces of longer ones.
//!
//! As with [`crate::ws::Units`]. A server's control frames are capped below that size, so what it says in pieces is data
//! only and its open frame can be padded with zeros.

use super::{HEAD, Head, SpdyError};
use crate::channel::Source;
pub use crate::ws::{MAX_HELD, MAX_PADDING};

/// Bytes that go on together.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// How many.
    pub len: usize,
    /// Whether they are a frame that never waits: one that neither opens nor feeds a stream.
    pub control: bool,
    left: u64,
}

/// Cuts one direction of a stream into units, and knows what has gone on.
///
/// Cursor: `left` bytes of the frame that is being streamed have not gone on; zero between frames.
#[derive(Debug)]
pub struct Units {
    from: Source,
    left: u64,
}

impl Units {
    /// A cutter at the beginning of what that end says.
    #[must_use]
    pub const fn new(from: Source) -> Self {
        Self { from, left: 0 }
    }

    /// The unit at the beginning of `bytes`; `None` while more bytes are needed, never more than [`MAX_HELD`]. It
    /// has gone on only once it was given to [`Units::gone_on`].
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn peek(&self, bytes: &[u8]) -> Result<Option<Unit>, SpdyError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (mut left, mut control) = (self.left, false);
        if left == 0 {
            let Some(head) = Head::parse(self.from, bytes)? else { return Ok(None) };
            let behind = bytes.get(HEAD..).unwrap_or_default();
            let Some(body) = head.body_len(self.from, behind) else { return Ok(None) };
            left = HEAD as u64 + body;
            if left <= MAX_HELD as u64 && left > bytes.len() as u64 {
                return Ok(None);
            }
            control = head.kind.never_waits();
        }
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()).min(MAX_HELD);
        Ok(Some(Unit { len, control, left: left - len as u64 }))
    }

    /// Takes note that a unit has gone on.
    pub const fn gone_on(&mut self, unit: Unit) {
        self.left = unit.left;
    }

    /// The bytes after which a frame of ours may follow: the rest of an open one as zeros. `None` where that would
    /// take more than [`MAX_PADDING`].
    #[must_use]
    pub fn finish(&self) -> Option<Vec<u8>> {
        if self.left > MAX_PADDING {
            return None;
        }
        Some(vec![0; usize::try_from(self.left).ok()?])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        spdy::{HEAD, MAX_CONTROL, data, go_away, rst_stream},
        testing::{
            in_pieces,
            spdy::{End, control, ping, stream},
        },
    };

    fn take(units: &mut Units, bytes: &[u8]) -> Option<usize> {
        let unit = units.peek(bytes).unwrap()?;
        units.gone_on(unit);
        Some(unit.len)
    }

    #[test]
    fn a_short_frame_waits_until_it_is_whole() {
        let frame = data(1, &[7; 300], false);
        for len in [0, 7, 8, 307] {
            assert!(Units::new(Source::Server).peek(&frame[..len]).unwrap().is_none(), "{len}");
        }
        assert_eq!(Units::new(Source::Server).peek(&[frame, ping(1)].concat()).unwrap().unwrap().len, 308);
    }

    #[test]
    fn a_long_frame_is_streamed() {
        let frame = data(1, &[7; 100_000], false);
        let mut units = Units::new(Source::Server);
        assert_eq!(take(&mut units, &frame[..20]), Some(20));
        assert_eq!(units.finish().unwrap(), vec![0; 100_008 - 20]);
        assert_eq!(take(&mut units, &frame[20..]), Some(MAX_HELD));
        assert_eq!(take(&mut units, &frame[20 + MAX_HELD..]), Some(100_008 - 20 - MAX_HELD));
        assert!(units.finish().unwrap().is_empty());
    }

    #[test]
    fn a_control_frame_is_never_in_pieces() {
        let longest = control(4, 0, &vec![0; (MAX_CONTROL - 4) as usize]);
        assert!(Units::new(Source::Server).peek(&longest[..longest.len() - 1]).unwrap().is_none());
        assert!(Units::new(Source::Server).peek(&longest).unwrap().unwrap().len <= MAX_HELD);
        let longer = [0x80, 3, 0, 4, 0, 1, 0, 4];
        assert_eq!(Units::new(Source::Server).peek(&longer).unwrap_err(), SpdyError::Control(0x1_0004));
    }

    /// As `moby/spdystream` reads them.
    #[test]
    fn what_a_client_says_is_as_long_as_its_server_reads_it() {
        for (frame, len) in [
            (control(6, 0, &[0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9]), 12),
            (control(6, 0, &[]), 12),
            (control(3, 0, &[0, 0, 0, 1]), 16),
            (control(4, 0, &[0, 0, 0, 2, 9]), 28),
            (control(4, 0, &[0, 0, 0, 0, 9, 9]), 12),
            (control(77, 0, &[9; 3]), 11),
        ] {
            let bytes = [frame.as_slice(), &[9; 32]].concat();
            let units = Units::new(Source::Client);
            assert_eq!(units.peek(&bytes).unwrap().unwrap().len, len, "{frame:x?}");
            assert!(units.peek(&bytes[..len - 1]).unwrap().is_none(), "{frame:x?}");
        }
        let endless = [0x80, 9, 0, 4, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Units::new(Source::Client).peek(&endless).unwrap().unwrap().len, 12);
    }

    #[test]
    fn what_has_not_gone_on_leaves_nothing_open() {
        let units = Units::new(Source::Server);
        units.peek(&data(1, &[7; 100_000], false)[..HEAD]).unwrap().unwrap();
        assert!(units.finish().unwrap().is_empty());
    }

    #[test]
    fn behind_a_huge_frame_nothing_is_padded() {
        let mut units = Units::new(Source::Server);
        take(&mut units, &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 1]);
        assert_eq!(units.finish(), None);
    }

    #[test]
    fn only_what_opens_or_feeds_a_stream_waits() {
        let (units, mut end) = (Units::new(Source::Server), End::new());
        let waits = |frame: &[u8]| !units.peek(frame).unwrap().unwrap().control;
        assert!(waits(&data(1, b"", true)) && waits(&end.syn_stream(1, &[])) && waits(&end.headers(1, &[])));
        for frame in [ping(1), end.syn_reply(1), rst_stream(1, 5), go_away(1, 0), control(77, 0, b"")] {
            assert!(!waits(&frame), "{frame:x?}");
        }
    }

    proptest! {
        #[test]
        fn units_are_the_stream_wherever_it_is_cut(
            stream in stream(), cuts in prop::collection::vec(0usize..4096, 0..12)
        ) {
            for from in [Source::Client, Source::Server] {
                let (mut units, mut held, mut out) = (Units::new(from), vec![], vec![]);
                for piece in in_pieces(&stream, &cuts) {
                    held.extend_from_slice(piece);
                    while let Some(len) = take(&mut units, &held) {
                        out.extend(held.drain(..len));
                    }
                    prop_assert!(held.len() <= MAX_HELD);
                }
                prop_assert_eq!(&out, &stream);
            }
        }
    }
}
