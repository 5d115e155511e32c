//! Kills at any moment, again and again on the same volume.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rustix::process::Signal;

use crate::lab::{Recorder, Sent, client, eventually};

const ROUNDS: u64 = 12;
const CLIENTS: u64 = 6;

#[tokio::test]
async fn many_kills_under_load_leave_every_acknowledged_byte_and_an_end_to_every_session() {
    let mut recorder = Recorder::start();
    let mut all: Vec<Sent> = Vec::new();
    for round in 0..ROUNDS {
        let progress = Arc::new(AtomicU64::new(0));
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            clients.push(client(recorder.plain, format!("s-{round}-{number}"), Arc::clone(&progress)).await);
        }
        // Another moment each time.
        let until = 1 + round * 37_003;
        eventually("progress", async || (progress.load(Ordering::Relaxed) >= until).then_some(())).await;
        recorder.signal(Signal::KILL);
        assert!(!recorder.ended().await.success());
        for client in clients {
            all.push(client.await.unwrap());
        }
        recorder = recorder.again();
    }
    let ended = async || {
        let metas = recorder.metas();
        metas.iter().all(|(.., meta)| meta["end"].is_object()).then_some(metas)
    };
    let metas = eventually("an end of every session", ended).await;
    for Sent { session, content, safe } in &all {
        let Some((_, cast, meta)) = metas.iter().find(|(name, ..)| name == session) else {
            assert_eq!(*safe, 0, "{session}");
            continue;
        };
        let stored = std::fs::read(cast).unwrap();
        let bytes = meta["end"]["bytes"].as_u64().unwrap();
        assert!(bytes >= *safe, "{session}: {bytes} of {safe}");
        assert!(content.as_bytes().starts_with(&stored), "{session} is not what was sent");
        assert_eq!(meta["end"]["outcome"], "interrupted");
        assert_eq!(bytes + meta["end"]["torn"].as_u64().unwrap_or(0), stored.len() as u64);
    }
    assert!(all.iter().map(|sent| sent.safe).sum::<u64>() > 100_000);
    assert!((recorder.metric("podwitness_recorder_quarantined_total").await).abs() < 0.5);
}
