//! The recorder with a bucket: what is acknowledged is there, and whatever goes wrong with it goes by.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use podwitness_wire::ack::Ack;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    bucket::{KEY, Mode, SECRET, Server, Way},
    lab::{Recorder, Viewer, acks, client, eventually, header, line, upload},
    volume::Volume,
};

pub struct Lab {
    pub server: Server,
    pub way: Way,
    secret: tempfile::TempDir,
}

impl Lab {
    pub async fn new() -> Self {
        Self::of(Server::start().await).await
    }

    /// With another server.
    pub async fn of(server: Server) -> Self {
        let way = Way::to(server.address).await;
        let secret = tempfile::tempdir().unwrap();
        let lab = Self { server, way, secret };
        lab.credentials(KEY, SECRET);
        lab
    }

    fn credentials(&self, key: &str, secret: &str) {
        std::fs::write(self.secret.path().join("AWS_ACCESS_KEY_ID"), key).unwrap();
        std::fs::write(self.secret.path().join("AWS_SECRET_ACCESS_KEY"), secret).unwrap();
    }

    fn recorder(&self, bucket: &str, more: &[(&str, &str)]) -> Recorder {
        self.recorder_on(&Arc::new(Volume::new()), bucket, more)
    }

    pub fn recorder_on(&self, volume: &Arc<Volume>, bucket: &str, more: &[(&str, &str)]) -> Recorder {
        let endpoint = format!("http://{}", self.way.address);
        let directory = self.secret.path().to_str().unwrap();
        let settings = [
            ("PODWITNESS_S3_ENDPOINT", endpoint.as_str()),
            ("PODWITNESS_S3_BUCKET", bucket),
            ("PODWITNESS_S3_PREFIX", "c1/recordings"),
            ("PODWITNESS_S3_CREDENTIALS_DIR", directory),
        ];
        Recorder::with_volume(volume, &[&settings[..], more].concat())
    }

    /// Manifests in a bucket.
    pub fn manifests(&self, bucket: &str) -> Vec<Value> {
        let mut found = Vec::new();
        collect(&self.server.files().join(bucket), &mut found);
        found
    }
}

fn collect(dir: &Path, found: &mut Vec<Value>) {
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, found);
        } else if path.ends_with("manifest.json") {
            found.extend(serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()));
        }
    }
}

/// One session from its beginning to its end; gives what it was.
pub async fn session(recorder: &Recorder, name: &str) -> String {
    let (writer, answer) = upload(recorder.plain).await;
    let content = format!("{}{}{}", header(name), line(1, "first"), line(2, "second"));
    assert!(writer.send(&content).await);
    drop(writer);
    let (mut acks, mut safe) = (acks(answer), 0);
    while let Some(ack) = acks.next().await {
        match ack {
            Ack::Received(bytes) => safe = bytes,
            Ack::Failed(text) => panic!("{text}"),
        }
    }
    assert_eq!(safe, content.len() as u64);
    content
}

/// What a viewer shows of a session.
pub async fn shown(viewer: &Viewer, session: &str) -> Vec<u8> {
    let id = eventually("the session is listed", async || {
        let list: Value = serde_json::from_slice(&viewer.get("/api/v1/sessions").await).unwrap();
        let found = list["sessions"].as_array().unwrap().iter().find(|one| one["session"] == session)?;
        Some(found["id"].as_str().unwrap().to_owned())
    })
    .await;
    viewer.get(&format!("/api/v1/sessions/{id}/cast?raw")).await.to_vec()
}

/// The hardest row: the process is killed and its volume is gone.
#[tokio::test]
#[ignore = "needs an S3 server"]
async fn what_is_acknowledged_as_in_the_bucket_survives_the_loss_of_the_volume() {
    let lab = Lab::new().await;
    let mut recorder = lab.recorder("audit", &[("PODWITNESS_ACK", "object")]);
    let mut all = Vec::new();
    for round in 0..4_u64 {
        let progress = Arc::new(AtomicU64::new(0));
        let mut clients = Vec::new();
        for number in 0..4 {
            clients.push(client(recorder.plain, format!("s-{round}-{number}"), Arc::clone(&progress)).await);
        }
        let until = 1 + round * 600_001;
        eventually("progress", async || (progress.load(Ordering::Relaxed) >= until).then_some(())).await;
        recorder.signal(Signal::KILL);
        assert!(!recorder.ended().await.success());
        for client in clients {
            all.push(client.await.unwrap());
        }
        recorder = recorder.elsewhere();
    }
    let viewer = recorder.viewer();
    for sent in all.iter().filter(|sent| sent.safe > 0) {
        let cast = shown(&viewer, &sent.session).await;
        assert!(cast.len() as u64 >= sent.safe, "{}: {} of {}", sent.session, cast.len(), sent.safe);
        assert!(sent.content.as_bytes().starts_with(&cast), "{} is not what was sent", sent.session);
    }
    assert!(all.iter().map(|sent| sent.safe).sum::<u64>() > 600_000);
}

