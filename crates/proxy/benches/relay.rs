//! What recording costs: output through a relayed session, with the recorder in the same thread, against the same
//! bytes through two pipes: `cargo bench -p podwitness-proxy`. Packing costs its CPU time here, and unpacking too; the
//! packets that it saves are not seen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    missing_docs,
    reason = "shares its pod and its recorder with the tests"
)]

#[path = "../tests/session/kit.rs"]
mod kit;
#[path = "../tests/session/recorder.rs"]
mod recorder;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use podwitness_core::grant::Obligation;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime::Builder,
    time::Instant,
};

use kit::{ONE, Pod, closed, frame, meta, open};

const TOTAL: usize = 32 << 20;
const FRAME: usize = 32 << 10;

fn text() -> Vec<u8> {
    let line = b"2026-01-02T03:04:05Z INFO request served path=/api/v1/pods code=200 took=12ms\n";
    line.iter().copied().cycle().take(FRAME).collect()
}

fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(FRAME).collect()
}

/// Sends all of it from one end and reads it at the other.
async fn through(server: &mut DuplexStream, client: &mut DuplexStream, payload: &[u8]) {
    let frame = frame(1, payload);
    let count = TOTAL / FRAME;
    let write = async {
        for _ in 0..count {
            server.write_all(&frame).await.ok();
        }
    };
    let read = async {
        let (mut left, mut buffer) = (count * frame.len(), vec![0; 64 << 10]);
        while left > 0 {
            left -= client.read(&mut buffer).await.unwrap_or(left);
        }
    };
    tokio::join!(write, read);
}

/// The time that so many rounds take; without an obligation there is nothing between the ends.
fn rounds(count: u64, obligation: Option<Obligation>, packs: bool, payload: &[u8]) -> Duration {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let pod = Pod::new();
        let _recorder = pod.network.add_reading(ONE, Some("volume"), packs);
        pod.name(&[ONE]);
        let (mut server, mut client) = match obligation {
            None => duplex(64 << 10),
            Some(obligation) => {
                let session = pod.session(meta(), obligation).await;
                (session.server, session.client)
            }
        };
        let begun = Instant::now();
        for _ in 0..count {
            through(&mut server, &mut client, payload).await;
        }
        begun.elapsed()
    })
}

fn relay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("relay");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(10).sampling_mode(SamplingMode::Flat);
    for (kind, payload) in [("text", text()), ("noise", noise())] {
        for (policy, obligation, packs) in [
            ("pipes", None, false),
            ("open", Some(open()), false),
            ("closed", Some(closed()), false),
            ("packed", Some(open()), true),
        ] {
            group.bench_function(BenchmarkId::new(policy, kind), |bencher| {
                bencher.iter_custom(|count| rounds(count, obligation.clone(), packs, &payload));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, relay);
criterion_main!(benches);
