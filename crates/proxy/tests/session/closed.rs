//! Fail closed: what is not recorded is not shown.

use std::time::Duration;

use podwitness_core::grant::Obligation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    kit::*,
    recorder::{Ended, Mood},
};

/// Whether `words` are a status on the error channel and then a close frame with code 1000.
fn is_farewell(words: &[u8], with: &str) -> bool {
    let text = String::from_utf8_lossy(words);
    text.contains(with) && words.ends_with(&[0x88, 2, 0x03, 0xe8])
}

#[tokio::test(start_paused = true)]
async fn output_beyond_the_lead_waits_for_its_acknowledgement() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    recorder.mood.send_replace(Mood::Forgetful);
    session.says(&frame(1, b"within the lead")).await;
    let beyond = frame(1, &[b'x'; 200]);
    session.server.write_all(&beyond).await.unwrap();
    assert!(session.silent(1).await);
    recorder.mood.send_replace(Mood::Good);
    session.hears(&beyond).await;
    session.ends(SUCCESS).await;
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_of_what_was_never_sent_count_for_nothing() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    recorder.mood.send_replace(Mood::Forgetful);
    session.says(&frame(1, b"within the lead")).await;
    let beyond = frame(1, &[b'x'; 200]);
    session.server.write_all(&beyond).await.unwrap();
    assert!(session.silent(1).await);
    recorder.mood.send_replace(Mood::Boasting);
    assert!(session.silent(5).await);
    recorder.mood.send_replace(Mood::Good);
    session.hears(&beyond).await;
    session.ends(SUCCESS).await;
}

#[tokio::test(start_paused = true)]
async fn input_waits_too_while_output_is_too_old() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), closed()).await;
    recorder.mood.send_replace(Mood::Forgetful);
    session.says(&frame(1, b"x")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    session.types(&[0x89, 0x80, 1, 2, 3, 4]).await;
    session.client.write_all(&masked(0, b"rm -rf /\n")).await.unwrap();
    let mut byte = [0];
    let heard = tokio::time::timeout(Duration::from_secs(1), session.server.read(&mut byte)).await;
    assert!(heard.is_err(), "input passed");
    recorder.mood.send_replace(Mood::Good);
    let mut heard = vec![0; masked(0, b"rm -rf /\n").len()];
    session.server.read_exact(&mut heard).await.unwrap();
    session.ends(SUCCESS).await;
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_dies_is_followed_by_the_next_within_the_pause() {
    let pod = Pod::new();
    let (one, two) = pod.recorders();
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    session.says(&frame(1, b"one ")).await;
    one.die();
    session.says(&frame(1, &[b'x'; 500])).await;
    session.ends(SUCCESS).await;
    eventually("the end", || two.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly)).await;
    let parts = vec![one.uploads()[0].body.clone(), two.uploads()[0].body.clone()];
    assert_eq!(Cast::join(parts).output(), [&b"one "[..], &[b'x'; 500]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_hangs_is_left_for_the_next_within_the_pause() {
    let pod = Pod::new();
    let (one, two) = pod.recorders();
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    session.says(&frame(1, b"one ")).await;
    one.mood.send_replace(Mood::Stuck);
    session.says(&frame(1, &[b'x'; 500])).await;
    session.ends(SUCCESS).await;
    eventually("the end", || two.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly)).await;
}

#[tokio::test(start_paused = true)]
async fn without_any_recorder_the_session_pauses_and_ends_with_the_reason() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    session.says(&frame(1, b"shown")).await;
    recorder.die();
    session.server.write_all(&frame(1, &[b'x'; 500])).await.unwrap();
    let begun = tokio::time::Instant::now();
    let words = session.last_words().await;
    assert!(begun.elapsed() >= Duration::from_secs(20) && begun.elapsed() < Duration::from_secs(23));
    assert!(
        is_farewell(&words, "Grant \\\"pci\\\" asks for a recording"),
        "{}",
        String::from_utf8_lossy(&words)
    );
    assert!(!words.windows(4).any(|four| four == b"xxxx"), "output was shown that is not recorded");
    recorder.mood.send_replace(Mood::Good);
    eventually("the rest", || recorder.uploads().last().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    assert_eq!(pod.metric("podwitness_session_ended_total{outcome=\"cut\",end=\"policy\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_reason_is_said_although_the_server_has_left() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    session.says(&frame(1, b"shown")).await;
    recorder.die();
    session.server.write_all(&frame(1, &[b'x'; 500])).await.unwrap();
    session.is_left_by_the_server().await;
    let words = session.last_words().await;
    assert!(is_farewell(&words, "asks for a recording"), "{}", String::from_utf8_lossy(&words));
}

#[tokio::test(start_paused = true)]
async fn what_the_server_said_is_shown_although_it_has_left() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    recorder.mood.send_replace(Mood::Forgetful);
    let said = [frame(1, &[b'x'; 500]), frame(3, SUCCESS.as_bytes()), vec![0x88, 2, 3, 232]].concat();
    session.server.write_all(&said).await.unwrap();
    session.is_left_by_the_server().await;
    assert!(session.silent(7).await);
    recorder.mood.send_replace(Mood::Good);
    session.hears(&said).await;
    assert!(session.last_words().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_open_is_finished_before_the_reason() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    let long = frame(1, &vec![b'y'; 100_000]);
    session.server.write_all(&long[..50]).await.unwrap();
    session.hears(&long[..50]).await;
    recorder.die();
    session.server.write_all(&long[50..2000]).await.unwrap();
    let words = session.last_words().await;
    let (rest, message) = words.split_at(long.len() - 50);
    assert!(rest.iter().all(|byte| *byte == 0));
    assert_eq!(message[..2], [0x82, 126]);
    assert!(is_farewell(message, "asks for a recording"));
}

#[tokio::test(start_paused = true)]
async fn a_fragmented_message_is_finished_before_the_reason() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    session.says(&[0x02, 2, 1, b'a']).await;
    recorder.die();
    session.server.write_all(&[&[0x80, 126, 1, 244][..], &[b'b'; 500]].concat()).await.unwrap();
    let words = session.last_words().await;
    assert_eq!(words[..4], [0x80, 0, 0x82, 126]);
    assert!(is_farewell(&words, "asks for a recording"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_followed_is_ended() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), closed()).await;
    session.says(&frame(1, b"fine")).await;
    session.server.write_all(b"\xff\xffnot WebSocket").await.unwrap();
    let words = session.last_words().await;
    assert!(is_farewell(&words, "cannot be recorded"), "{}", String::from_utf8_lossy(&words));
    eventually("the end", || recorder.uploads()[0].ended == Ended::Cleanly).await;
    assert_eq!(Cast::parse(&recorder.uploads()[0].body).ending(), Some(("unreadable", "cut")));
}

#[tokio::test(start_paused = true)]
async fn the_server_is_read_on_while_output_waits() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), closed()).await;
    recorder.mood.send_replace(Mood::Forgetful);
    let line = frame(1, &[b'x'; 32_000]);
    for _ in 0..256 {
        let written = tokio::time::timeout(Duration::from_secs(5), session.server.write_all(&line));
        written.await.expect("the server is held up").unwrap();
    }
    let all = line.repeat(256);
    recorder.mood.send_replace(Mood::Good);
    session.hears(&all).await;
    session.ends(SUCCESS).await;
}
