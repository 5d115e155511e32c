//! Throughput of what runs over every byte of a recorded session: `cargo bench -p podwitness-wire`.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use podwitness_wire::{
    cast::{Encoder, Stream},
    channel::{Decoder, Event, Protocol, Source},
    ws::{Opcode, encode},
};

const FRAME: usize = 32 << 10;

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

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(FRAME as u64));
    let payload = vec![1; FRAME];
    for (name, mask) in [("plain", None), ("masked", Some([1, 2, 3, 4]))] {
        let frame = encode(Opcode::Binary, &payload, mask);
        group.bench_function(name, |bencher| {
            let mut decoder = Decoder::speaking(Protocol::V5, Source::Server);
            bencher.iter(|| {
                decoder.feed(black_box(&frame), |event| {
                    if let Event::Stdout(payload) = event {
                        payload.read(|bytes| _ = black_box(bytes));
                    }
                })
            });
        });
    }
    group.finish();
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

criterion_group!(benches, decode, record);
criterion_main!(benches);
