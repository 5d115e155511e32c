//! Recorders that are restarted under sessions that must not go on unrecorded.

use std::{sync::Arc, time::Duration};

use podwitness_core::grant::Obligation;
use tokio::{io::AsyncWriteExt as _, time::Instant};

use crate::{
    kit::*,
    recorder::{Ended, Mood, Recorder},
};

const LEAD: u64 = 100;

/// More than the lead, so that it is shown only while somebody acknowledges.
fn screen(letter: u8) -> Vec<u8> {
    vec![letter; 3 * LEAD as usize]
}

fn held() -> Obligation {
    Obligation { lead: LEAD, ..closed() }
}

fn parts(recorders: &[&Arc<Recorder>]) -> Vec<Vec<u8>> {
    recorders.iter().flat_map(|recorder| recorder.uploads()).map(|seen| seen.body).collect()
}

async fn uploads(recorder: &Recorder, count: usize) {
    eventually("an upload", || recorder.uploads().len() == count).await;
}

#[tokio::test(start_paused = true)]
async fn two_recorders_are_restarted_in_turn_and_nobody_notices() {
    let pod = Pod::new();
    let (one, two) = pod.recorders();
    let mut session = pod.session(meta(), held()).await;
    session.says(&frame(1, &screen(b'a'))).await;
    let begun = Instant::now();
    // Each leaves the netmap first, goes on while it drains, is gone, and comes back.
    for (leaving, staying, stays, letters) in [(&one, &two, TWO, b"bcd"), (&two, &one, ONE, b"efg")] {
        let before = staying.uploads().len();
        pod.name(&[stays]);
        session.says(&frame(1, &screen(letters[0]))).await;
        uploads(staying, before + 1).await;
        session.says(&frame(1, &screen(letters[1]))).await;
        leaving.die();
        session.says(&frame(1, &screen(letters[2]))).await;
        leaving.mood.send_replace(Mood::Good);
        pod.name(&[ONE, TWO]);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "the session was held up: {:?}", begun.elapsed());
    session.ends(SUCCESS).await;
    eventually("the end", || one.uploads().last().is_some_and(|seen| seen.ended == Ended::Cleanly)).await;
    let cast = Cast::join(parts(&[&one, &two]));
    assert_eq!(cast.output(), b"abcdefg".map(screen).concat());
    assert_eq!((cast.gaps(), cast.ending()), (0, Some(("completed", "recorded"))));
}

#[tokio::test(start_paused = true)]
async fn the_only_recorder_finishes_while_it_drains_and_is_waited_for_while_it_is_away() {
    let pod = Pod::new();
    let one = pod.recorder(ONE);
    let mut session = pod.session(meta(), held()).await;
    session.says(&frame(1, &screen(b'a'))).await;
    pod.name(&[]);
    session.says(&frame(1, &screen(b'b'))).await;
    one.die();
    let waits = frame(1, &screen(b'c'));
    session.server.write_all(&waits).await.unwrap();
    assert!(session.silent(15).await, "what nobody records was shown");
    one.mood.send_replace(Mood::Good);
    pod.name(&[ONE]);
    session.hears(&waits).await;
    session.ends(SUCCESS).await;
    eventually("the end", || one.uploads().last().is_some_and(|seen| seen.ended == Ended::Cleanly)).await;
    assert_eq!(Cast::join(parts(&[&one])).output(), b"abc".map(screen).concat());
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_the_netmap_keeps_is_back_within_the_pause_of_a_session() {
    let pod = Pod::new();
    let one = pod.recorder(ONE);
    let mut session = pod.session(meta(), held()).await;
    session.says(&frame(1, &screen(b'a'))).await;
    one.die();
    let waits = frame(1, &screen(b'b'));
    session.server.write_all(&waits).await.unwrap();
    assert!(session.silent(15).await);
    one.mood.send_replace(Mood::Good);
    session.hears(&waits).await;
    session.ends(SUCCESS).await;
    eventually("the end", || one.uploads().last().is_some_and(|seen| seen.ended == Ended::Cleanly)).await;
    assert_eq!(Cast::join(parts(&[&one])).output(), b"ab".map(screen).concat());
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_returns_is_no_longer_the_one_that_failed() {
    let pod = Pod::new();
    let one = pod.recorder(ONE);
    one.die();
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"kept")).await;
    // Long enough for the longest rest.
    tokio::time::sleep(Duration::from_secs(70)).await;
    let dials = one.dials();
    pod.name(&[]);
    one.mood.send_replace(Mood::Good);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(one.dials(), dials);
    pod.name(&[ONE]);
    let begun = Instant::now();
    uploads(&one, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    session.ends(SUCCESS).await;
}
