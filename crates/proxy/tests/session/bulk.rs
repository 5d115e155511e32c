//! Much output: exact, and within bounds of memory.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use podwitness_core::grant::Obligation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::{kit::*, recorder::Ended};

const TOTAL: usize = 50_000_000;

/// Bytes that no codec likes.
fn noise(seed: &mut u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(*seed >> 16).to_le_bytes()[..6]);
    }
    bytes.truncate(len);
    bytes
}

async fn bulk(obligation: Obligation, memory: u64) {
    let dir = tempfile::tempdir().unwrap();
    let pod = Pod::with_spool(Some((dir.path().into(), 256 << 20)));
    let recorder = pod.recorder(ONE);
    let session = pod.session(meta(), obligation).await;
    let (mut server, mut client) = (session.server, session.client);
    let writer = tokio::spawn(async move {
        let (mut seed, mut left, mut sent) = (1, TOTAL, Context::new(&SHA256));
        while left > 0 {
            let payload = noise(&mut seed, left.min(32_768));
            left -= payload.len();
            sent.update(&payload);
            server.write_all(&frame(1, &payload)).await.unwrap();
        }
        server.write_all(&frame(3, SUCCESS.as_bytes())).await.unwrap();
        sent.finish()
    });
    let mut most = 0;
    let mut buffer = vec![0; 1 << 20];
    while client.read(&mut buffer).await.unwrap() > 0 {
        most = most.max(pod.metric("podwitness_session_memory_bytes"));
    }
    drop(client);
    let sent = writer.await.unwrap();
    eventually("the end", || recorder.uploads.lock().unwrap()[0].ended == Ended::Cleanly).await;
    let cast = Cast::parse(&recorder.uploads.lock().unwrap()[0].body);
    assert_eq!(cast.gaps(), 0);
    let mut recorded = Context::new(&SHA256);
    recorded.update(&cast.output());
    assert_eq!(recorded.finish().as_ref(), sent.as_ref());
    assert!(most <= memory, "{most} bytes of memory");
}

#[tokio::test(start_paused = true)]
async fn fifty_megabytes_of_noise_are_recorded_exactly_under_fail_open() {
    bulk(open(), 66 << 20).await;
}

#[tokio::test(start_paused = true)]
async fn fifty_megabytes_of_noise_are_recorded_exactly_under_fail_closed() {
    bulk(closed(), 20 << 20).await;
}

/// Says something that waits for whoever takes it, and something else meanwhile, and then no more.
async fn says_while_a_write_waits(
    from: &mut DuplexStream,
    to: &mut DuplexStream,
    frame: fn(u8, &[u8]) -> Vec<u8>,
) {
    let first = [frame(1, &[b'x'; 60_000]), frame(1, &[b'y'; 60_000])].concat();
    let last = frame(1, b"last");
    from.write_all(&first).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    from.write_all(&last).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut heard = vec![0; first.len() + last.len()];
    let all = tokio::time::timeout(Duration::from_secs(30), to.read_exact(&mut heard)).await;
    assert!(all.is_ok(), "the last frame does not arrive");
    assert!(heard == [first, last].concat());
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_write_waits_goes_on_although_nothing_follows() {
    let pod = Pod::new();
    let _recorder = pod.recorder(ONE);
    let Session { client, server, .. } = &mut pod.session(meta(), open()).await;
    says_while_a_write_waits(server, client, frame).await;
    says_while_a_write_waits(client, server, masked).await;
}
