//! Frames and units of any bytes are the same however the bytes are cut, and units are the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podwitness_wire::{
    channel::Source,
    ws::{Event, MAX_HELD, Parser, Units},
};

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let (head, tail) = bytes.split_at(cut % (bytes.len() + 1));
    for from in [Source::Client, Source::Server] {
        assert_eq!(frames(from, &[head, tail]), frames(from, &[bytes]));

        let (mut units, mut rest, mut passed) = (Units::new(from), bytes, 0);
        while let Ok(Some(unit)) = units.peek(rest) {
            assert!(0 < unit.len && unit.len <= MAX_HELD);
            units.gone_on(unit);
            rest = &rest[unit.len..];
            passed += unit.len;
        }
        assert_eq!(passed + rest.len(), bytes.len());
    }
    assert!(!frames(Source::Client, &[bytes]).1, "a client is followed whatever it says");
    let (strict, failed) = frames(Source::Server, &[bytes]);
    if !failed {
        assert_eq!(frames(Source::Client, &[bytes]).0, strict);
    }
});

/// What a parser says: frames with their payload, and whether it failed.
fn frames(from: Source, pieces: &[&[u8]]) -> (Vec<(u64, Vec<u8>)>, bool) {
    let (mut parser, mut frames, mut failed) = (Parser::new(from), vec![], false);
    for mut piece in pieces.iter().copied() {
        loop {
            match parser.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(Event::Start(head))) => frames.push((head.len, vec![])),
                Ok(Some(Event::Data(payload))) => payload.read(|bytes| {
                    frames.last_mut().expect("a frame has begun").1.extend_from_slice(bytes);
                }),
                Ok(Some(Event::End)) => {
                    let (len, payload) = frames.last().expect("a frame has begun");
                    assert_eq!(*len, payload.len() as u64);
                }
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
    }
    (frames, failed)
}
