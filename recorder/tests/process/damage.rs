//! A volume on which something was damaged.

use podwitness_wire::ack::Ack;
use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{Acks, Recorder, Writer, acks, eventually, header, line, upload};

/// Begins a session, all of which is acknowledged; it lasts as long as what this gives.
async fn session(recorder: &Recorder, name: &str) -> (String, (Writer, Acks)) {
    let (writer, answer) = upload(recorder.plain).await;
    let content = header(name) + &line(1, "said");
    assert!(writer.send(&content).await);
    let mut acks = acks(answer);
    while acks.next().await.expect("it is acknowledged") != Ack::Received(content.len() as u64) {}
    (content, (writer, acks))
}

#[tokio::test]
async fn what_cannot_be_read_is_moved_aside_and_everything_else_goes_on() {
    let mut recorder = Recorder::start();
    let (bad, _bad) = session(&recorder, "bad").await;
    let (good, _good) = session(&recorder, "good").await;
    recorder.signal(Signal::KILL);
    assert!(!recorder.ended().await.success());
    let of = |name: &str| recorder.metas().into_iter().find(|(session, ..)| session == name).unwrap().1;
    let (damaged, sound) = (of("bad"), of("good"));
    std::fs::write(damaged.with_extension("json"), b"{\"owner\":\0\0\0\0").unwrap();

    let recorder = recorder.again();
    let moved = "podwitness_recorder_quarantined_total";
    eventually("it is moved aside", async || (recorder.metric(moved).await > 1.5).then_some(())).await;
    let aside = recorder.volume().join("quarantine").join(damaged.strip_prefix(recorder.volume()).unwrap());
    assert!(!damaged.exists() && !damaged.with_extension("json").exists());
    assert_eq!(std::fs::read(aside).unwrap(), bad.as_bytes());
    let end = async || recorder.metas().into_iter().find(|(.., meta)| meta["end"].is_object());
    let (name, _, meta) = eventually("the other has its end", end).await;
    assert_eq!((name.as_str(), &meta["end"]["outcome"]), ("good", &Value::from("interrupted")));
    assert_eq!(std::fs::read(sound).unwrap(), good.as_bytes());

    // Nobody else notices.
    let (_, _new) = session(&recorder, "new").await;
    assert_eq!(recorder.admin_status("/readyz").await, 200);
    let list: Value = serde_json::from_slice(&recorder.viewer().get("/api/v1/sessions").await).unwrap();
    let mut names: Vec<&str> =
        list["sessions"].as_array().unwrap().iter().filter_map(|one| one["session"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["good", "new"]);
}
