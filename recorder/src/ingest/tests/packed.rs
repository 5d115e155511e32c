//! Compressed uploads.

use podwitness_wire::pack::{self, pack};

use super::*;

async fn post(lab: &Lab) -> (Writer, Acks) {
    lab.post_as(Some("zstd")).await
}

/// Frames as a sidecar makes them.
fn frames(mut lines: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while !lines.is_empty() {
        let (frame, rest) = lines.split_at(pack::cut(lines));
        frames.push(pack(frame).unwrap());
        lines = rest;
    }
    frames
}

fn recording() -> String {
    let mut cast = HEADER.to_owned();
    for n in 0..6000 {
        cast.push_str(&line(
            n,
            &format!("2026-01-02 INFO request {n} served path=/api/v1/pods code=200\r\n"),
        ));
    }
    cast.push_str(&line(6001, &"wide ".repeat(40_000)));
    cast
}

#[tokio::test(start_paused = true)]
async fn a_compressed_upload_is_stored_and_acknowledged_as_what_it_becomes() {
    let cast = recording();
    let plain = Lab::new();
    let (writer, mut acks) = plain.post().await;
    let sending = tokio::spawn({
        let cast = cast.clone();
        async move { writer.send(cast).await }
    });
    assert_eq!(acks.last().await, Some(Ack::Received(cast.len() as u64)));
    sending.await.unwrap();

    let lab = Lab::new();
    let (writer, mut acks) = post(&lab).await;
    let packed = frames(cast.as_bytes()).concat();
    assert!(packed.len() * 10 < cast.len(), "{} of {} bytes", packed.len(), cast.len());
    // Pieces that end within frames.
    let sending = tokio::spawn(async move {
        for piece in packed.chunks(997) {
            writer.send(piece).await;
        }
    });
    assert_eq!(acks.last().await, Some(Ack::Received(cast.len() as u64)));
    sending.await.unwrap();

    assert!(lab.only().0 == cast.as_bytes(), "what is stored is not what was packed");
    assert!(plain.only().0 == lab.only().0, "both forms are stored alike");
    let (ours, theirs) = (lab.only().1, plain.only().1);
    assert_eq!((ours.end, ours.facts, ours.header_bytes), (theirs.end, theirs.facts, theirs.header_bytes));
}