#[tokio::test]
#[ignore = "needs an S3 server"]
async fn a_bucket_that_fails_in_any_way_loses_nothing_and_stops_nothing() {
    let lab = Lab::new().await;
    let recorder = lab.recorder("audit", &[("PODWITNESS_ACK", "volume")]);
    let modes = [
        (Mode::Refuse, "unreachable"),
        (Mode::SlowDown, "throttled"),
        (Mode::Quota, "full"),
        (Mode::Deaf, "unreachable"),
    ];
    for (number, (mode, class)) in modes.into_iter().enumerate() {
        let name = format!("s-{number}");
        lab.way.set(mode);
        session(&recorder, &name).await;
        eventually("the failure is told", async || {
            let failing = format!("podwitness_recorder_bucket_failing{{class=\"{class}\"}}");
            let failing = recorder.metric(&failing).await;
            let waiting = recorder.metric("podwitness_recorder_bucket_backlog_bytes").await;
            (failing > 0.5 && waiting > 0.5).then_some(())
        })
        .await;
        assert_eq!(recorder.admin_status("/readyz").await, 200);
        lab.way.set(Mode::Pass);
        eventually("the session is in the bucket", async || {
            (lab.manifests("audit").len() > number).then_some(())
        })
        .await;
        eventually("nothing waits", async || {
            let waiting = recorder.metric("podwitness_recorder_bucket_backlog_bytes").await;
            (waiting < 0.5).then_some(())
        })
        .await;
    }
    assert!(recorder.metric("podwitness_recorder_bucket_failures_total").await >= 4.0);
    // Each is there once, whole.
    let manifests = lab.manifests("audit");
    assert_eq!(manifests.len(), 4);
    assert!(manifests.iter().all(|manifest| manifest["meta"]["end"]["outcome"] == "complete"));
}

#[tokio::test]
#[ignore = "needs an S3 server"]
async fn rotated_credentials_are_taken_up_without_a_restart() {
    let lab = Lab::new().await;
    lab.credentials(KEY, "wrong");
    let recorder = lab.recorder("audit", &[]);
    session(&recorder, "s").await;
    let denied = "podwitness_recorder_bucket_failing{class=\"denied\"}";
    eventually("the bucket denies", async || (recorder.metric(denied).await > 0.5).then_some(())).await;
    assert_eq!(lab.manifests("audit").len(), 0);
    lab.credentials(KEY, SECRET);
    eventually("it is shipped", async || (lab.manifests("audit").len() == 1).then_some(())).await;
}

#[tokio::test]
#[ignore = "needs an S3 server"]
async fn a_bucket_whose_objects_are_locked_serves() {
    let lab = Lab::new().await;
    lab.server.request("PUT", "/locked", &["x-amz-bucket-object-lock-enabled: true"], "");
    let rule = "<ObjectLockConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    let sum = STANDARD.encode(digest(&SHA256, rule.as_bytes()));
    let checksum = format!("x-amz-checksum-sha256: {sum}");
    lab.server.request("PUT", "/locked?object-lock=", &[&checksum], rule);
    let mut recorder =
        lab.recorder("locked", &[("PODWITNESS_ACK", "object"), ("PODWITNESS_S3_KEEP_LOCAL", "0s")]);
    let content = session(&recorder, "s").await;
    eventually("it is closed", async || (lab.manifests("locked").len() == 1).then_some(())).await;
    // The next process removes it from the volume.
    recorder.signal(Signal::TERM);
    assert!(recorder.ended().await.success());
    let recorder = recorder.again();
    eventually("it left the volume", async || recorder.metas().is_empty().then_some(())).await;
    assert_eq!(shown(&recorder.viewer(), "s").await, content.as_bytes());
    assert_eq!(shown(&recorder.elsewhere().viewer(), "s").await, content.as_bytes());
    assert!(recorder.volume().exists());
}
