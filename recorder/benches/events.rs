//! How many API events a recorder acknowledges on one core: `cargo bench -p podwitness-recorder`. The client is on the
//! same core, the events lie on the disk of the machine's temporary files.

#![allow(clippy::unwrap_used, missing_docs, reason = "a measurement")]

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use futures_util::{StreamExt as _, stream};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use podwitness_core::{
    event::{Asked, Event},
    grant::AckLevel,
    request_info::RequestInfo,
};
use podwitness_recorder::{
    ingest::{Door, Ingest, Parts},
    memory::MemoryBudget,
    metrics::Metrics,
    peers::{Caps, Peers},
    store::Store,
};
use podwitness_runtime::{clock::SystemClock, drain::Drain, metrics::SharedRegistry};
use podwitness_wire::{
    ack::{Ack, Reader},
    pack::{cut, pack},
};
use tokio::{io::duplex, runtime::Builder, sync::watch};
use tokio_util::sync::CancellationToken;

const COUNT: usize = 20_000;

fn event() -> Vec<u8> {
    let target = "/api/v1/namespaces/shop/pods?labelSelector=app%3Dtill&limit=500";
    let mut event = Event {
        timestamp: 1_795_526_711,
        user_agent: "kubectl/v1.34.1 (linux/amd64) kubernetes/93248f9".into(),
        request: Asked::new("GET", target, &[]),
        kubernetes: RequestInfo::parse("GET", target).unwrap(),
        ..Event::default()
    };
    event.podwitness.caller.effective.name = "system:serviceaccount:shop:till".into();
    event.into_line()
}

/// The frames of a stream of so many events, and how many bytes they become.
fn frames() -> (Vec<Bytes>, u64) {
    let all = event().repeat(COUNT);
    let (mut rest, mut frames) = (&all[..], Vec::new());
    while !rest.is_empty() {
        let (lines, behind) = rest.split_at(cut(rest));
        frames.push(pack(lines).unwrap());
        rest = behind;
    }
    (frames, all.len() as u64)
}

async fn acknowledged(ingest: &Arc<Ingest>, frames: &[Bytes], bytes: u64) {
    let (ours, theirs) = duplex(1 << 20);
    tokio::spawn(Arc::clone(ingest).connection(theirs, [127, 0, 0, 1].into(), Door::Plain));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
    tokio::spawn(connection);
    let body = stream::iter(frames.to_vec()).map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let request = Request::post("http://recorder/v2/event")
        .header("content-type", "application/x-ndjson")
        .header("content-encoding", "zstd")
        .body(StreamBody::new(body))
        .unwrap();
    let mut answer = sender.send_request(request).await.unwrap().into_body();
    let (mut reader, mut safe) = (Reader::new(), 0);
    while let Some(frame) = answer.frame().await {
        reader
            .feed(&frame.unwrap().into_data().unwrap(), |ack| {
                if let Ack::Received(bytes) = ack {
                    safe = bytes;
                }
            })
            .unwrap();
    }
    assert_eq!(safe, bytes);
}

fn events(criterion: &mut Criterion) {
    // One thread for everything but the synchronisation of the disk.
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (_signal, drain) = Drain::new();
    let store = Arc::new(Store::open(dir.path(), 0).unwrap());
    let log = store.events().unwrap();
    let parts = Parts {
        metrics: Metrics::register(&SharedRegistry::new(), &store),
        store,
        clock: Arc::new(SystemClock),
        issuers: watch::Sender::new(Arc::from([])).subscribe(),
        peers: Peers::new(Caps { burst: 1 << 20, shared_burst: 1 << 20, ..Caps::default() }),
        memory: MemoryBudget::default(),
        ack: AckLevel::Process,
        shipper: None,
        upload_bytes: 8 << 20,
        drain,
        closing: CancellationToken::new(),
    };
    let ingest = runtime.block_on(async { Ingest::new(parts, log) });
    let (frames, bytes) = frames();
    let mut group = criterion.benchmark_group("events");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).throughput(Throughput::Elements(COUNT as u64));
    group.bench_function("acknowledged", |bencher| {
        bencher.iter(|| runtime.block_on(acknowledged(&ingest, &frames, bytes)));
    });
    group.finish();
}

criterion_group!(benches, events);
criterion_main!(benches);
