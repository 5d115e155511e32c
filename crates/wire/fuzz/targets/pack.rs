//! Frames come back however they are cut; whatever else comes is refused, or becomes no more than a frame may hold.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use podwitness_wire::pack::{self, MAX_FRAME, UnpackError, Unpacker};

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let at = |whole: &[u8]| usize::from(cut) % (whole.len() + 1);

    let (head, tail) = bytes.split_at(at(bytes));
    assert_eq!(unpack(&[head, tail]), unpack(&[bytes]));

    if bytes.is_empty() {
        return;
    }
    let (mut lines, mut frames) = (bytes, vec![]);
    while !lines.is_empty() {
        let (frame, rest) = lines.split_at(pack::cut(lines));
        frames.extend(pack::pack(frame).expect("a frame of at most one input"));
        lines = rest;
    }
    let (head, tail) = frames.split_at(at(&frames));
    assert_eq!(unpack(&[head, tail]), (bytes.to_vec(), Ok(true)));
});

/// What came out, and whether the input ended with a frame.
fn unpack(pieces: &[&[u8]]) -> (Vec<u8>, Result<bool, UnpackError>) {
    let (mut unpacker, mut out) = (Unpacker::new(), vec![]);
    for piece in pieces {
        let mut bytes = Bytes::copy_from_slice(piece);
        loop {
            match unpacker.unpack(&mut bytes) {
                Ok(Some(frame)) => {
                    assert!((1..=MAX_FRAME).contains(&frame.len()));
                    out.extend_from_slice(&frame);
                }
                Ok(None) => break,
                Err(error) => return (out, Err(error)),
            }
        }
    }
    (out, Ok(unpacker.at_rest()))
}
