//! Fail open: a stream that cannot be followed goes on, and what the server says is recorded as it stands on the wire. A
//! gap is never what a client can bring about.

use podwitness_wire::{
    cast::Event,
    channel::Protocol,
    forward::{Flow, Moved},
    session::{Carrier, Language, Transport},
    spdy::data,
};
use tokio::io::{AsyncWriteExt as _, duplex};

use crate::{
    kit::*,
    recorder::{Ended, Recorder},
};

const SPDY: Language = Language::Command(Transport::Spdy, Protocol::V4);

async fn recorded(recorder: &Recorder) -> Cast {
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    let cast = Cast::parse(&recorder.uploads()[0].body);
    assert_eq!((cast.gaps(), cast.ending()), (0, Some(("server-left", "recorded"))));
    cast
}

/// Why the recording holds what stood on the wire.
fn reasons(cast: &Cast) -> Vec<&str> {
    let undecoded = cast.events.iter().filter_map(|event| match event {
        Event::Undecoded(why) => Some(why.as_str()),
        _ => None,
    });
    undecoded.collect()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_the_protocol_is_recorded_as_it_stands() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(2, b"fine")).await;
    session.says(b"\xff\xffnot WebSocket").await;
    session.says(b" at all").await;
    session.types(&[0x83, 0x81, 1, 2, 3, 4, 5]).await;
    session.leaves().await;
    let cast = recorded(&recorder).await;
    assert_eq!(cast.output(), b"\xff\xffnot WebSocket at all");
    let [why] = reasons(&cast)[..] else { panic!("{:?}", cast.events) };
    assert!(why.contains("reserved bits are set"), "{why}");
}

/// The last bytes of a server may be no frame either.
#[tokio::test(start_paused = true)]
async fn a_last_frame_that_is_not_whole_is_recorded_too() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.speaking(Language::Command(Transport::WebSocket, Protocol::Base64V4), meta()).await;
    session.server.write_all(b"\x81\x201b3V0!!!!").await.unwrap();
    session.server = duplex(1).0;
    session.hears(b"\x81\x201b3V0!!!!").await;
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    let cast = Cast::parse(&recorder.uploads()[0].body);
    assert!(cast.output().ends_with(b"\x81\x201b3V0!!!!") && cast.gaps() == 0, "{:?}", cast.events);
}

#[tokio::test(start_paused = true)]
async fn output_on_streams_that_the_client_has_hidden_is_recorded_as_it_stands() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.speaking(SPDY, meta()).await;
    // A SYN_STREAM without the whole of its head: nothing behind it can be read.
    session.types(&[0x80, 3, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0]).await;
    let frames = [data(5, b"hidden", false), data(7, b"and more", false)];
    session.says(&frames[0]).await;
    session.says(&frames[1]).await;
    session.leaves().await;
    let cast = recorded(&recorder).await;
    assert_eq!(cast.output(), frames.concat());
    let [why] = reasons(&cast)[..] else { panic!("{:?}", cast.events) };
    assert!(why.contains("the server speaks on stream 5"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_command_in_a_protocol_that_is_not_known_is_recorded_as_it_stands() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.speaking(Language::Undecoded, meta()).await;
    session.types(b"typed").await;
    session.says(b"whatever it says").await;
    session.leaves().await;
    let cast = recorded(&recorder).await;
    assert_eq!(
        (cast.output(), reasons(&cast)),
        (b"whatever it says".to_vec(), vec!["the protocol is not known"])
    );
    assert!(!recorder.uploads()[0].body.windows(5).any(|bytes| bytes == b"typed"));
}

#[tokio::test(start_paused = true)]
async fn of_forwarded_connections_that_cannot_be_followed_the_bytes_are_recorded() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.speaking(Language::Forward(Carrier::Spdy), meta()).await;
    session.types(&[0x80, 3, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0]).await;
    session.says(&data(5, b"secret", false)).await;
    session.leaves().await;
    let cast = recorded(&recorder).await;
    let moved = Some(Moved { sent: 17, received: 14 });
    assert_eq!(cast.events[0], Event::Flow(Flow { id: u32::MAX, port: None, moved }));
    assert!(!recorder.uploads()[0].body.windows(6).any(|bytes| bytes == b"secret"));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_decoded_ends_once_a_grant_enforces() {
    let pod = Pod::new();
    pod.recorder(ONE);
    pod.netmap.send_replace(None);
    let mut unknown = open();
    (unknown.grants, unknown.recorders) = (vec![], vec![]);
    let recording = pod.sessions.open(meta(), unknown).await.map_err(|status| status.message).unwrap();
    let mut session = Session::speaking(Language::Undecoded, recording);
    session.says(b"before").await;
    pod.enforce(&[ONE], 1 << 20);
    eventually("the policy is known", || {
        pod.netmap.borrow().as_ref().is_some_and(|map| !map.grants.is_empty())
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    // Nothing of ours would be understood behind it.
    session.server.write_all(b"after").await.unwrap();
    assert!(session.last_words().await.is_empty());
    assert_eq!(pod.metric("podwitness_session_ended_total{outcome=\"cut\",end=\"unreadable\"}"), 1);
}
