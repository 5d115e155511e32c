//! The protocol as clients see it, over pipes and a paused clock.

use std::{path::PathBuf, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podwitness_runtime::{
    clock::ManualClock,
    drain::{Drain, Drained, Signal},
    metrics::SharedRegistry,
};
use podwitness_wire::ack::{Ack, Reader};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{Instant, timeout},
};

mod events;
mod packed;
mod peers;
mod reference;
mod space;

use super::*;
use crate::{peers::Caps, store::meta::Meta};

const FROM: &str = "fd00::9";
const HEADER: &str =
    "{\"version\":2,\"width\":0,\"height\":0,\"timestamp\":1700000000,\"srcNode\":\"a\",\"env\":null}\n";

type BodyOf = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

struct Lab {
    ingest: Arc<Ingest>,
    signal: Option<Signal>,
    registry: SharedRegistry,
    dir: tempfile::TempDir,
}

/// A request body that is written step by step.
struct Writer(mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>);

impl Writer {
    async fn send(&self, text: impl AsRef<[u8]>) {
        self.0.send(Ok(Frame::data(Bytes::copy_from_slice(text.as_ref())))).await.unwrap();
    }

    async fn break_off(self) {
        self.0.send(Err(std::io::ErrorKind::BrokenPipe.into())).await.unwrap();
    }
}

/// The frames of a response.
struct Acks {
    body: Incoming,
    reader: Reader,
}

impl Acks {
    async fn next(&mut self) -> Option<Ack> {
        let mut seen = Vec::new();
        while seen.is_empty() {
            let frame =
                timeout(Duration::from_secs(60), self.body.frame()).await.expect("a frame in time")?;
            let data = frame.unwrap().into_data().unwrap();
            self.reader.feed(&data, |ack| seen.push(ack)).unwrap();
        }
        assert_eq!(seen.len(), 1);
        seen.pop()
    }

    async fn until(&mut self, bytes: u64) {
        while self.next().await.expect("more acknowledgements") != Ack::Received(bytes) {}
    }

    /// What the response ends with.
    async fn last(&mut self) -> Option<Ack> {
        let mut last = None;
        while let Some(ack) = self.next().await {
            last = Some(ack);
        }
        last
    }
}

impl Lab {
    fn new() -> Self {
        Self::with(|_| {}, 0)
    }

    fn with(change: impl FnOnce(&mut Parts), floor: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (signal, drain) = Drain::new();
        let registry = SharedRegistry::new();
        let store = Arc::new(Store::open(dir.path(), floor).unwrap());
        let mut parts = Parts {
            metrics: Metrics::register(&registry, &store),
            store,
            clock: Arc::new(ManualClock::at(1_700_000_000)),
            issuers: watch::Sender::new(Arc::from([])).subscribe(),
            peers: Peers::new(Caps::default()),
            memory: MemoryBudget::default(),
            ack: AckLevel::Process,
            shipper: None,
            upload_bytes: 8 << 20,
            drain,
            closing: CancellationToken::new(),
        };
        change(&mut parts);
        let events = parts.store.events().unwrap();
        Self { ingest: Ingest::new(parts, events), signal: Some(signal), registry, dir }
    }

    fn connect(&self, door: Door) -> DuplexStream {
        self.connect_from(FROM.parse().unwrap(), door)
    }

    fn connect_from(&self, from: IpAddr, door: Door) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        tokio::spawn(Arc::clone(&self.ingest).connection(theirs, from, door));
        ours
    }

    async fn h2(&self, door: Door) -> http2::SendRequest<BodyOf> {
        self.h2_from(FROM.parse().unwrap(), door).await
    }

    async fn h2_from(&self, from: IpAddr, door: Door) -> http2::SendRequest<BodyOf> {
        let io = TokioIo::new(self.connect_from(from, door));
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn post(&self) -> (Writer, Acks) {
        self.post_as(None).await
    }

    async fn post_as(&self, encoding: Option<&'static str>) -> (Writer, Acks) {
        let (writer, body) = body();
        let mut request = request("POST", "/v2/record", body);
        if let Some(encoding) = encoding {
            request.headers_mut().insert("content-encoding", http::HeaderValue::from_static(encoding));
        }
        let response = self.h2(Door::Plain).await.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["podwitness-ack"], "process");
        assert_eq!(response.headers()["podwitness-accept-encoding"], "zstd");
        (writer, Acks { body: response.into_body(), reader: Reader::new() })
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.dir.path().to_owned()];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|found| found == extension) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    fn only(&self) -> (Vec<u8>, Meta) {
        let [cast] = self.files("cast").try_into().unwrap();
        let meta = std::fs::read(cast.with_extension("json")).unwrap();
        (std::fs::read(cast).unwrap(), serde_json::from_slice(&meta).unwrap())
    }

    fn outcome(&self) -> Outcome {
        self.only().1.end.expect("an end").outcome
    }
}

