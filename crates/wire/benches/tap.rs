//! What following costs a relay, on one core: `cargo bench -p podwitness-wire --bench tap`.
//!
//! Both relays read up to 64 KiB from a socket and write them all to another; one follows the frames in between, and
//! holds back what is not whole. Only the relay is timed, not the ends of the sockets, which share its thread.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    missing_docs,
    reason = "a measurement, by the real clock"
)]

use std::{
    hint::black_box,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use podwitness_wire::{
    channel::{Event, Protocol},
    session::{Direction, Language, Transport, directions},
    ws::{Opcode, encode},
};

const READ: usize = 64 << 10;

/// The two sockets of a relay, its buffer, and the far ends.
struct Relay {
    server: UnixStream,
    from: UnixStream,
    to: UnixStream,
    client: UnixStream,
    buffer: Vec<u8>,
    held: usize,
}

impl Relay {
    fn new() -> Self {
        let ((server, from), (to, client)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        Self { server, from, to, client, buffer: vec![0; 2 * READ], held: 0 }
    }

    /// Passes what the server says on to the client; gives the time of the relay.
    fn pass(&mut self, said: &[u8], follow: impl FnOnce(&[u8]) -> usize) -> Duration {
        self.server.write_all(said).unwrap();
        let begun = Instant::now();
        let filled = self.held + self.from.read(&mut self.buffer[self.held..][..READ]).unwrap();
        let ready = follow(&self.buffer[..filled]);
        self.to.write_all(&self.buffer[..ready]).unwrap();
        self.buffer.copy_within(ready..filled, 0);
        self.held = filled - ready;
        let took = begun.elapsed();
        self.client.read_exact(&mut vec![0; ready]).unwrap();
        took
    }

    /// Passes a stream of repeated frames on, as often as asked.
    fn rounds(&mut self, count: u64, frames: &[u8], mut follow: impl FnMut(&[u8]) -> usize) -> Duration {
        let chunks = || frames.chunks(READ);
        (0..count).map(|_| chunks().map(|said| self.pass(said, &mut follow)).sum::<Duration>()).sum()
    }
}

/// Bytes at the front that may go on.
fn follow(server: &mut Direction, bytes: &[u8]) -> usize {
    let mut ready = 0;
    while let Ok(Some(unit)) = server.peek(&bytes[ready..]) {
        let see = |event: Event<'_>| {
            if let Event::Stdout(payload) = event {
                payload.read(|bytes| _ = black_box(bytes));
            }
        };
        server.feed(&bytes[ready..ready + unit.len], see).unwrap();
        server.gone_on(unit);
        ready += unit.len;
    }
    ready
}

fn tap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tap");
    for (size, len) in [("32k", 32 << 10), ("4k", 4 << 10), ("64", 64)] {
        let payload = [vec![1], vec![b'x'; len]].concat();
        let frames = encode(Opcode::Binary, &payload, None).repeat((256 << 10) / len);
        group.throughput(Throughput::Bytes(frames.len() as u64));
        group.bench_function(BenchmarkId::new("relay", size), |bencher| {
            bencher.iter_custom(|count| Relay::new().rounds(count, &frames, <[u8]>::len));
        });
        group.bench_function(BenchmarkId::new("tapped", size), |bencher| {
            let (_, mut server) = directions(Language::Command(Transport::WebSocket, Protocol::V5));
            bencher
                .iter_custom(|count| Relay::new().rounds(count, &frames, |bytes| follow(&mut server, bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, tap);
criterion_main!(benches);
