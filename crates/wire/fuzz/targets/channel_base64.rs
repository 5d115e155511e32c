//! The base64 versions say what was encoded, and the same however their bytes are cut.
#![no_main]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use libfuzzer_sys::fuzz_target;
use podwitness_wire::{
    channel::{Decoder, Event, Protocol, STDERR, STDOUT, Source},
    ws::{Opcode, encode},
};

/// A channel, whether its frame is text, where to break it in two, and bytes.
type Message<'a> = (u8, bool, u16, &'a [u8]);
/// Where to cut, messages, and bytes behind them.
type Input<'a> = (usize, Vec<Message<'a>>, &'a [u8]);

fuzz_target!(|input: Input<'_>| {
    let (cut, messages, raw) = input;
    let mut expected = Said::default();
    let mut stream: Vec<u8> =
        messages.into_iter().flat_map(|message| write(message, &mut expected)).collect();
    assert_eq!(said(Source::Server, cut, &stream), expected);

    stream.extend_from_slice(raw);
    for source in [Source::Client, Source::Server] {
        assert_eq!(said(source, cut, &stream), said(source, 0, &stream));
    }
});

/// A message in two fragments.
fn write((channel, text, at, bytes): Message<'_>, expected: &mut Said) -> Vec<u8> {
    let channel = channel % 3;
    match channel {
        STDOUT => expected.stdout.extend_from_slice(bytes),
        STDERR => expected.stderr.extend_from_slice(bytes),
        _ => {}
    }
    let message = format!("{channel}{}", STANDARD.encode(bytes)).into_bytes();
    let (first, second) = message.split_at(usize::from(at) % message.len());
    let mut frame = encode(if text { Opcode::Text } else { Opcode::Binary }, first, None);
    frame[0] &= 0x7f;
    frame.extend(encode(Opcode::Continuation, second, Some([1, 2, 3, 4])));
    frame
}

#[derive(Debug, Default, PartialEq)]
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    statuses: Vec<Vec<u8>>,
    resizes: usize,
    failed: bool,
}

fn said(source: Source, cut: usize, bytes: &[u8]) -> Said {
    let (mut decoder, mut said) = (Decoder::speaking(Protocol::Base64V1, source), Said::default());
    let (head, tail) = bytes.split_at(cut % (bytes.len() + 1));
    for piece in [head, tail] {
        let fed = decoder.feed(piece, |event| match event {
            Event::Stdout(payload) => payload.read(|bytes| said.stdout.extend_from_slice(bytes)),
            Event::Stderr(payload) => payload.read(|bytes| said.stderr.extend_from_slice(bytes)),
            Event::Status(bytes) => said.statuses.push(bytes.to_vec()),
            Event::Resize(_) => said.resizes += 1,
            Event::Flow(_) | Event::Undecoded(_) => panic!("{event:?}"),
        });
        said.failed |= fed.is_err();
    }
    said
}
