//! A session that began before the grants were known is held to them from then on.

use std::{sync::Arc, time::Duration};

use podwitness_core::{
    control::Netmap,
    grant::{App, Grant, GrantSpec, Obligation, Rule},
};
use tokio::io::AsyncWriteExt as _;

use crate::{
    kit::*,
    recorder::{Ended, Mood},
};

/// What is asked before anybody knows the grants.
fn unknown() -> Obligation {
    Obligation { grants: vec![], recorders: vec![], ..open() }
}

impl Pod {
    /// Publishes a netmap with the recorders of before, and one grant that enforces for `ana`.
    pub fn enforce(&self, addresses: &[&str], lead: u64) {
        self.name(addresses);
        let before = self.netmap.borrow().clone().unwrap();
        let rule = Rule {
            recorder: vec!["tag:podwitness".into()],
            enforce_recorder: true,
            lead: Some(lead),
            ..Rule::default()
        };
        let spec = GrantSpec {
            src: vec!["user:ana".into()],
            dst: vec!["*".into()],
            app: App { kubernetes: vec![rule] },
            ..GrantSpec::default()
        };
        let grants = vec![Grant { name: "strict".into(), spec }].into();
        self.netmap.send_replace(Some(Arc::new(Netmap { grants, ..(*before).clone() })));
    }
}

#[tokio::test(start_paused = true)]
async fn output_waits_for_its_acknowledgement_once_a_grant_is_known_that_enforces() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    pod.netmap.send_replace(None);
    let mut session = pod.session(meta(), unknown()).await;
    session.says(&frame(1, b"nobody knows ")).await;
    pod.enforce(&[ONE], 100);
    eventually("it is recorded", || recorder.uploads().first().is_some_and(|seen| !seen.body.is_empty()))
        .await;
    recorder.mood.send_replace(Mood::Forgetful);
    session.says(&frame(1, b"within the lead")).await;
    let beyond = frame(1, &[b'x'; 200]);
    session.server.write_all(&beyond).await.unwrap();
    assert!(session.silent(1).await, "it went beyond the grant's lead");
    recorder.mood.send_replace(Mood::Good);
    session.hears(&beyond).await;
    session.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads()[0].ended == Ended::Cleanly).await;
    let cast = Cast::parse(&recorder.uploads()[0].body);
    assert!(cast.output().starts_with(b"nobody knows within the lead") && cast.gaps() == 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_where_the_grant_names_no_recorder_that_can_be_reached() {
    let pod = Pod::new();
    let mut session = pod.session(meta(), unknown()).await;
    session.says(&frame(1, b"shown")).await;
    pod.enforce(&[], 100);
    tokio::time::sleep(Duration::from_secs(31)).await;
    session.server.write_all(&frame(1, b"too late")).await.unwrap();
    let words = session.last_words().await;
    let text = String::from_utf8_lossy(&words);
    assert!(
        text.contains("Grant \\\"strict\\\" asks for a recording") && !text.contains("too late"),
        "{text}"
    );
    assert_eq!(pod.metric("podwitness_session_ended_total{outcome=\"cut\",end=\"policy\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_comes_later_loosens_it() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    pod.netmap.send_replace(None);
    let mut session = pod.session(meta(), unknown()).await;
    pod.enforce(&[ONE], 100);
    session.says(&frame(1, b"x")).await;
    eventually("it is recorded", || recorder.uploads().first().is_some_and(|seen| !seen.body.is_empty()))
        .await;
    pod.netmap.send_replace(Some(Netmap::default().into()));
    recorder.die();
    session.server.write_all(&frame(1, &[b'x'; 500])).await.unwrap();
    let words = session.last_words().await;
    assert!(String::from_utf8_lossy(&words).contains("strict"));
}

#[tokio::test(start_paused = true)]
async fn grants_that_do_not_enforce_or_are_for_others_change_nothing() {
    for enforced in [false, true] {
        let pod = Pod::new();
        let recorder = pod.recorder(ONE);
        pod.netmap.send_replace(None);
        let mut meta = meta();
        meta.caller.authenticated.name = "bob".into();
        meta.caller.effective.name = "bob".into();
        let mut session = pod.session(meta, unknown()).await;
        session.says(&frame(1, b"x")).await;
        if enforced {
            pod.enforce(&[ONE], 1);
        } else {
            pod.name(&[ONE]);
        }
        recorder.die();
        session.says(&frame(1, &[b'x'; 500])).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        session.says(&frame(1, b"still here")).await;
        session.ends(SUCCESS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_passes_unseen_ends_once_a_grant_is_known_that_enforces() {
    let pod = Pod::new();
    pod.recorder(ONE);
    pod.netmap.send_replace(None);
    let mut session = pod.session(meta(), unknown()).await;
    session.says(b"\xff\xffnot WebSocket").await;
    pod.enforce(&[ONE], 1 << 20);
    tokio::time::sleep(Duration::from_secs(1)).await;
    session.server.write_all(b"more of it").await.unwrap();
    let words = session.last_words().await;
    assert!(!words.windows(4).any(|four| four == b"more"));
}

#[tokio::test(start_paused = true)]
async fn what_lies_on_disk_already_is_acknowledged_before_more_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let pod = Pod::with_spool(Some((dir.path().into(), 64 << 20)));
    let recorder = pod.recorder(ONE);
    pod.netmap.send_replace(None);
    let mut session = pod.session(meta(), unknown()).await;
    for _ in 0..100 {
        session.says(&frame(1, &[b'x'; 32_000])).await;
    }
    eventually("it is on disk", || pod.metric("podwitness_session_spool_bytes") > 1 << 20).await;
    pod.enforce(&[ONE], 1000);
    session.says(&frame(1, &[b'y'; 2000])).await;
    let body = recorder.uploads()[0].body.clone();
    assert!(body.len() > 3_200_000 && String::from_utf8(body).unwrap().contains("yyyy"));
    session.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads()[0].ended == Ended::Cleanly).await;
}
