//! Many sessions at once, and how much of them is durable: `cargo bench -p podwitness-recorder --bench sessions`. Clients
//! and recorder share the process and the machine's processors; recordings lie below the directory in `STORE`, or on the
//! disk of the machine's temporary files.
//!
//! `SESSIONS` (500) sessions say a line of 512 bytes a second for `SECONDS` (10); of each line it is measured how long its
//! acknowledgement takes. Then `STREAMS` (8) sessions say as much as is taken for as long.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a measurement")]

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::join_all, stream};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podwitness_core::grant::AckLevel;
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
use tokio::{
    io::duplex,
    sync::{mpsc, watch},
    time::{Instant, interval_at, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

const LINE: usize = 512;

struct Client {
    lines: mpsc::Sender<Bytes>,
    answer: Incoming,
    reader: Reader,
    safe: u64,
}

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn header(session: u32) -> Bytes {
    format!(
        "{{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1700000000,\"podwitness\":{{\"session\":\"{session}\"}}}}\n"
    )
    .into()
}

impl Client {
    /// One pod with one session.
    async fn start(ingest: &Arc<Ingest>, session: u32) -> Self {
        let (ours, theirs) = duplex(64 << 10);
        let from = IpAddr::from([10, (session >> 16) as u8, (session >> 8) as u8, session as u8]);
        tokio::spawn(Arc::clone(ingest).connection(theirs, from, Door::Plain));
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
        tokio::spawn(connection);
        let (lines, queue) = mpsc::channel::<Bytes>(2);
        let frames = stream::unfold(queue, |mut queue| async {
            let line = queue.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(line)), queue))
        });
        let request = Request::post("http://recorder/v2/record").header("content-encoding", "zstd");
        let request = request.body(StreamBody::new(Box::pin(frames))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Self { lines, answer: response.into_body(), reader: Reader::new(), safe: 0 }
    }

    async fn say(&self, lines: &[u8]) {
        self.lines.send(pack(lines).unwrap()).await.unwrap();
    }

    async fn heard(&mut self, bytes: u64) {
        while self.safe < bytes {
            let frame = self.answer.frame().await.unwrap().unwrap().into_data().unwrap();
            let safe = &mut self.safe;
            self.reader
                .feed(&frame, |ack| match ack {
                    Ack::Received(bytes) => *safe = bytes,
                    Ack::Failed(text) => assert_eq!(text, "", "the upload failed"),
                })
                .unwrap();
        }
    }
}

fn line(at: u32) -> Vec<u8> {
    let mut line = format!("[{at},\"o\",\"").into_bytes();
    while line.len() < LINE - 3 {
        line.push(b'a' + u8::try_from((line.len() * 7 + at as usize) % 26).unwrap());
    }
    line.extend_from_slice(b"\"]\n");
    line
}

/// How long each acknowledgement took.
async fn live(ingest: &Arc<Ingest>, sessions: u32, seconds: u32) -> Vec<Duration> {
    let begun = Instant::now() + Duration::from_secs(2) + Duration::from_millis(sessions.into());
    let all = (0..sessions).map(|session| {
        let ingest = Arc::clone(ingest);
        tokio::spawn(async move {
            let mut client = Client::start(&ingest, session).await;
            let header = header(session);
            client.say(&header).await;
            let mut sent = header.len() as u64;
            client.heard(sent).await;
            // Spread over the second.
            let offset = Duration::from_secs(1) * session / sessions;
            let mut ticks = interval_at(begun + offset, Duration::from_secs(1));
            let mut took = Vec::new();
            for at in 0..seconds {
                ticks.tick().await;
                let (line, now) = (line(at), Instant::now());
                client.say(&line).await;
                sent += line.len() as u64;
                client.heard(sent).await;
                took.push(now.elapsed());
            }
            (client, took)
        })
    });
    // Ending them costs much more than a line of each, and begins when all have said theirs.
    let all: Vec<(Client, Vec<Duration>)> = join_all(all).await.into_iter().map(Result::unwrap).collect();
    let mut took: Vec<Duration> = all.iter().flat_map(|(_, took)| took.iter().copied()).collect();
    took.sort_unstable();
    took
}

/// Bytes that were acknowledged.
async fn bulk(ingest: &Arc<Ingest>, streams: u32, seconds: u32) -> u64 {
    let text: Vec<u8> = (0..2048).flat_map(line).collect();
    let mut frames = Vec::new();
    let mut rest = &text[..];
    while !rest.is_empty() {
        let (lines, behind) = rest.split_at(cut(rest));
        frames.push((pack(lines).unwrap(), lines.len() as u64));
        rest = behind;
    }
    let until = Instant::now() + Duration::from_secs(seconds.into());
    let all = (0..streams).map(|number| {
        let (ingest, frames) = (Arc::clone(ingest), frames.clone());
        tokio::spawn(async move {
            let session = (1 << 20) + number;
            let mut client = Client::start(&ingest, session).await;
            let header = header(session);
            client.say(&header).await;
            let lines = client.lines.clone();
            let sending = tokio::spawn(async move {
                let mut sent = header.len() as u64;
                while Instant::now() < until {
                    for (frame, bytes) in &frames {
                        lines.send(frame.clone()).await.unwrap();
                        sent += bytes;
                    }
                }
                sent
            });
            sleep_until(until).await;
            let sent = sending.await.unwrap();
            timeout(Duration::from_secs(60), client.heard(sent)).await.unwrap();
            sent
        })
    });
    join_all(all).await.into_iter().map(Result::unwrap).sum()
}

fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_once(':')).map(|(_, size)| size.trim().to_owned()).unwrap()
}

#[tokio::main]
async fn main() {
    let (sessions, seconds, streams) = (number("SESSIONS", 500), number("SECONDS", 10), number("STREAMS", 8));
    let dir = std::env::var("STORE").map_or_else(|_| tempfile::tempdir(), tempfile::tempdir_in).unwrap();
    let (_signal, drain) = Drain::new();
    let store = Arc::new(Store::open(dir.path(), 0).unwrap());
    let log = store.events().unwrap();
    let parts = Parts {
        metrics: Metrics::register(&SharedRegistry::new(), &store),
        store,
        clock: Arc::new(SystemClock),
        issuers: watch::Sender::new(Arc::from([])).subscribe(),
        peers: Peers::new(Caps { all_sessions: 1 << 16, ..Caps::default() }),
        memory: MemoryBudget::default(),
        ack: AckLevel::Process,
        shipper: None,
        upload_bytes: 1 << 40,
        drain,
        closing: CancellationToken::new(),
    };
    let ingest = Ingest::new(parts, log);
    let took = live(&ingest, sessions, seconds).await;
    let at = |share: usize| took.get((took.len() * share / 1000).min(took.len() - 1)).unwrap();
    println!(
        "{sessions} sessions: acknowledged in {:?} (median), {:?} (99 %), {:?} (99.9 %); peak memory {}",
        at(500),
        at(990),
        at(999),
        peak()
    );
    let begun = Instant::now();
    let bytes = bulk(&ingest, streams, seconds).await;
    let rate = bytes as f64 / 1e6 / begun.elapsed().as_secs_f64();
    println!("{streams} streams: {rate:.0} MB/s of cast data, acknowledged; peak memory {}", peak());
}
