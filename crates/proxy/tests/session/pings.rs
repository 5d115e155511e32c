//! Pings of a client whose output waits: kubectl gives up where it hears no pong for a minute.

use std::time::Duration;

use podwitness_core::grant::Obligation;
use podwitness_wire::{
    session::Language,
    ws::{Opcode, encode},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{kit::*, recorder::Mood};

fn ping(words: &[u8]) -> Vec<u8> {
    encode(Opcode::Ping, words, Some([1, 2, 3, 4]))
}

fn pong(words: &[u8]) -> Vec<u8> {
    encode(Opcode::Pong, words, None)
}

/// Output of that many frames of 32 KiB, each unlike the others.
fn output(frames: u8) -> Vec<u8> {
    (0..frames).flat_map(|n| frame(1, &[n; 32 << 10])).collect()
}

/// Where a frame stands in what was heard, and what was heard but for it.
fn without(heard: &[u8], frame: &[u8]) -> (usize, Vec<u8>) {
    let at = heard.windows(frame.len()).position(|bytes| bytes == frame).unwrap();
    (at, [&heard[..at], &heard[at + frame.len()..]].concat())
}

/// The client reads nothing for a while, pings, and reads everything: the answer is among the first bytes.
#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_is_answered_before_all_is_read() {
    let pod = Pod::new();
    let _recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    let output = output(64);
    session.server.write_all(&output).await.unwrap();
    session.types(&ping(b"now")).await;
    let mut heard = vec![0; output.len() + pong(b"now").len()];
    session.client.read_exact(&mut heard).await.unwrap();
    let (at, rest) = without(&heard, &pong(b"now"));
    assert!(at <= 256 << 10, "the answer comes behind {at} bytes");
    assert!(rest == output);
    session.says(&pong(b"now")).await;
    session.ends(SUCCESS).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_is_answered_while_the_recording_holds_its_output_back() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    session.says(&frame(1, b"within the lead")).await;
    recorder.mood.send_replace(Mood::Forgetful);
    let beyond = output(2);
    session.server.write_all(&beyond).await.unwrap();
    assert!(session.silent(1).await);
    for words in [&b"first"[..], b"second"] {
        session.types(&ping(words)).await;
        session.hears(&pong(words)).await;
    }
    recorder.mood.send_replace(Mood::Good);
    session.hears(&beyond).await;
    session.ends(SUCCESS).await;
}

/// A command that is over has said everything, of which much may be left for the client.
#[tokio::test(start_paused = true)]
async fn a_client_is_answered_although_the_server_has_left() {
    let pod = Pod::new();
    let _recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    let output = output(64);
    session.server.write_all(&output).await.unwrap();
    session.is_left_by_the_server().await;
    let mut heard = vec![];
    for part in output.chunks(100_000) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        session.client.write_all(&ping(b"now")).await.unwrap();
        let mut more = vec![0; part.len()];
        session.client.read_exact(&mut more).await.unwrap();
        heard.extend(more);
    }
    let rest = session.last_words().await;
    heard.extend(rest);
    let mut answers = 0;
    while heard.windows(5).any(|bytes| bytes == pong(b"now")) {
        heard = without(&heard, &pong(b"now")).1;
        answers += 1;
    }
    assert!(answers >= 10, "{answers} answers");
    assert!(heard == output);
}

/// The buffers of its system take nothing for a while and then much.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_for_minutes_hears_all_of_a_server_that_has_left() {
    let pod = Pod::new();
    let _recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    let output = output(64);
    session.server.write_all(&output).await.unwrap();
    session.is_left_by_the_server().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let mut heard = vec![0; output.len()];
    session.client.read_exact(&mut heard).await.unwrap();
    assert!(heard == output);
    assert!(session.last_words().await.is_empty());
}

/// A connection that is closed while its client still says something is reset, and what the client has not read is gone.
#[tokio::test(start_paused = true)]
async fn a_client_may_say_something_for_as_long_as_it_has_not_left() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(3, SUCCESS.as_bytes())).await;
    session.server = tokio::io::duplex(1).0;
    eventually("the recording", || recorder.uploads()[0].ended == crate::recorder::Ended::Cleanly).await;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        session.client.write_all(&ping(b"now")).await.unwrap();
    }
    let mut rest = vec![];
    session.client.read_to_end(&mut rest).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(session.client.write_all(&ping(b"now")).await.is_err(), "a silent client is not waited for");
}

/// The answers do not lengthen the pause that the policy allows.
#[tokio::test(start_paused = true)]
async fn a_client_that_pings_is_told_the_reason_as_soon_as_any_other() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    session.says(&frame(1, b"shown")).await;
    recorder.die();
    session.server.write_all(&output(1)).await.unwrap();
    let begun = tokio::time::Instant::now();
    while session.silent(5).await {
        session.types(&ping(b"now")).await;
        session.hears(&pong(b"now")).await;
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not end");
    }
    assert!(begun.elapsed() < Duration::from_secs(23), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn within_a_frame_no_answer_stands() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), Obligation { lead: 100, ..closed() }).await;
    let long = frame(1, &[b'x'; 300_000]);
    let (begun, rest) = long.split_at(60_000);
    session.says(begun).await;
    recorder.mood.send_replace(Mood::Forgetful);
    session.server.write_all(&rest[..60_000]).await.unwrap();
    session.types(&ping(b"now")).await;
    assert!(session.silent(1).await);
    recorder.mood.send_replace(Mood::Good);
    let (server, client) = (&mut session.server, &mut session.client);
    let mut heard = vec![0; rest.len()];
    let both = tokio::join!(server.write_all(&rest[60_000..]), client.read_exact(&mut heard));
    assert!(both.0.is_ok() && both.1.is_ok() && heard == rest);
    session.ends(SUCCESS).await;
}

/// So that a client notices when the API server is gone.
#[tokio::test(start_paused = true)]
async fn where_nothing_waits_the_server_answers_for_itself() {
    let pod = Pod::new();
    let _recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    session.types(&ping(b"now")).await;
    assert!(session.silent(10).await);
    session.says(&frame(1, b"output")).await;
    session.says(&pong(b"now")).await;
    session.types(&ping(b"again")).await;
    assert!(session.silent(10).await);
    session.ends(SUCCESS).await;
}

/// Of what is not known to be a WebSocket, no more is read than two buffers of a relay without a recording hold.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_answered_is_not_kept_waiting_behind_megabytes() {
    for language in [Language::Opaque, Language::Undecoded] {
        let pod = Pod::new();
        let _recorder = pod.recorder(ONE);
        let mut session = pod.speaking(language, meta()).await;
        let megabyte = vec![7; 1 << 20];
        let taken = tokio::time::timeout(Duration::from_secs(5), session.server.write_all(&megabyte));
        assert!(taken.await.is_err(), "{language:?}: a megabyte is read of which no byte has gone on");
    }
}
