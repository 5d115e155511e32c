//! Recorders outside the tunnel, which are shown nothing of us.

use podwitness_core::control::RecorderPeer;

use crate::{kit::*, recorder::Ended};

const OUTSIDE: &str = "192.0.2.7:80";

fn outside(pod: &Pod) {
    let tags = vec!["tag:podwitness".into()];
    pod.publish(vec![RecorderPeer::in_plaintext("old".into(), tags, OUTSIDE.parse().unwrap())]);
}

#[tokio::test(start_paused = true)]
async fn a_recorder_outside_the_tunnel_is_shown_no_assertion() {
    let pod = Pod::new();
    let recorder = pod.network.add(OUTSIDE, Some("volume"));
    outside(&pod);
    let mut session = pod.session(meta(), closed()).await;
    session.says(&frame(1, b"hello")).await;
    session.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    assert_eq!(recorder.uploads()[0].assertion, None);
    assert_eq!(Cast::parse(&recorder.uploads()[0].body).output(), b"hello");
}

#[tokio::test(start_paused = true)]
async fn the_same_recorder_in_the_tunnel_is_shown_it() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    pod.session(meta(), closed()).await.ends(SUCCESS).await;
    eventually("an upload", || !recorder.uploads().is_empty()).await;
    assert_eq!(recorder.uploads()[0].assertion.as_deref(), Some("who.we.are"));
}
