//! Volumes and buckets that are full: what was acknowledged is there, the state says what is wrong, and everything goes
//! on by itself once there is room.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use podwitness_wire::ack::Ack;

use crate::{
    bucket::{Mode, Server},
    lab::{Recorder, Sent, acks, begin, client, eventually, header, line, upload},
    s3::{Lab, session, shown},
    volume::Volume,
};

const MIB: u64 = 1 << 20;

async fn until(recorder: &Recorder, what: &str, metric: &str, holds: impl Fn(f64) -> bool) {
    eventually(what, async || holds(recorder.metric(metric).await).then_some(())).await;
}

async fn comes_to_be(recorder: &Recorder, state: &str, ready: u16) {
    let metric = format!("podwitness_recorder_state{{state=\"{state}\"}}");
    until(recorder, &format!("the recorder is {state}"), &metric, |value| value > 0.5).await;
    assert_eq!(recorder.admin_status("/readyz").await, ready, "{state}");
}

async fn fails(recorder: &Recorder, class: &str) {
    let metric = format!("podwitness_recorder_bucket_failing{{class=\"{class}\"}}");
    until(recorder, &format!("the bucket is {class}"), &metric, |value| value > 0.5).await;
}

async fn nothing_waits(recorder: &Recorder) {
    let metric = "podwitness_recorder_bucket_backlog_bytes";
    until(recorder, "nothing waits", metric, |bytes| bytes < 0.5).await;
}

/// Half a megabyte at once; nothing, where the recorder takes nothing any more.
async fn large(recorder: &Recorder, session: String) -> Option<Sent> {
    let (writer, response) = begin(recorder.plain).await;
    if response.status() == 507 {
        return None;
    }
    assert_eq!(response.status(), 200);
    let content = header(&session) + &line(1, &"x".repeat(1000)).repeat(512);
    assert!(writer.send(&content).await);
    drop(writer);
    let (mut acks, mut safe) = (acks(response.into_body()), 0);
    while let Some(Ack::Received(bytes)) = acks.next().await {
        safe = bytes;
    }
    Some(Sent { session, content, safe })
}

/// Everything acknowledged is shown by somebody who has the bucket alone.
async fn is_in_the_bucket(recorder: &Recorder, all: &[Sent]) {
    let elsewhere = recorder.elsewhere();
    let viewer = elsewhere.viewer();
    for Sent { session, content, safe } in all.iter().filter(|sent| sent.safe > 0) {
        let cast = shown(&viewer, session).await;
        assert!(cast.len() as u64 >= *safe, "{session}: {} of {safe}", cast.len());
        assert!(content.as_bytes().starts_with(&cast), "{session} is not what was sent");
    }
}

#[tokio::test]
#[ignore = "needs an S3 server and root"]
async fn a_full_bucket_is_told_and_takes_everything_once_there_is_room() {
    let lab = Lab::of(Server::on(Volume::small(16)).await).await;
    let recorder = lab.recorder_on(&Arc::new(Volume::new()), "audit", &[("PODWITNESS_ACK", "volume")]);
    lab.server.volume().leave(0);
    let content = session(&recorder, "s").await;
    fails(&recorder, "full").await;
    comes_to_be(&recorder, "degraded", 200).await;
    assert!(lab.manifests("audit").is_empty());
    lab.server.volume().give_back();
    eventually("it is in the bucket", async || (lab.manifests("audit").len() == 1).then_some(())).await;
    nothing_waits(&recorder).await;
    comes_to_be(&recorder, "accepting", 200).await;
    is_in_the_bucket(&recorder, &[Sent { session: "s".into(), safe: content.len() as u64, content }]).await;
}

