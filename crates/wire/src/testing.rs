//! Helpers for tests that cut streams into pieces.

pub(crate) mod sessions;
pub(crate) mod spdy;

use proptest::prelude::*;

use crate::ws::{Opcode, encode};

/// `bytes` cut at those places, taken modulo its length, in order; pieces may be empty.
pub(crate) fn in_pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    places.sort_unstable();
    let (mut rest, mut taken, mut pieces) = (bytes, 0, vec![]);
    for place in places {
        let (piece, behind) = rest.split_at(place - taken);
        pieces.push(piece);
        (rest, taken) = (behind, place);
    }
    pieces.push(rest);
    pieces
}

/// Bytes out of their hexadecimal digits, which may stand on several lines.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)?.try_into().ok()).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A message in fragments, each with or without a mask, pings between them.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let fragment = (prop::collection::vec(any::<u8>(), 0..400), any::<Option<[u8; 4]>>(), any::<bool>());
    (0u8..6, prop::collection::vec(fragment, 1..4)).prop_map(|(channel, fragments)| {
        let last = fragments.len() - 1;
        let mut stream = vec![];
        for (n, (mut payload, mask, ping)) in fragments.into_iter().enumerate() {
            if n == 0 {
                payload.insert(0, channel);
            }
            let opcode = if n == 0 { Opcode::Binary } else { Opcode::Continuation };
            let mut frame = encode(opcode, &payload, mask);
            if let (Some(first), true) = (frame.first_mut(), n < last) {
                *first &= 0x7f;
            }
            stream.extend(frame);
            if ping {
                stream.extend(encode(Opcode::Ping, b"p", None));
            }
        }
        stream
    })
}

/// Well-formed WebSocket streams of a few messages.
pub(crate) fn frames() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(message(), 0..6).prop_map(|messages| messages.concat())
}
