//! Frames and units of any bytes are the same however the bytes are cut, and units are the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podwitness_wire::{
    channel::Source,
    spdy::{Control, Event, Head, Kind, MAX_BLOCK, MAX_HELD, MAX_PADDING, Parser, Units},
};

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let (head, tail) = bytes.split_at(cut % (bytes.len() + 1));
    for source in [Source::Client, Source::Server] {
        assert_eq!(said(source, &[head, tail]), said(source, &[bytes]));
    }

    let (mut units, mut rest, mut passed) = (Units::new(), bytes, 0);
    while let Ok(Some(unit)) = units.peek(rest) {
        assert!(0 < unit.len && unit.len <= MAX_HELD);
        units.gone_on(unit);
        assert!(units.finish().is_none_or(|open| open.len() as u64 <= MAX_PADDING));
        rest = &rest[unit.len..];
        passed += unit.len;
    }
    assert_eq!(passed + rest.len(), bytes.len());
});

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
                    for (name, value) in parser.headers() {
                        frame.extend([name, value].concat());
                    }
                    assert!(frame.len() <= MAX_BLOCK);
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
