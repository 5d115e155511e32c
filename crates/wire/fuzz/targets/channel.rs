//! A session says the same however its bytes are cut, in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podwitness_wire::channel::{Decoder, Event, MAX_STATUS, Protocol, Source};

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let (head, tail) = bytes.split_at(cut % (bytes.len() + 1));
    for source in [Source::Client, Source::Server] {
        assert_eq!(said(source, &[head, tail]), said(source, &[bytes]));
    }
});

#[derive(Debug, Default, PartialEq)]
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    statuses: Vec<Vec<u8>>,
    resizes: Vec<(u16, u16)>,
    failed: bool,
}

fn said(source: Source, pieces: &[&[u8]]) -> Said {
    let (mut decoder, mut said) = (Decoder::speaking(Protocol::V5, source), Said::default());
    for piece in pieces {
        let fed = decoder.feed(piece, |event| match event {
            Event::Stdout(payload) => payload.read(|bytes| said.stdout.extend_from_slice(bytes)),
            Event::Stderr(payload) => payload.read(|bytes| said.stderr.extend_from_slice(bytes)),
            Event::Status(bytes) => {
                assert!(bytes.len() <= MAX_STATUS);
                said.statuses.push(bytes.to_vec());
            }
            Event::Resize(size) => said.resizes.push((size.cols, size.rows)),
            Event::Flow(_) | Event::Undecoded(_) => panic!("{event:?}"),
        });
        said.failed |= fed.is_err();
    }
    said
}
