//! Frames and units of any bytes are the same however the bytes are cut, and units are the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podwitness_wire::{
    channel::Source,
    spdy::{Control, Event, Head, Kind, MAX_HELD, MAX_PADDING, MAX_VALUE, Parser, Units},
};

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let (head, tail) = bytes.split_at(cut % (bytes.len() + 1));
    for source in [Source::Client, Source::Server] {
        let whole = said(source, &[bytes]);
        assert_eq!(said(source, &[head, tail]), whole);
        assert_eq!(said(source, &units(source, bytes)), whole);
    }
});

/// `bytes` as a relay passes them on, and those that no unit can be made of.
fn units(source: Source, bytes: &[u8]) -> Vec<&[u8]> {
    let (mut units, mut rest, mut pieces) = (Units::new(source), bytes, vec![]);
    while let Ok(Some(unit)) = units.peek(rest) {
        assert!(0 < unit.len && unit.len <= MAX_HELD);
        units.gone_on(unit);
        assert!(units.finish().is_none_or(|open| open.len() as u64 <= MAX_PADDING));
        let (piece, behind) = rest.split_at(unit.len);
        pieces.push(piece);
        rest = behind;
    }
    assert_eq!(pieces.iter().map(|piece| piece.len()).sum::<usize>() + rest.len(), bytes.len());
    pieces.push(rest);
    pieces
}

/// What a parser says: frames with their data or headers, and whether it failed.
#[derive(Debug, Default, PartialEq)]
struct Said {
    frames: Vec<(Head, Vec<u8>)>,
    controls: Vec<Control>,
    failed: bool,
}

fn said(source: Source, pieces: &[&[u8]]) -> Said {
    let (mut parser, mut said) = (Parser::new(source), Said::default());
    for mut piece in pieces.iter().copied() {
        loop {
            match parser.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(Event::Start(head))) => said.frames.push((head, vec![])),
                Ok(Some(Event::Data(payload))) => payload.read(|bytes| {
                    said.frames.last_mut().expect("a frame has begun").1.extend_from_slice(bytes);
                }),
                Ok(Some(Event::End)) => {
                    let (head, payload) = said.frames.last().expect("a frame has begun");
                    assert!(matches!(head.kind, Kind::Data(id) if id >> 31 == 0));
                    assert_eq!(head.len as usize, payload.len());
                }
                Ok(Some(Event::Control(control))) => {
                    said.controls.push(control);
                    let frame = &mut said.frames.last_mut().expect("a frame has begun").1;
                    let headers = parser.headers();
                    frame.extend_from_slice(headers.stream_type().unwrap_or_default());
                    frame.extend_from_slice(headers.port().unwrap_or_default().0);
                    assert!(frame.len() <= 2 * MAX_VALUE);
                    assert!(source == Source::Client || frame.is_empty());
                }
                Err(_) => {
                    said.failed = true;
                    break;
                }
            }
        }
    }
    said
}
