//! Frames out of bytes, one event at a time.

use super::{Head, MAX_HEAD, Payload, WsError, head::Fragments, payload::turn};
use crate::channel::Source;

/// What the next bytes of a stream are.
#[derive(Debug)]
pub enum Event<'a> {
    /// A frame begins.
    Start(Head),
    /// Payload of that frame; never empty.
    Data(Payload<'a>),
    /// The frame is whole.
    End,
}

/// Follows the frames of one direction.
///
/// Cursor: `0 <= left <= head.len` counts the payload bytes of the open frame that have not come yet.
#[derive(Debug)]
pub struct Parser {
    from: Source,
    state: State,
    fragments: Fragments,
}

#[derive(Debug)]
enum State {
    /// Between frames, or within a head of which `have` bytes have come.
    Head {
        bytes: [u8; MAX_HEAD],
        have: usize,
    },
    Payload {
        left: u64,
        key: Option<[u8; 4]>,
    },
    Failed(WsError),
}

impl Default for State {
    fn default() -> Self {
        Self::Head { bytes: [0; MAX_HEAD], have: 0 }
    }
}

impl Parser {
    /// A parser at the beginning of what that end says.
    #[must_use]
    pub fn new(from: Source) -> Self {
        Self { from, state: State::default(), fragments: Fragments::default() }
    }

    /// Takes the next event off `input`; `None` when `input` is used up.
    ///
    /// # Errors
    /// Where the stream cannot be followed any further; the same error then for ever.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, WsError> {
        let event = self.advance(input);
        if let Err(error) = event {
            self.state = State::Failed(error);
        }
        event
    }

    fn advance<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, WsError> {
        match &mut self.state {
            State::Failed(error) => Err(*error),
            State::Head { bytes, have } => {
                let Some(head) = head(self.from, bytes, have, input)? else { return Ok(None) };
                self.fragments.note(self.from, &head)?;
                self.state = State::Payload { left: head.len, key: head.mask };
                Ok(Some(Event::Start(head)))
            }
            State::Payload { left: 0, .. } => {
                self.state = State::default();
                Ok(Some(Event::End))
            }
            State::Payload { left, key } => Ok(payload(left, key, input).map(Event::Data)),
        }
    }
}