fn body() -> (Writer, BodyOf) {
    let (sender, receiver) = mpsc::channel(4);
    let frames = stream::unfold(receiver, |mut frames| async { frames.recv().await.map(|f| (f, frames)) });
    (Writer(sender), BodyOf::new(StreamBody::new(frames)))
}

fn no_body() -> BodyOf {
    BodyOf::new(http_body_util::Empty::new().map_err(|never| match never {}))
}

fn request(method: &str, path: &str, body: BodyOf) -> Request<BodyOf> {
    Request::builder().method(method).uri(format!("http://recorder{path}")).body(body).unwrap()
}

fn line(at: u32, text: &str) -> String {
    format!("[{at},\"o\",{}]\n", serde_json::Value::from(text))
}

#[tokio::test(start_paused = true)]
async fn both_versions_of_http_say_that_uploads_are_taken() {
    let lab = Lab::new();
    let mut h2 = lab.h2(Door::Plain).await;
    let response = h2.send_request(request("HEAD", "/v2/record", no_body())).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, http::Version::HTTP_2));
    assert_eq!(response.headers()["podwitness-ack"], "process");
    assert_eq!(response.headers()["podwitness-accept-encoding"], "zstd");

    let (mut h1, connection) = http1::handshake(TokioIo::new(lab.connect(Door::Plain))).await.unwrap();
    tokio::spawn(connection);
    let response = h1.send_request(request("HEAD", "/v2/record", no_body())).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, http::Version::HTTP_11));
}

#[tokio::test(start_paused = true)]
async fn a_mebibyte_of_random_output_is_stored_byte_for_byte() {
    let lab = Lab::new();
    let mut random = vec![0; 1 << 20];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let (writer, mut acks) = lab.post().await;
    let mut sent = HEADER.to_owned();
    writer.send(HEADER).await;
    let reading = tokio::spawn(async move { acks.last().await });
    for chunk in random.chunks(4096) {
        let line = line(1, &String::from_utf8_lossy(chunk));
        sent.push_str(&line);
        writer.send(&line).await;
    }
    drop(writer);
    assert_eq!(reading.await.unwrap(), Some(Ack::Received(sent.len() as u64)));
    let (cast, meta) = lab.only();
    assert_eq!(digest(&SHA256, &cast).as_ref(), digest(&SHA256, sent.as_bytes()).as_ref());
    let end = meta.end.unwrap();
    assert_eq!((end.outcome, end.bytes, end.duration), (Outcome::Complete, sent.len() as u64, 1.0));
}

#[tokio::test(start_paused = true)]
async fn headers_of_the_answer_come_before_anything_is_sent() {
    let lab = Lab::new();
    let (writer, mut acks) = lab.post().await;
    drop(writer);
    assert_eq!(acks.last().await, None);
    assert_eq!(lab.files("cast"), Vec::<PathBuf>::new());
}

