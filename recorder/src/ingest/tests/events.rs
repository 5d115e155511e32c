//! API events, one at a time and as a stream.

use http_body_util::Full;
use podwitness_wire::pack::{Unpacker, pack};
use serde_json::{Value, json};

use super::*;

const NDJSON: &str = "application/x-ndjson";

fn event(n: u64) -> String {
    json!({"type": "kubernetes-api-request", "id": "", "timestamp": n, "userAgent": "test"}).to_string()
}

impl Lab {
    /// A stream of events, compressed or not.
    async fn stream(&self, packed: bool) -> (Writer, Acks) {
        let (writer, body) = body();
        let mut request = request("POST", "/v2/event", body);
        request.headers_mut().insert("content-type", http::HeaderValue::from_static(NDJSON));
        if packed {
            request.headers_mut().insert("content-encoding", http::HeaderValue::from_static("zstd"));
        }
        let response = self.h2(Door::Plain).await.send_request(request).await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["podwitness-accept-events"]),
            (StatusCode::OK, &NDJSON.parse().unwrap())
        );
        (writer, Acks { body: response.into_body(), reader: Reader::new() })
    }

    /// One event over HTTP/1.1, as the reference sends it.
    async fn one(&self, text: &str) -> (StatusCode, String) {
        let io = TokioIo::new(self.connect(Door::Plain));
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let head = Request::head("/v2/event").header("host", "recorder").body(Full::default()).unwrap();
        let answer = sender.send_request(head).await.unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()["podwitness-accept-events"]),
            (StatusCode::OK, &NDJSON.parse().unwrap())
        );
        let post =
            Request::post("/v2/event").header("host", "recorder").header("content-type", "application/json");
        let body = Full::new(Bytes::from(text.to_owned()));
        let answer = sender.send_request(post.body(body).unwrap()).await.unwrap();
        let status = answer.status();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    /// Every stored event, in order.
    async fn events(&self) -> Vec<Value> {
        self.ingest.finish().await;
        let mut found = Vec::new();
        for file in self.files("zst") {
            let (mut bytes, mut unpacker) = (Bytes::from(std::fs::read(file).unwrap()), Unpacker::new());
            while let Some(lines) = unpacker.unpack(&mut bytes).unwrap() {
                let lines = lines.split_inclusive(|byte| *byte == b'\n');
                found.extend(lines.map(|line| serde_json::from_slice::<Value>(line).unwrap()));
            }
        }
        found
    }
}