/// Moves bytes into the head until it is whole; most heads come in one piece.
fn head(
    from: Source,
    bytes: &mut [u8; MAX_HEAD],
    have: &mut usize,
    input: &mut &[u8],
) -> Result<Option<Head>, WsError> {
    if *have == 0
        && let Some(head) = Head::parse(from, input)?
    {
        *input = input.get(head.size..).unwrap_or_default();
        return Ok(Some(head));
    }
    while let (Some((byte, rest)), Some(slot)) = (input.split_first(), bytes.get_mut(*have)) {
        *slot = *byte;
        *have += 1;
        *input = rest;
        if let Some(head) = Head::parse(from, bytes.get(..*have).unwrap_or_default())? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// Takes what there is of the open frame's payload.
fn payload<'a>(left: &mut u64, key: &mut Option<[u8; 4]>, input: &mut &'a [u8]) -> Option<Payload<'a>> {
    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    if take == 0 {
        return None;
    }
    let (bytes, rest) = input.split_at(take);
    let payload = Payload::masked(bytes, *key);
    *input = rest;
    *left -= take as u64;
    *key = key.map(|key| turn(key, take));
    Some(payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        testing::{frames, in_pieces},
        ws::{Opcode, encode},
    };

    /// What a stream says, independent of where it was cut.
    #[derive(Debug, Default, Eq, PartialEq)]
    struct Seen {
        frames: Vec<(Head, Vec<u8>)>,
        ended: usize,
        error: Option<WsError>,
    }

    fn see(pieces: &[&[u8]]) -> Seen {
        see_from(Source::Server, pieces)
    }

    fn see_from(from: Source, pieces: &[&[u8]]) -> Seen {
        let (mut parser, mut seen) = (Parser::new(from), Seen::default());
        for mut piece in pieces.iter().copied() {
            loop {
                match parser.next(&mut piece) {
                    Ok(None) => break,
                    Ok(Some(Event::Start(head))) => seen.frames.push((head, vec![])),
                    Ok(Some(Event::Data(data))) => {
                        data.read(|bytes| seen.frames.last_mut().unwrap().1.extend_from_slice(bytes));
                    }
                    Ok(Some(Event::End)) => seen.ended += 1,
                    Err(error) => {
                        seen.error = Some(error);
                        break;
                    }
                }
            }
        }
        seen
    }

    #[test]
    fn every_length_form_and_mask_is_read() {
        for len in [0, 1, 125, 126, 200, 65_535, 65_536, 70_000] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let payload: Vec<u8> = (0..len).map(|n: u32| n.to_le_bytes()[0]).collect();
                let seen = see(&[&encode(Opcode::Binary, &payload, mask)]);
                assert_eq!(seen.ended, 1, "{len}");
                assert_eq!(seen.frames[0].1, payload);
                assert_eq!(seen.frames[0].0.mask, mask);
            }
        }
    }

    #[test]
    fn a_length_written_too_long_is_read_all_the_same() {
        let seen = see(&[&[0x82, 126, 0, 2, 7, 8]]);
        assert_eq!((seen.frames[0].1.as_slice(), seen.ended), (&[7, 8][..], 1));
    }

    #[test]
    fn control_frames_stand_between_fragments() {
        let seen = see(&[&[0x02, 1, 9, 0x89, 0, 0x80, 1, 8]]);
        let kinds: Vec<Opcode> = seen.frames.iter().map(|(head, _)| head.opcode).collect();
        assert_eq!(kinds, [Opcode::Binary, Opcode::Ping, Opcode::Continuation]);
    }

    /// As `golang.org/x/net/websocket` reads it.
    #[test]
    fn a_client_is_followed_whatever_it_says() {
        let stream = [
            &[0xf3, 0x81, 1, 2, 3, 4, 8][..],
            &[0x09, 0],
            &[0x89, 126, 0, 126],
            &[0; 126],
            &[0x80, 1, 7],
            &[0x02, 0],
            &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 1, 5],
            &[0x8f, 0],
        ]
        .concat();
        let seen = see_from(Source::Client, &[&stream]);
        let kinds: Vec<Opcode> = seen.frames.iter().map(|(head, _)| head.opcode).collect();
        let (reserved, last) = (Opcode::Reserved(3), Opcode::Reserved(15));
        let expected = [
            reserved,
            Opcode::Ping,
            Opcode::Ping,
            Opcode::Continuation,
            Opcode::Binary,
            Opcode::Binary,
            last,
        ];
        assert_eq!((kinds.as_slice(), seen.ended, seen.error), (&expected[..], 7, None));
        assert_eq!((&*seen.frames[0].1, &*seen.frames[5].1), (&[9][..], &[5][..]));
    }

    #[test]
    fn what_cannot_be_followed_is_refused_for_good() {
        for (bytes, error) in [
            (&[0x83, 0][..], WsError::Opcode(3)),
            (&[0xc2, 0], WsError::Reserved),
            (&[0x09, 0], WsError::Control),
            (&[0x89, 126, 0, 126], WsError::Control),
            (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], WsError::Length),
            (&[0x80, 0], WsError::Fragment),
            (&[0x02, 0, 0x82, 0], WsError::Fragment),
        ] {
            let mut parser = Parser::new(Source::Server);
            let mut input = bytes;
            while let Ok(Some(_)) = parser.next(&mut input) {}
            assert_eq!(parser.next(&mut &[0x82, 0][..]).unwrap_err(), error, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn frames_are_the_same_wherever_the_stream_is_cut(
            stream in frames(), cuts in prop::collection::vec(0usize..4096, 0..12)
        ) {
            prop_assert_eq!(see(&in_pieces(&stream, &cuts)), see(&[&stream]));
            prop_assert_eq!(see_from(Source::Client, &[&stream]), see(&[&stream]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512), cuts in prop::collection::vec(0usize..512, 0..6)) {
            for from in [Source::Client, Source::Server] {
                prop_assert_eq!(see_from(from, &in_pieces(&bytes, &cuts)), see_from(from, &[&bytes]));
            }
            prop_assert_eq!(see_from(Source::Client, &[&bytes]).error, None);
        }
    }
}
