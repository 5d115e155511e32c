//! Sessions that are no commands: forwarded connections, and what nobody can look into.

use podwitness_core::grant::Obligation;
use podwitness_proxy::session::SessionMeta;
use podwitness_wire::{
    cast::Event,
    forward::{Flow, Moved},
    session::{Carrier, Language},
};
use tokio::io::AsyncWriteExt as _;

use crate::{
    kit::*,
    recorder::{Ended, Recorder},
};

fn forwarding() -> SessionMeta {
    SessionMeta { kind: "portforward", command: vec![], stdin: false, ..meta() }
}

async fn recorded(recorder: &Recorder) -> Cast {
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    Cast::parse(&recorder.uploads()[0].body)
}

#[tokio::test(start_paused = true)]
async fn a_port_forward_is_recorded_by_its_connections_and_not_by_what_they_say() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.speaking(Language::Forward(Carrier::Channels), forwarding()).await;
    session.says(&[frame(0, &[80, 0]), frame(1, &[80, 0])].concat()).await;
    session.types(&masked(0, b"POST /login secret")).await;
    session.says(&frame(0, b"200 OK")).await;
    session.leaves().await;
    let cast = recorded(&recorder).await;
    let kubernetes = cast.header.kubernetes.clone().unwrap();
    assert_eq!((&*kubernetes.session_type, &*kubernetes.pod_name), ("portforward", "db-0"));
    let begun = Flow { id: 0, port: Some(80), moved: None };
    let over = Flow { moved: Some(Moved { sent: 18, received: 6 }), ..begun };
    assert_eq!(cast.events[..2], [Event::Flow(begun), Event::Flow(over)]);
    assert!(!recorder.uploads()[0].body.windows(6).any(|bytes| bytes == b"secret"));
}

#[tokio::test(start_paused = true)]
async fn of_an_opaque_session_the_bytes_are_recorded() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let opaque = SessionMeta { kind: "opaque", ..forwarding() };
    let mut session = pod.speaking(Language::Opaque, opaque).await;
    session.types(b"anything").await;
    session.says(b"at all").await;
    session.leaves().await;
    let cast = recorded(&recorder).await;
    let moved = Some(Moved { sent: 8, received: 6 });
    assert_eq!(cast.events[0], Event::Flow(Flow { id: 0, port: None, moved }));
}

#[tokio::test(start_paused = true)]
async fn under_fail_closed_a_connection_that_nobody_records_ends_with_the_reason() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let obligation = Obligation { lead: 10, ..closed() };
    let recording =
        pod.sessions.open(forwarding(), obligation).await.map_err(|status| status.message).unwrap();
    let mut session = Session::speaking(Language::Forward(Carrier::Channels), recording);
    session.says(&frame(0, &[80, 0])).await;
    recorder.die();
    session.server.write_all(&frame(2, &[81, 0])).await.unwrap();
    let words = session.last_words().await;
    assert!(!words.windows(2).any(|bytes| bytes == [81, 0]), "the connection was made");
    let text = String::from_utf8_lossy(&words);
    assert!(text.contains("asks for a recording") && words.ends_with(&[0x88, 2, 0x03, 0xe8]), "{text}");
}
