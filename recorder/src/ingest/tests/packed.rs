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
    cast.push_str(&line(6001, &"wide ".repeat(60_000)));
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
    let whole = lab.ingest.room.free();
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
    assert_eq!(lab.ingest.room.free(), whole);
}