#[tokio::test(start_paused = true)]
async fn each_frame_is_acknowledged_by_its_uncompressed_bytes() {
    let lab = Lab::new();
    let (writer, mut acks) = post(&lab).await;
    let mut sent = String::new();
    for text in [HEADER.to_owned(), line(1, &"x".repeat(5000)), line(2, "y")] {
        writer.send(pack(text.as_bytes()).unwrap()).await;
        sent.push_str(&text);
        acks.until(sent.len() as u64).await;
        assert_eq!(lab.only().0, sent.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_may_end_within_a_line() {
    let lab = Lab::new();
    let (writer, mut acks) = post(&lab).await;
    let cast = format!("{HEADER}{}", line(1, "text"));
    for piece in cast.as_bytes().chunks(10) {
        writer.send(pack(piece).unwrap()).await;
    }
    drop(writer);
    assert_eq!(acks.last().await, Some(Ack::Received(cast.len() as u64)));
    assert_eq!(lab.only().0, cast.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_ends_within_a_frame_keeps_the_lines_before_it() {
    let lab = Lab::new();
    let (writer, mut acks) = post(&lab).await;
    let good = format!("{HEADER}{}", line(1, "kept"));
    writer.send(pack(format!("{good}[2,\"o\",").as_bytes()).unwrap()).await;
    let cut = pack(line(2, "never whole").as_bytes()).unwrap();
    writer.send(cut.slice(..cut.len() - 1)).await;
    drop(writer);
    assert!(matches!(acks.last().await, Some(Ack::Failed(text)) if text.contains("ended early")));
    assert_eq!(lab.only().0, good.as_bytes());
    assert_eq!(lab.outcome(), Outcome::Lost);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_is_refused_by_name_and_the_lines_before_it_are_kept() {
    let undeclared: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    let huge: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x40];
    let endless = [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, 1][..], &[0; 300]].concat();
    for (hostile, hint) in [
        (HEADER.as_bytes(), "no zstd frame"),
        (undeclared, "declare"),
        (huge, "declares 1073741824 bytes"),
        (&endless, "larger than its content"),
    ] {
        let lab = Lab::new();
        let (writer, mut acks) = post(&lab).await;
        let good = format!("{HEADER}{}", line(1, "kept"));
        writer.send(pack(good.as_bytes()).unwrap()).await;
        writer.send(hostile).await;
        let last = acks.last().await;
        assert!(matches!(&last, Some(Ack::Failed(text)) if text.contains(hint)), "{hint}: {last:?}");
        assert_eq!(lab.only().0, good.as_bytes());
        assert_eq!(lab.outcome(), Outcome::Refused);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bomb_ends_at_the_cap_of_an_upload() {
    let lab = Lab::with(|parts| parts.upload_bytes = 3 << 20, 0);
    let (writer, mut acks) = post(&lab).await;
    let line = line(1, &"x".repeat(200_000));
    let bomb = pack(line.as_bytes()).unwrap();
    assert!(bomb.len() < 100, "{} bytes", bomb.len());
    // Two hundred megabytes in one piece.
    writer.send([pack(HEADER.as_bytes()).unwrap().to_vec(), bomb.repeat(1000)].concat()).await;
    assert!(matches!(acks.last().await, Some(Ack::Failed(text)) if text.contains("longer than 3145728")));
    assert_eq!(lab.only().0.len(), HEADER.len() + (3 << 20) / line.len() * line.len());
}

#[tokio::test(start_paused = true)]
async fn other_codings_and_the_form_without_acknowledgements_are_not_taken() {
    let lab = Lab::new();
    for (path, codings) in [
        ("/v2/record", &["gzip"][..]),
        ("/v2/record", &["zstd, zstd"]),
        ("/v2/record", &["identity", "zstd"]),
        ("/record", &["zstd"]),
    ] {
        let mut request = request("POST", path, no_body());
        for coding in codings {
            request.headers_mut().append("content-encoding", coding.parse().unwrap());
        }
        let response = lab.h2(Door::Plain).await.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path} {codings:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn room_is_given_back_when_uploads_end() {
    let lab = Lab::new();
    let whole = lab.ingest.waiting.free();
    for good in [true, false] {
        let (writer, mut acks) = post(&lab).await;
        let cast = recording();
        let mut packed = frames(cast.as_bytes()).concat();
        if !good {
            packed.extend(pack(b"no line\n").unwrap());
        }
        tokio::spawn(async move { writer.send(packed).await });
        assert_eq!(matches!(acks.last().await, Some(Ack::Received(_))), good);
    }
    assert_eq!(lab.ingest.waiting.free(), whole);
}

/// What 81 KB of zstd once cost: nine hundred lines of a megabyte that never end.
#[tokio::test(start_paused = true)]
async fn lines_that_never_end_take_memory_from_their_own_peer_only() {
    let lab = Lab::new();
    let (rightful, mut rightful_acks) = post(&lab).await;
    rightful.send(pack(HEADER.as_bytes()).unwrap()).await;
    rightful_acks.until(HEADER.len() as u64).await;

    let hostile = "fd00::bad".parse().unwrap();
    let half = [
        pack(HEADER.as_bytes()).unwrap(),
        pack(format!("[1,\"o\",\"{}", "x".repeat(250_000)).as_bytes()).unwrap(),
    ];
    let half = half.concat();
    assert!(half.len() < 300, "{} bytes", half.len());
    let mut held = Vec::new();
    for n in 0..900 {
        // New sessions are limited, too.
        tokio::time::advance(Duration::from_millis(20)).await;
        if n % 200 == 0 {
            held.push((lab.h2_from(hostile, Door::Plain).await, Vec::new()));
        }
        let (sender, uploads) = held.last_mut().unwrap();
        let (writer, body) = body();
        let mut request = request("POST", "/v2/record", body);
        request.headers_mut().insert("content-encoding", http::HeaderValue::from_static("zstd"));
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200, "{n}");
        // An upload that was ended reads no more.
        let _ = writer.0.send(Ok(Frame::data(half.clone().into()))).await;
        uploads.push((writer, response));
        assert!(lab.ingest.unfinished.used() <= MemoryBudget::default().unfinished.per_key);
    }
    let line = line(2, "still recorded");
    rightful.send(pack(line.as_bytes()).unwrap()).await;
    rightful_acks.until((HEADER.len() + line.len()) as u64).await;
    let told = lab.registry.encode().unwrap();
    let evicted =
        told.lines().find_map(|line| line.strip_prefix("podwitness_recorder_unfinished_evicted_total "));
    assert!(evicted.unwrap().parse::<u64>().unwrap() > 800, "{told}");
    drop(rightful);
    assert!(matches!(rightful_acks.last().await, Some(Ack::Received(_)) | None));

    // What is left of them ends by its time.
    tokio::time::advance(Duration::from_secs(31)).await;
    while lab.ingest.unfinished.used() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What cannot be stored yet is not unpacked beyond a share either.
#[tokio::test(start_paused = true)]
async fn bombs_that_wait_for_the_volume_wait_for_their_own_peer() {
    let lab = Lab::new();
    let budget = MemoryBudget::default();
    let commits = Arc::clone(&lab.ingest.backing.commits).acquire_many_owned(COMMITS as u32).await.unwrap();
    let bomb = pack(line(1, &"x".repeat(250_000)).as_bytes()).unwrap();
    let body_of = |n: u32| {
        let header = format!("{{\"version\":2,\"podwitness\":{{\"session\":\"s{n}\"}}}}\n");
        [pack(header.as_bytes()).unwrap().to_vec(), bomb.repeat(40)].concat()
    };
    let mut sender = lab.h2_from("fd00::bad".parse().unwrap(), Door::Plain).await;
    let mut uploads = Vec::new();
    for n in 0..200 {
        let (writer, body) = body();
        let mut request = request("POST", "/v2/record", body);
        request.headers_mut().insert("content-encoding", http::HeaderValue::from_static("zstd"));
        let response = sender.send_request(request).await.unwrap();
        writer.send(body_of(n)).await;
        uploads.push((writer, response));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(lab.ingest.waiting.free() >= budget.waiting.total - budget.waiting.per_key, "{n}");
        assert!(lab.ingest.reading.free() >= budget.reading.total - budget.reading.per_key, "{n}");
    }
    let (rightful, mut acks) = post(&lab).await;
    rightful.send(pack(HEADER.as_bytes()).unwrap()).await;
    drop(commits);
    acks.until(HEADER.len() as u64).await;
}

#[tokio::test(start_paused = true)]
async fn a_line_or_frame_that_stands_still_ends_its_upload() {
    let frame = pack(line(1, &"y".repeat(1000)).as_bytes()).unwrap();
    for (packed, rest) in
        [(true, frame.slice(..frame.len() - 1)), (false, Bytes::from_static(b"[1,\"o\",\"never"))]
    {
        let lab = Lab::new();
        let (writer, mut acks) = lab.post_as(packed.then_some("zstd")).await;
        writer.send(if packed { pack(HEADER.as_bytes()).unwrap() } else { HEADER.into() }).await;
        writer.send(rest).await;
        let begun = Instant::now();
        assert!(matches!(acks.last().await, Some(Ack::Failed(text)) if text.contains("within 30 s")));
        assert!(begun.elapsed() <= Duration::from_secs(31), "{:?}", begun.elapsed());
        assert_eq!((lab.only().0, lab.outcome()), (HEADER.as_bytes().to_vec(), Outcome::Refused));
        assert_eq!(lab.ingest.unfinished.used(), 0);
    }
}
