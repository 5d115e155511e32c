//! A volume with a size limit: an owner that has more than its share is refused, and the others are served.

use podwitness_core::control::Taking;
use serde_json::json;

use super::*;
use crate::store::SpaceLimits;

const LIMIT: u64 = 4 << 20;
const FLOOD: &str = "fd00::f";

fn limited() -> Lab {
    let limits = SpaceLimits { size_limit: Some(LIMIT), ..SpaceLimits::floor(128 << 20) };
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::bounded(dir.path(), limits).unwrap());
    // The file system of tests may be nearly full.
    store.space().found(u64::MAX / 2);
    let mut lab = Lab::with(|parts| parts.store = store, 0);
    lab.dir = dir;
    lab
}

impl Lab {
    fn has_refused(&self, reason: &str) -> bool {
        let label = format!("podwitness_recorder_refused_total{{reason=\"{reason}\"}}");
        self.registry.encode().unwrap().lines().any(|line| line.starts_with(&label))
    }

    /// What an upload from there is answered, and its last word.
    async fn upload_from(&self, from: &str, content: &str) -> (StatusCode, Option<Ack>) {
        let (writer, body) = body();
        let mut client = self.h2_from(from.parse().unwrap(), Door::Plain).await;
        let response = client.send_request(request("POST", "/v2/record", body)).await.unwrap();
        let status = response.status();
        if status != StatusCode::OK {
            return (status, None);
        }
        let reading = Acks { body: response.into_body(), reader: Reader::new() };
        let last = tokio::spawn(async move { { reading }.last().await });
        for piece in content.as_bytes().chunks(32 << 10) {
            // A client that was refused is not read any more.
            if writer.0.send(Ok(Frame::data(Bytes::copy_from_slice(piece)))).await.is_err() {
                break;
            }
        }
        drop(writer);
        (status, last.await.unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_ends_at_its_share_and_others_are_recorded() {
    let lab = limited();
    let flood = HEADER.to_owned() + &line(1, &"x".repeat(1000)).repeat(5 << 10);
    let (_, last) = lab.upload_from(FLOOD, &flood).await;
    assert!(matches!(&last, Some(Ack::Failed(text)) if text.contains("more than its share")), "{last:?}");
    // What was acknowledged of it stays, and is an upload with an end.
    let (cast, meta) = lab.only();
    assert!(cast.len() as u64 > LIMIT / 4 && flood.as_bytes().starts_with(&cast));
    assert_eq!(meta.end.unwrap().outcome, Outcome::Failed);
    // Nothing new of it, and everything of others.
    let mut small = 0;
    while lab.upload_from(FLOOD, HEADER).await.0 == StatusCode::OK {
        small += 1;
        assert!(small < 200, "what is left of its share is little");
        tokio::time::advance(Duration::from_millis(20)).await;
    }
    assert!(lab.has_refused("share") && !lab.has_refused("full"));
    let small = HEADER.to_owned() + &line(1, "small");
    let other = lab.upload_from(FROM, &small).await;
    assert_eq!(other, (StatusCode::OK, Some(Ack::Received(small.len() as u64))));
    assert_eq!(lab.ingest.parts.store.space().state(), Taking::Limiting);
}

#[tokio::test(start_paused = true)]
async fn many_small_uploads_are_a_flood_too() {
    let lab = limited();
    let mut accepted = 0_u64;
    while lab.upload_from(FLOOD, HEADER).await.0 == StatusCode::OK {
        accepted += 1;
        assert!(accepted < 1000, "each takes blocks, and an inode or three");
        // What it may begin is refilled.
        tokio::time::advance(Duration::from_millis(20)).await;
    }
    assert!(accepted > 50, "{accepted}");
    assert_eq!(lab.upload_from(FROM, HEADER).await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_events_ends_at_its_share_and_events_of_others_are_stored() {
    let lab = limited();
    let random = |length: usize| {
        let mut bytes = vec![0; length];
        aws_lc_rs::rand::fill(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let send = async |from: &str, text: &str| {
        let (writer, body) = body();
        let mut request = request("POST", "/v2/event", body);
        request.headers_mut().insert("content-type", "application/x-ndjson".parse().unwrap());
        let mut client = lab.h2_from(from.parse().unwrap(), Door::Plain).await;
        let response = client.send_request(request).await.unwrap();
        if response.status() != StatusCode::OK {
            return None;
        }
        writer.send(text).await;
        drop(writer);
        Acks { body: response.into_body(), reader: Reader::new() }.last().await
    };
    let mut stored = 0;
    let last = loop {
        let event = json!({"type": "t", "x": random(20_000)}).to_string() + "\n";
        match send(FLOOD, &event).await {
            Some(Ack::Received(_)) => stored += 1,
            other => break other,
        }
        assert!(stored < 1000);
        tokio::time::advance(Duration::from_millis(20)).await;
    };
    assert!(stored > 10, "{stored}");
    assert!(last.is_none_or(|last| matches!(last, Ack::Failed(_))));
    let small = json!({"type": "t"}).to_string() + "\n";
    assert_eq!(send(FROM, &small).await, Some(Ack::Received(small.len() as u64)));
}

#[tokio::test(start_paused = true)]
async fn a_recording_whose_header_finds_no_room_leaves_nothing_behind() {
    let mut lab = limited();
    let limits = SpaceLimits { shares: false, ..SpaceLimits::floor(1) };
    let store = Arc::new(Store::bounded(lab.dir.path(), limits).unwrap());
    // Room for the files, and not for a header.
    store.space().found((16 << 10) + 20);
    lab = Lab { dir: lab.dir, ..Lab::with(|parts| parts.store = store, 0) };
    let (_, last) = lab.upload_from(FROM, HEADER).await;
    assert!(matches!(&last, Some(Ack::Failed(text)) if text.contains("bytes free")), "{last:?}");
    assert_eq!((lab.files("cast").len(), lab.files("json").len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_there_already_costs_its_owner_nothing() {
    let lab = limited();
    let header = "{\"version\":2,\"podwitness\":{\"session\":\"s\",\"part\":0,\"offset\":0}}\n";
    let (_, last) = lab.upload_from(FROM, header).await;
    assert_eq!(last, Some(Ack::Received(header.len() as u64)));
    let before = lab.ingest.parts.store.space().report().stored;
    for _ in 0..3 {
        let (_, last) = lab.upload_from(FROM, header).await;
        assert!(matches!(&last, Some(Ack::Failed(text)) if text.contains("stored already")), "{last:?}");
    }
    assert_eq!(lab.ingest.parts.store.space().report().stored, before);
}