#[tokio::test(start_paused = true)]
async fn an_idle_upload_hears_something_every_five_seconds() {
    let lab = Lab::new();
    let (writer, mut acks) = lab.post().await;
    writer.send(HEADER).await;
    acks.until(HEADER.len() as u64).await;
    for _ in 0..5 {
        let before = Instant::now();
        assert_eq!(acks.next().await, Some(Ack::Received(HEADER.len() as u64)));
        assert!(before.elapsed() <= Duration::from_secs(5), "{:?}", before.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_is_in_the_file_and_half_a_line_is_not_acknowledged() {
    let lab = Lab::new();
    let (writer, mut acks) = lab.post().await;
    let mut sent = HEADER.to_owned();
    writer.send(HEADER).await;
    for n in 0..20 {
        let line = line(n, "x");
        let (front, back) = line.split_at(5);
        writer.send(front).await;
        assert_eq!(acks.next().await, Some(Ack::Received(sent.len() as u64)));
        writer.send(back).await;
        sent.push_str(&line);
        acks.until(sent.len() as u64).await;
        assert_eq!(lab.only().0, sent.as_bytes());
        assert_eq!(lab.only().1.end, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_line_ends_in_an_error_and_keeps_what_stood_before() {
    let lab = Lab::new();
    let (writer, mut acks) = lab.post().await;
    let good = format!("{HEADER}{}", line(1, "kept"));
    writer.send(&format!("{good}{{\"not\":\"an event\"}}\n{}", line(2, "never"))).await;
    assert!(matches!(acks.last().await, Some(Ack::Failed(text)) if text.contains("line 3")));
    assert_eq!(lab.only().0, good.as_bytes());
    assert_eq!(lab.outcome(), Outcome::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_header_stores_nothing() {
    for header in
        ["no json\n", "[]\n", "{\"version\":1}\n", "{\"version\":2,\"podwitness\":{\"session\":\"../x\"}}\n"]
    {
        let lab = Lab::new();
        let (writer, mut acks) = lab.post().await;
        writer.send(header).await;
        assert!(matches!(acks.last().await, Some(Ack::Failed(_))), "{header}");
        assert_eq!(lab.files("cast"), Vec::<PathBuf>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_is_uploaded_once_and_later_parts_lie_beside_it() {
    let lab = Lab::new();
    let header = |part: u32| {
        format!(
            "{{\"version\":2,\"podwitness\":{{\"session\":\"s\",\"part\":{part},\"offset\":{}}}}}\n",
            part * 10
        )
    };
    for part in [0, 1] {
        let (writer, mut acks) = lab.post().await;
        writer.send(&header(part)).await;
        drop(writer);
        assert_eq!(acks.last().await, Some(Ack::Received(header(part).len() as u64)));
    }
    let (writer, mut acks) = lab.post().await;
    writer.send(&format!("{}{}", header(0), line(1, "forged"))).await;
    assert!(matches!(acks.last().await, Some(Ack::Failed(text)) if text.contains("stored already")));
    let files = lab.files("cast");
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["s.0.cast", "s.1.cast"]);
    assert_eq!(std::fs::read_to_string(&files[0]).unwrap(), header(0));
    assert!(files[0].parent().unwrap().ends_with("2023/11/14/unverified/fd00--9"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_leaves_a_recording_that_says_so() {
    let mut lab = Lab::new();
    let (writer, mut acks) = lab.post().await;
    writer.send(HEADER).await;
    acks.until(HEADER.len() as u64).await;
    writer.break_off().await;
    // The drain waits for the upload's end in the store.
    assert_eq!(lab.signal.take().unwrap().drain(Duration::from_secs(600)).await, Drained::All);
    assert_eq!(lab.outcome(), Outcome::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_uploads_finish_and_then_ends_them_with_an_error() {
    let mut lab = Lab::new();
    let (finishing, mut first) = lab.post().await;
    let (staying, mut second) = lab.post().await;
    finishing.send(HEADER).await;
    staying.send(HEADER).await;
    first.until(HEADER.len() as u64).await;
    let drain = tokio::spawn(lab.signal.take().unwrap().drain(Duration::from_secs(30)));
    lab.ingest.parts.drain.draining().await;
    finishing.send(&line(1, "still taken")).await;
    drop(finishing);
    assert!(matches!(first.last().await, Some(Ack::Received(_))));
    lab.ingest.parts.closing.cancel();
    assert_eq!(second.last().await, Some(Ack::Failed("the recorder is shutting down".into())));
    assert_eq!(drain.await.unwrap(), Drained::All);
    drop(staying);
}

#[tokio::test(start_paused = true)]
async fn a_full_volume_refuses_before_anything_is_sent() {
    let lab = Lab::with(|_| {}, u64::MAX);
    let mut h2 = lab.h2(Door::Plain).await;
    for (path, body) in [("/v2/record", body().1), ("/record", no_body())] {
        let response = h2.send_request(request("POST", path, body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::INSUFFICIENT_STORAGE, "{path}");
    }
    assert!(lab.registry.encode().unwrap().contains("podwitness_recorder_refused_total{reason=\"full\"} 2"));
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_becomes_full_ends_in_an_error_frame() {
    let lab = Lab::with(|_| {}, 1);
    let (writer, mut acks) = lab.post().await;
    lab.ingest.parts.store.space().found(0);
    writer.send(HEADER).await;
    assert!(matches!(acks.last().await, Some(Ack::Failed(text)) if text.contains("bytes free")));
    assert!(
        lab.registry.encode().unwrap().contains("podwitness_recorder_sessions_total{outcome=\"failed\"} 1")
    );
}

#[tokio::test(start_paused = true)]
async fn an_upload_above_its_cap_ends_in_an_error_frame() {
    let lab = Lab::with(|parts| parts.upload_bytes = 200, 0);
    let (writer, mut acks) = lab.post().await;
    writer.send(HEADER).await;
    acks.until(HEADER.len() as u64).await;
    writer.send(&line(1, &"x".repeat(200))).await;
    assert!(matches!(acks.last().await, Some(Ack::Failed(text)) if text.contains("longer than 200")));
    assert_eq!(lab.only().0, HEADER.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_recording_of_version_1_is_answered_400() {
    let lab = Lab::new();
    for text in ["no header\n", "{\"version\":2}\nno line\n"] {
        let io = TokioIo::new(lab.connect(Door::Plain));
        let (mut h1, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let (writer, body) = body();
        let response = h1.send_request(request("POST", "/record", body));
        writer.send(text).await;
        drop(writer);
        assert_eq!(response.await.unwrap().status(), StatusCode::BAD_REQUEST, "{text:?}");
    }
}

/// A gate that knows one peer, who never shows an assertion.
struct Strangers(IpAddr, podwitness_tunnel::PublicKey);

impl Gatekeeper for Strangers {
    fn peer(&self, from: std::net::Ipv6Addr) -> Option<TunnelPeer> {
        (from == self.0).then_some(TunnelPeer { key: self.1, admitted: false })
    }

    fn admit(&self, _: &podwitness_tunnel::PublicKey, _: Duration) -> bool {
        false
    }
}

fn strangers(from: &str) -> Door {
    let key = podwitness_tunnel::PrivateKey::generate().unwrap().public();
    Door::Tunnel(Arc::new(Strangers(from.parse().unwrap(), key)))
}

#[tokio::test(start_paused = true)]
async fn refusals_are_over_with_their_headers() {
    let lab = Lab::with(
        |parts| parts.peers = Peers::new(Caps { shared_burst: 0, events: 0, ..Caps::default() }),
        0,
    );
    let stranger = || strangers(FROM);
    for (door, method, path, status) in [
        (stranger(), "POST", "/v2/record", 403),
        (stranger(), "HEAD", "/v2/record", 403),
        (stranger(), "GET", "/", 403),
        (stranger(), "POST", "/record", 403),
        (Door::Plain, "POST", "/v2/record", 429),
        (Door::Plain, "GET", "/v2/record", 405),
        (stranger(), "HEAD", "/v2/event", 403),
        (stranger(), "POST", "/v2/event", 403),
        (Door::Plain, "POST", "/v2/event", 429),
        (Door::Plain, "GET", "/v2/event", 405),
        (Door::Plain, "GET", "/v2/record/", 404),
    ] {
        let (_writer, body) = body();
        let response = lab.h2(door).await.send_request(request(method, path, body)).await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        assert!(http_body::Body::is_end_stream(response.body()), "{method} {path}");
    }
    assert_eq!(lab.files("cast"), Vec::<PathBuf>::new());
}

#[tokio::test(start_paused = true)]
async fn a_stranger_cannot_keep_a_connection() {
    let lab = Lab::new();
    let mut stream = lab.connect(strangers(FROM));
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let before = Instant::now();
    let mut sink = Vec::new();
    stream.read_to_end(&mut sink).await.unwrap();
    assert!(before.elapsed() <= Duration::from_secs(11));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_from_what_did_not_come_through_the_tunnel() {
    let lab = Lab::new();
    let before = Instant::now();
    let mut stream = lab.connect(strangers("fd00::7"));
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_form_without_acknowledgements_waits_for_100_and_ends_with_200() {
    let lab = Lab::new();
    let mut stream = lab.connect(Door::Plain);
    stream
        .write_all(
            b"POST /record HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        )
        .await
        .unwrap();
    let mut answer = vec![0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let rest = format!("{}{}0\r\n\r\n", chunk(HEADER), chunk(&line(1, "x")));
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = vec![0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK");
    assert_eq!(lab.outcome(), Outcome::Complete);
    assert_eq!(lab.only().0, format!("{HEADER}{}", line(1, "x")).as_bytes());
}

#[tokio::test(start_paused = true)]
async fn two_uploads_share_a_connection() {
    let lab = Lab::new();
    let mut sender = lab.h2(Door::Plain).await;
    let mut uploads = Vec::new();
    for _ in 0..2 {
        let (writer, body) = body();
        let response = sender.send_request(request("POST", "/v2/record", body)).await.unwrap();
        uploads.push((writer, Acks { body: response.into_body(), reader: Reader::new() }));
    }
    for (writer, acks) in &mut uploads {
        writer.send(HEADER).await;
        acks.until(HEADER.len() as u64).await;
    }
    assert_eq!(lab.files("cast").len(), 2);
}