fn times(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["timestamp"].as_u64().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_event_is_answered_with_the_place_where_it_lies() {
    let lab = Lab::new();
    let (status, text) = lab.one(&format!("{}\n", event(7))).await;
    assert_eq!(status, 200, "{text}");
    let id = serde_json::from_str::<Value>(&text).unwrap()["id"].as_str().unwrap().to_owned();
    let events = lab.events().await;
    assert_eq!((times(&events), &events[0]["id"]), (vec![7], &json!(id)));
    let (path, line) = id.split_once('#').unwrap();
    assert_eq!((lab.dir.path().join(path).is_file(), line), (true, "0"), "{id}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_is_refused_with_a_reason() {
    let lab = Lab::new();
    let (status, text) = lab.one("{}").await;
    assert_eq!((status, text.contains("no event")), (StatusCode::BAD_REQUEST, true), "{text}");
    let long = json!({"type": "a", "x": "x".repeat(3 << 20)}).to_string();
    assert_eq!(lab.one(&long).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(lab.events().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_acknowledged_by_whole_lines_however_it_is_cut() {
    let lab = Lab::new();
    let (writer, mut acks) = lab.stream(false).await;
    let (first, second) = (format!("{}\n", event(1)), format!("{}\n", event(2)));
    let (begin, rest) = second.split_at(9);
    writer.send(format!("{first}{begin}")).await;
    acks.until(first.len() as u64).await;
    writer.send(rest).await;
    acks.until((first.len() + second.len()) as u64).await;
    writer.send(event(3)).await;
    drop(writer);
    let all = (first.len() + second.len() + event(3).len() + 1) as u64;
    assert_eq!(acks.last().await, Some(Ack::Received(all)));
    assert_eq!(times(&lab.events().await), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_compressed_stream_counts_what_it_becomes() {
    let lab = Lab::new();
    let (writer, mut acks) = lab.stream(true).await;
    let lines: String = (0..500).map(|n| format!("{}\n", event(n))).collect();
    for part in lines.as_bytes().chunks(20_000) {
        writer.send(pack(part).unwrap()).await;
    }
    acks.until(lines.len() as u64).await;
    drop(writer);
    assert_eq!(times(&lab.events().await), (0..500).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_bad_line_ends_a_stream_and_what_stood_before_it_is_stored() {
    let lab = Lab::new();
    let (writer, mut acks) = lab.stream(false).await;
    writer.send(format!("{}\nnonsense\n{}\n", event(1), event(2))).await;
    let Some(Ack::Failed(text)) = acks.last().await else { panic!("no error") };
    assert!(text.contains("no event"), "{text}");
    assert_eq!(times(&lab.events().await), [1]);
}

#[tokio::test(start_paused = true)]
async fn streams_that_live_at_the_end_are_told() {
    let lab = Lab::new();
    let (writer, mut acks) = lab.stream(false).await;
    writer.send(format!("{}\n", event(1))).await;
    acks.until(event(1).len() as u64 + 1).await;
    lab.ingest.parts.closing.cancel();
    assert!(matches!(acks.last().await, Some(Ack::Failed(_))));
    assert_eq!(times(&lab.events().await), [1]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_hears_in_time() {
    let lab = Lab::new();
    let (_writer, mut acks) = lab.stream(false).await;
    for _ in 0..3 {
        let asked = Instant::now();
        assert_eq!(acks.next().await, Some(Ack::Received(0)));
        assert!(asked.elapsed() <= Duration::from_secs(5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_is_published_after_a_while() {
    let lab = Lab::new();
    assert_eq!(lab.one(&event(1)).await.0, 200);
    let table = lab.dir.path().join("events");
    let published = || lab.files("zst").iter().filter(|path| !path.starts_with(table.join(".open"))).count();
    assert_eq!(published(), 0);
    let asked = Instant::now();
    while published() == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(asked.elapsed() < Duration::from_secs(60));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_volume_takes_no_events() {
    let lab = Lab::with(|_| {}, u64::MAX);
    assert_eq!(lab.one(&event(1)).await.0, StatusCode::INSUFFICIENT_STORAGE);
}

#[tokio::test(start_paused = true)]
async fn two_streams_do_not_mix_lines() {
    let lab = Lab::new();
    let ((one, mut one_acks), (other, mut other_acks)) = (lab.stream(false).await, lab.stream(false).await);
    let (a, b) = (format!("{}\n", event(1)), format!("{}\n", event(2)));
    let (begin, rest) = a.split_at(5);
    one.send(begin).await;
    other.send(&b).await;
    other_acks.until(b.len() as u64).await;
    one.send(rest).await;
    one_acks.until(a.len() as u64).await;
    assert_eq!(times(&lab.events().await), [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn events_that_never_end_take_memory_from_their_own_peer_only_and_have_their_time() {
    let lab = Lab::new();
    let (rightful, mut rightful_acks) = lab.stream(false).await;
    let hostile: IpAddr = "fd00::bad".parse().unwrap();
    let mut sender = lab.h2_from(hostile, Door::Plain).await;
    let mut held = Vec::new();
    for n in 0..60 {
        // One event a request, and a stream of them.
        let kind = if n % 2 == 0 { "application/json" } else { NDJSON };
        let (writer, body) = body();
        let mut request = request("POST", "/v2/event", body);
        request.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
        let response = tokio::spawn(sender.send_request(request));
        writer.send("{\"type\":\"a\",\"x\":\"").await;
        for _ in 0..4 {
            let _ = writer.0.send(Ok(Frame::data("x".repeat(60_000).into()))).await;
        }
        tokio::task::yield_now().await;
        assert!(lab.ingest.unfinished.used() <= MemoryBudget::default().unfinished.per_key);
        held.push((writer, response));
    }
    let one = format!("{}\n", event(1));
    rightful.send(&one).await;
    rightful_acks.until(one.len() as u64).await;
    let mut late = 0;
    for (_writer, response) in held {
        let mut response = response.await.unwrap().unwrap();
        late += u32::from(response.status() == StatusCode::REQUEST_TIMEOUT);
        while response.body_mut().frame().await.is_some() {}
    }
    assert!(late > 0, "the first of them had no time limit");
    assert_eq!(lab.ingest.unfinished.used(), 0);
    assert_eq!(lab.ingest.waiting.free(), MemoryBudget::default().waiting.total);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_stream_is_no_longer_than_a_frame() {
    let lab = Lab::new();
    let (writer, mut acks) = lab.stream(false).await;
    let long = json!({"type": "a", "x": "x".repeat(300 << 10)}).to_string();
    writer.send(format!("{}\n{long}\n", event(1))).await;
    assert!(matches!(acks.last().await, Some(Ack::Failed(text)) if text.contains("262144 in a stream")));
    assert_eq!(lab.one(&long).await.0, StatusCode::OK, "one of its own may be longer");
}
