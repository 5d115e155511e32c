//! What is decided before a session starts.

use podwitness_core::{grant::AckLevel, status::Status};
use podwitness_proxy::session::Recording;

use crate::{
    kit::*,
    recorder::{Ended, Mood},
};

fn refused(opened: Result<Recording, Status>) -> Status {
    opened.err().expect("a refusal")
}

#[tokio::test(start_paused = true)]
async fn fail_closed_refuses_where_no_recorder_is_known_or_reached() {
    let pod = Pod::new();
    assert_eq!(refused(pod.sessions.open(meta(), closed()).await).code, 503);
    pod.name(&[]);
    let none = refused(pod.sessions.open(meta(), closed()).await);
    assert_eq!(none.code, 403);
    let recorder = pod.recorder(ONE);
    recorder.die();
    let dead = refused(pod.sessions.open(meta(), closed()).await);
    assert_eq!(dead.code, 403);
    assert!(
        dead.message.contains("Grant \"pci\"") && dead.message.contains("nothing was run"),
        "{}",
        dead.message
    );
    assert_eq!(pod.metric("podwitness_session_ended_total{outcome=\"refused\",end=\"never\"}"), 3);
}

#[tokio::test(start_paused = true)]
async fn fail_closed_has_an_upload_open_before_the_session_starts() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let recording = pod.sessions.open(meta(), closed()).await.ok().unwrap();
    assert_eq!(recorder.uploads().len(), 1);
    drop(recording);
    eventually("the upload is broken off", || recorder.uploads()[0].ended == Ended::Broken).await;
    assert!(recorder.uploads()[0].body.is_empty());
}

#[tokio::test(start_paused = true)]
async fn fail_open_dials_nobody_for_a_session_that_never_starts() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    drop(pod.sessions.open(meta(), open()).await.ok().unwrap());
    eventually("counted", || pod.metric("podwitness_session_recordings_total{result=\"Nothing\"}") == 1)
        .await;
    assert_eq!(recorder.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn fail_closed_goes_to_the_next_recorder_when_the_first_refuses() {
    let pod = Pod::new();
    let (one, two) = pod.recorders();
    one.mood.send_replace(Mood::Refusing(507));
    pod.session(meta(), closed()).await.ends(SUCCESS).await;
    eventually("the end", || two.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly)).await;
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_that_are_too_weak_satisfy_nobody_who_asks_for_more() {
    let pod = Pod::new();
    pod.recorder(ONE);
    assert!(pod.sessions.open(meta(), closed_with(AckLevel::Volume)).await.is_ok());
    assert_eq!(refused(pod.sessions.open(meta(), closed_with(AckLevel::Object)).await).code, 403);
    pod.network.add(ONE, None);
    let pod = Pod::new();
    pod.network.add(ONE, None);
    pod.name(&[ONE]);
    assert_eq!(refused(pod.sessions.open(meta(), closed_with(AckLevel::Process)).await).code, 403);
}

#[tokio::test(start_paused = true)]
async fn fail_closed_is_not_satisfied_by_recorders_of_other_grants() {
    let pod = Pod::new();
    pod.recorder(ONE);
    let mut obligation = closed();
    obligation.recorders[0].enforced = false;
    assert_eq!(refused(pod.sessions.open(meta(), obligation).await).code, 403);
}

#[tokio::test(start_paused = true)]
async fn sessions_share_a_connection_until_it_is_idle() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    for _ in 0..3 {
        pod.session(meta(), closed()).await.ends(SUCCESS).await;
    }
    assert_eq!(recorder.dials(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(90)).await;
    pod.session(meta(), closed()).await.ends(SUCCESS).await;
    assert_eq!(recorder.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_unnoticed_costs_no_session() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    pod.session(meta(), closed()).await.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads()[0].ended == Ended::Cleanly).await;
    recorder.die();
    recorder.mood.send_replace(Mood::Good);
    pod.session(meta(), closed()).await.ends(SUCCESS).await;
    assert_eq!(recorder.dials(), 2);
}