#[tokio::test]
#[ignore = "needs an S3 server and root"]
async fn an_outage_of_the_bucket_that_outlasts_the_volume_loses_nothing_acknowledged() {
    let (lab, volume) = (Lab::new().await, Arc::new(Volume::small(32)));
    volume.leave(9 * MIB);
    let settings =
        [("PODWITNESS_ACK", "volume"), ("PODWITNESS_FREE_SPACE", "4Mi"), ("PODWITNESS_SHARES", "false")];
    let recorder = lab.recorder_on(&volume, "audit", &settings);
    comes_to_be(&recorder, "accepting", 200).await;
    lab.way.set(Mode::Refuse);
    let (lasting, answer) = upload(recorder.plain).await;
    let said = header("lasting");
    assert!(lasting.send(&said).await);
    let mut answer = acks(answer);
    while answer.next().await.expect("it is acknowledged") != Ack::Received(said.len() as u64) {}
    let mut all = vec![Sent { session: "lasting".into(), safe: said.len() as u64, content: said }];
    // The floor is looked at once a second: more than is between it and nothing never comes.
    for number in 0..15 {
        match large(&recorder, format!("s-{number}")).await {
            Some(sent) => all.push(sent),
            None => break,
        }
    }
    comes_to_be(&recorder, "refusing", 503).await;
    fails(&recorder, "unreachable").await;
    assert!(volume.free() > 0 && volume.free() < 5 * MIB, "{} bytes are free", volume.free());
    assert!(large(&recorder, "late".into()).await.is_none(), "nothing new is taken");
    // What lasts ends with a word instead of filling what is left.
    assert!(lasting.send(&line(1, "more")).await);
    let mut last = None;
    while let Some(ack) = answer.next().await {
        last = Some(ack);
    }
    assert!(matches!(&last, Some(Ack::Failed(text)) if text.contains("bytes free")), "{last:?}");

    lab.way.set(Mode::Pass);
    nothing_waits(&recorder).await;
    // What is in the bucket makes room.
    comes_to_be(&recorder, "accepting", 200).await;
    assert!(volume.free() >= 8 * MIB, "{} bytes are free", volume.free());
    let after = session(&recorder, "after").await;
    nothing_waits(&recorder).await;
    all.push(Sent { session: "after".into(), safe: after.len() as u64, content: after });
    is_in_the_bucket(&recorder, &all).await;
}

#[tokio::test]
#[ignore = "needs an S3 server and root"]
async fn a_volume_that_others_fill_to_the_last_byte_loses_nothing_acknowledged() {
    let (lab, volume) = (Lab::new().await, Arc::new(Volume::small(16)));
    let settings =
        [("PODWITNESS_ACK", "volume"), ("PODWITNESS_FREE_SPACE", "1Mi"), ("PODWITNESS_SHARES", "false")];
    let recorder = lab.recorder_on(&volume, "audit", &settings);
    let (progress, mut clients) = ([(); 3].map(|()| Arc::new(AtomicU64::new(0))), Vec::new());
    for (number, progress) in progress.iter().enumerate() {
        clients.push(client(recorder.plain, format!("s-{number}"), Arc::clone(progress)).await);
    }
    let all_have = async || progress.iter().all(|one| one.load(Ordering::Relaxed) > 5000).then_some(());
    eventually("all have something acknowledged", all_have).await;
    volume.leave(0);
    let mut all = Vec::new();
    for client in clients {
        all.push(client.await.unwrap());
    }
    comes_to_be(&recorder, "refusing", 503).await;
    volume.give_back();
    comes_to_be(&recorder, "accepting", 200).await;
    // Each has its end, also where there was no room for it.
    let ended = async || {
        let manifests = lab.manifests("audit");
        (manifests.len() == 3).then_some(manifests)
    };
    let manifests = eventually("each is closed in the bucket", ended).await;
    let interrupted = |outcome: &str| ["failed", "interrupted"].contains(&outcome);
    assert!(manifests.iter().all(|one| one["meta"]["end"]["outcome"].as_str().is_some_and(interrupted)));
    nothing_waits(&recorder).await;
    is_in_the_bucket(&recorder, &all).await;
    assert!(recorder.metric("podwitness_recorder_quarantined_total").await < 0.5);
}

#[tokio::test]
#[ignore = "needs root"]
async fn an_upload_that_a_full_volume_refuses_leaves_nothing_there() {
    let volume = Arc::new(Volume::small(16));
    // No floor: there is room for a part, and none for its header. Whether the recorder has looked at the volume since it
    // was filled does not matter: it refuses by what it found, or the file system does.
    let recorder = Recorder::with_volume(&volume, &[("PODWITNESS_FREE_SPACE", "0")]);
    let before = recorder.files();
    volume.leave(48 << 10);
    let (writer, answer) = upload(recorder.plain).await;
    let title = format!("{{\"title\":\"{}\",", "x".repeat(256 << 10));
    assert!(writer.send(&header("s").replacen('{', &title, 1)).await);
    assert!(matches!(acks(answer).next().await, Some(Ack::Failed(_))));
    volume.give_back();
    assert_eq!(recorder.files(), before);
}
