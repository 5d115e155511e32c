//! Throughput of what runs over every byte of a recorded session: `cargo bench -p podwitness-wire`.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use podwitness_wire::{
    archive::{Archive, PIECE, Piece, is_readable},
    cast::{Encoder, Stream},
    channel::{Event, Protocol},
    session::{Direction, Language, Transport, directions},
    spdy::data,
    ws::{Opcode, encode},
};

const FRAME: usize = 32 << 10;

/// Streams 1 error, 3 stdin and 5 stdout as client-go opens them.
const OPENED: &[u8] = b"\x80\x03\0\x01\0\0\0\x29\0\0\0\x01\0\0\0\0\0\0\
    \x78\xf9\xe3\xc6\xa7\xc2\x62\x60\x60\x60\x04\xa7\xb3\x92\xa2\xd4\xc4\x5c\x68\x51\xc2\x9a\x0a\x0a\x68\0\0\0\0\xff\xff\
    \x80\x03\0\x01\0\0\0\x17\0\0\0\x03\0\0\0\0\0\0\xc2\x2e\x55\x5c\x92\x92\x99\x07\0\0\0\xff\xff\
    \x80\x03\0\x01\0\0\0\x19\0\0\0\x05\0\0\0\0\0\0\xc2\x2a\xc5\x56\x5c\x92\x92\x5f\x5a\x02\0\0\0\xff\xff";

/// Kinds of output, from the kindest to the cruellest.
fn outputs() -> [(&'static str, Vec<u8>); 4] {
    let log = b"2026-01-02T03:04:05Z INFO request served path=/api/v1/pods code=200 took=12ms\n";
    let cyrillic = "Съешь же ещё этих мягких французских булок\n".as_bytes();
    let mut state = 0x9e37_79b9_u32;
    let random = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    [
        ("log", log.iter().copied().cycle().take(FRAME).collect()),
        ("yes", b"y\n".iter().copied().cycle().take(FRAME).collect()),
        ("cyrillic", cyrillic.iter().copied().cycle().take(FRAME).collect()),
        ("random", random.take(FRAME).collect()),
    ]
}

/// Output in frames of a size, looked at as a relay looks at it.
fn decode(criterion: &mut Criterion) {
    for (size, len) in [("32k", FRAME), ("64", 64)] {
        let mut group = criterion.benchmark_group(format!("decode-{size}"));
        group.throughput(Throughput::Bytes(FRAME as u64));
        let payload = vec![1; len];
        let base64 = [b"1".as_slice(), &vec![b'x'; len]].concat();
        let frames = |frame: Vec<u8>| frame.repeat(FRAME / len);
        for (name, transport, protocol, stream) in [
            ("plain", Transport::WebSocket, Protocol::V5, frames(encode(Opcode::Binary, &payload, None))),
            (
                "masked",
                Transport::WebSocket,
                Protocol::V5,
                frames(encode(Opcode::Binary, &payload, Some([1, 2, 3, 4]))),
            ),
            ("base64", Transport::WebSocket, Protocol::Base64V4, frames(encode(Opcode::Text, &base64, None))),
            ("spdy", Transport::Spdy, Protocol::V4, frames(data(5, &payload, false))),
        ] {
            let (mut client, mut server) = directions(Language::Command(transport, protocol));
            if transport == Transport::Spdy {
                assert_eq!(client.feed(OPENED, |_| {}), Ok(()));
            }
            group.bench_function(name, |bencher| bencher.iter(|| follow(&mut server, black_box(&stream))));
        }
        group.finish();
    }
}

fn follow(direction: &mut Direction, mut stream: &[u8]) {
    while let Ok(Some(unit)) = direction.peek(stream) {
        let (front, rest) = stream.split_at(unit.len);
        let fed = direction.feed(front, |event| {
            if let Event::Stdout(payload) = event {
                payload.read(|bytes| _ = black_box(bytes));
            }
        });
        assert!(fed.is_ok());
        direction.gone_on(unit);
        stream = rest;
    }
}

fn record(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Bytes(FRAME as u64));
    for (name, bytes) in outputs() {
        group.bench_function(name, |bencher| {
            let (mut encoder, mut out) = (Encoder::new(), Vec::new());
            bencher.iter(|| {
                out.clear();
                encoder.output(&mut out, Duration::from_secs(1), Stream::Stdout, black_box(&bytes));
                black_box(&out);
            });
        });
    }
    group.finish();
}

/// The content of a member that does not end, followed and judged.
fn archive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("archive");
    group.throughput(Throughput::Bytes(FRAME as u64));
    for (name, bytes) in outputs() {
        let mut archive = Archive::new();
        assert!(archive.feed(&endless(), |_| {}).is_empty());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                archive.feed(black_box(&bytes), |piece| {
                    if let Piece::Content(content) = piece {
                        black_box(content.chunks(PIECE).filter(|piece| is_readable(piece)).count());
                    }
                });
            });
        });
    }
    group.finish();
}

/// The header of a member of as many bytes as one can have.
fn endless() -> Vec<u8> {
    let mut header = b"core".to_vec();
    header.resize(124, 0);
    header.extend_from_slice(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
    header.resize(148, 0);
    header.extend_from_slice(b"        0");
    header.resize(257, 0);
    header.extend_from_slice(b"ustar  \0");
    header.resize(512, 0);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header.splice(148..156, format!("{sum:06o}\0 ").into_bytes());
    header
}

criterion_group!(benches, decode, record, archive);
criterion_main!(benches);
