//! Compressed uploads: to those who read them, counted by what they become, and never to anybody else.

use std::time::Duration;

use crate::{
    kit::*,
    recorder::{Ended, Mood, Recorder},
};

async fn ended(recorder: &Recorder) {
    eventually("the end", || recorder.uploads().last().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
}

fn text() -> Vec<u8> {
    b"2026-01-02T03:04:05Z INFO request served path=/api/v1/pods code=200 took=12ms\n".repeat(200)
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_reads_compressed_uploads_gets_few_bytes_and_another_one_plain_ones() {
    let mut casts = vec![];
    for packs in [true, false] {
        let pod = Pod::new();
        let recorder = pod.network.add_reading(ONE, Some("volume"), packs);
        pod.name(&[ONE]);
        let mut session = pod.session(meta(), open()).await;
        for _ in 0..10 {
            session.says(&frame(1, &text())).await;
        }
        session.ends(SUCCESS).await;
        ended(&recorder).await;
        let seen = recorder.uploads().remove(0);
        assert_eq!(seen.packed, packs);
        assert_eq!(seen.wire * 10 < seen.body.len(), packs, "{} of {} bytes", seen.wire, seen.body.len());
        let cast = Cast::parse(&seen.body);
        assert_eq!((cast.output(), cast.gaps()), (text().repeat(10), 0));
        casts.push(cast.ending().map(|(end, outcome)| format!("{end}, {outcome}")));
    }
    assert_eq!(casts[0], casts[1]);
}

#[tokio::test(start_paused = true)]
async fn fail_over_goes_on_behind_what_was_acknowledged_whichever_of_the_two_compresses() {
    for packs in [[true, false], [false, true]] {
        let pod = Pod::new();
        let one = pod.network.add_reading(ONE, Some("volume"), packs[0]);
        let two = pod.network.add_reading(TWO, Some("volume"), packs[1]);
        pod.name(&[ONE, TWO]);
        let mut session = pod.session(meta(), closed()).await;
        session.says(&frame(1, &text())).await;
        let lines = |recorder: &Recorder| recorder.only().matches("\"o\"").count();
        eventually("the first line", || lines(&one) == 1).await;
        // What was acknowledged is everything that came so far, in bytes before compression.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let acknowledged = one.uploads()[0].body.len();
        one.mood.send_replace(Mood::Forgetful);
        session.says(&frame(1, b"not acknowledged ")).await;
        eventually("the second line", || lines(&one) == 2).await;
        one.die();
        session.says(&frame(1, b"and after")).await;
        session.ends(SUCCESS).await;
        ended(&two).await;
        let (first, second) = (one.uploads().remove(0), two.uploads().remove(0));
        assert_eq!([first.packed, second.packed], packs);
        let header = first.body.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let ours = Cast::parse(&second.body).header.podwitness.unwrap();
        assert_eq!((ours.part, ours.offset), (1, (acknowledged - header) as u64));
        let cast = Cast::join(vec![first.body, second.body]);
        let all = [text(), b"not acknowledged and after".to_vec()].concat();
        assert_eq!((cast.output(), cast.gaps()), (all, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_something_is_on_its_way_comes_together() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"first")).await;
    eventually("the first line", || {
        recorder.uploads().first().is_some_and(|seen| seen.body.ends_with(b"\"]\n"))
    })
    .await;
    recorder.mood.send_replace(Mood::Forgetful);
    session.says(&frame(1, b"on its way")).await;
    eventually("the second line", || recorder.only().contains("on its way")).await;
    let before = recorder.uploads()[0].pieces;
    for _ in 0..50 {
        session.says(&frame(1, b"more")).await;
    }
    eventually("all of it", || recorder.only().matches("more").count() == 50).await;
    assert_eq!(recorder.uploads()[0].pieces, before + 1);
}
