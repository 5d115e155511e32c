//! Throughput of packed uploads, in bytes before compression, and what they become: `cargo bench -p podwitness-wire`.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use podwitness_wire::{
    cast::{Encoder, Stream},
    pack::{self, FRAME, Unpacker, pack},
};

/// Numbers that do not repeat.
fn random() -> impl FnMut() -> u32 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    }
}

/// A frame's lines: a log whose lines differ, a terminal that is typed at, and bytes that are no text.
fn outputs() -> [(&'static str, Vec<u8>); 3] {
    let mut random = random();
    let log: String = (0..2000)
        .map(|n| {
            let (id, code, took) = (random(), 200 + random() % 5, random() % 900);
            format!("2026-01-02T03:04:{:02}Z INFO request id={id:08x} path=/api/v1/pods/{n} code={code} took={took}ms\r\n", n / 40)
        })
        .collect();
    let noise: Vec<u8> = std::iter::repeat_with(|| random().to_be_bytes()[0]).take(FRAME).collect();
    [
        ("log", lines(log.as_bytes(), 4096)),
        ("typed", lines(log.as_bytes(), 8)),
        ("noise", lines(&noise, 32 << 10)),
    ]
}

fn lines(output: &[u8], piece: usize) -> Vec<u8> {
    let (mut encoder, mut lines) = (Encoder::new(), Vec::new());
    for (n, piece) in (0..).zip(output.chunks(piece)) {
        encoder.output(&mut lines, Duration::from_micros(n * 1234), Stream::Stdout, piece);
    }
    lines.truncate(pack::cut(&lines));
    lines
}

fn packing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pack");
    for (name, lines) in outputs() {
        let Ok(frame) = pack(&lines) else { continue };
        eprintln!("{name}: {} bytes become {}", lines.len(), frame.len());
        group.throughput(Throughput::Bytes(lines.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| pack(black_box(&lines))));
    }
    group.finish();
}

fn unpacking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unpack");
    for (name, lines) in outputs() {
        let Ok(frame) = pack(&lines) else { continue };
        group.throughput(Throughput::Bytes(lines.len() as u64));
        group.bench_function(name, |bencher| {
            let mut unpacker = Unpacker::new();
            bencher.iter(|| unpacker.unpack(&mut Bytes::clone(black_box(&frame))));
        });
    }
    group.finish();
}

criterion_group!(benches, packing, unpacking);
criterion_main!(benches);
