//! Nothing that a peer or a file says makes a reader panic, and acknowledgements do not depend on cuts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podwitness_wire::{
    ack::{Ack, Reader},
    cast::{Header, Line, line},
};

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let (head, tail) = bytes.split_at(cut % (bytes.len() + 1));
    assert_eq!(acks(&[head, tail]), acks(&[bytes]));

    assert_eq!(Line::check(bytes).is_ok(), Line::parse(bytes).is_ok());
    let _ = line::is_additive(bytes);
    if let Ok(header) = Header::parse(bytes)
        && let Ok(written) = header.to_line(Default::default())
    {
        let mut again = Header::parse(&written).expect("a header of ours");
        if let (Some(again), Some(ours)) = (&mut again.podwitness, &header.podwitness) {
            (again.part, again.offset) = (ours.part, ours.offset);
        }
        assert_eq!(again, header);
    }
});

/// The frames before the first error.
fn acks(pieces: &[&[u8]]) -> Vec<Ack> {
    let (mut reader, mut seen) = (Reader::new(), vec![]);
    for piece in pieces {
        if reader.feed(piece, |ack| seen.push(ack)).is_err() {
            break;
        }
    }
    seen
}
