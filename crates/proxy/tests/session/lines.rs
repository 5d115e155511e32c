//! What stands in a recording.

use podwitness_wire::{
    cast::Event,
    channel::Protocol,
    session::{Language, Transport},
};

use crate::{kit::*, recorder::Ended};

#[tokio::test(start_paused = true)]
async fn a_terminal_session_is_recorded_with_size_output_and_exit() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(with_tty(), open()).await;
    session.types(&masked(4, b"{\"Width\":120,\"Height\":40}\n")).await;
    eventually("the header", || !recorder.uploads().is_empty()).await;
    session.says(&frame(1, "Größe: ".as_bytes())).await;
    session.says(&frame(1, &"€".as_bytes()[..1])).await;
    session.types(&masked(0, b"the answer to a password prompt")).await;
    session.types(&masked(4, b"{\"Width\":100,\"Height\":30}\n")).await;
    eventually("the resize", || recorder.only().contains("100x30")).await;
    session.says(&frame(1, &"€".as_bytes()[1..])).await;
    let status = r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
    session.ends(status).await;
    eventually("the end", || recorder.uploads()[0].ended == Ended::Cleanly).await;

    let cast = Cast::parse(&recorder.uploads()[0].body);
    assert_eq!((cast.header.width, cast.header.height, cast.header.timestamp), (120, 40, 1_700_000_000));
    let expected = [
        Event::Output("Größe: ".into()),
        Event::Resize("100x30".into()),
        Event::Output("€".into()),
        Event::Exit("7".into()),
        Event::End("completed".into()),
        Event::Close("recorded".into()),
    ];
    assert_eq!(cast.events, expected);
    assert!(!recorder.only().contains("password"));
}

#[tokio::test(start_paused = true)]
async fn the_header_says_who_did_what_from_where() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let meta = meta();
    let id = meta.id.to_string();
    pod.session(meta, open()).await.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;

    let seen = &recorder.uploads()[0];
    assert_eq!(seen.assertion.as_deref(), Some("who.we.are"));
    let header = Cast::parse(&seen.body).header;
    assert_eq!((header.command.as_str(), header.src_node_user.as_str()), ("sh -c a && b", "ana"));
    let target = header.kubernetes.unwrap();
    assert_eq!((&*target.namespace, &*target.pod_name, &*target.container), ("shop", "db-0", "db"));
    assert_eq!(target.session_type, "exec");
    let ours = header.podwitness.unwrap();
    assert_eq!((&*ours.session, ours.part, ours.offset), (&*id, 0, 0));
    assert_eq!((&*ours.cluster, &*ours.pod, &*ours.pod_uid, &*ours.node), ("c1", "till", "u1", "n1"));
    assert_eq!((&*ours.user, &ours.groups, ours.verified), ("ana", &vec!["sre".to_owned()], true));
    assert_eq!((&*ours.subprotocol, ours.tty, ours.stdin), ("v5.channel.k8s.io", false, true));
}

#[tokio::test(start_paused = true)]
async fn a_terminal_that_states_no_size_gets_one_after_a_second() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(with_tty(), open()).await;
    eventually("the header", || recorder.uploads().first().is_some_and(|seen| !seen.body.is_empty())).await;
    let header = Cast::parse(&recorder.uploads()[0].body).header;
    assert_eq!((header.width, header.height), (80, 24));
    session.types(&masked(4, b"{\"Width\":90,\"Height\":20}")).await;
    eventually("the resize", || recorder.only().contains("\"r\",\"90x20\"")).await;
    session.ends(SUCCESS).await;
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_does_not_know_us_sees_nothing_of_ours() {
    let pod = Pod::new();
    let recorder = pod.network.add(ONE, None);
    pod.name(&[ONE]);
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"out")).await;
    session.says(&frame(2, b"err")).await;
    session.says(&frame(1, &[0xff])).await;
    session.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    let text = recorder.only();
    assert!(!text.contains("podwitness") && !text.contains("x-"), "{text}");
    let events = Cast::parse(text.as_bytes()).events;
    let expected = ["out", "err", "\u{fffd}"].map(|text| Event::Output(text.into()));
    assert_eq!(events, expected);
    eventually("shipped", || pod.metric("podwitness_session_recordings_total{result=\"Complete\"}") == 1)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_could_not_be_started_says_why() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let session = pod.session(meta(), open()).await;
    session.ends(r#"{"status":"Failure","reason":"InternalError","message":"no such container"}"#).await;
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    assert!(
        recorder.only().contains(r#""x-exit","InternalError: no such container""#),
        "{}",
        recorder.only()
    );
}

#[tokio::test(start_paused = true)]
async fn who_leaves_first_is_written_down() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let client = pod.session(meta(), open()).await;
    drop(client.client);
    let mut server = client.server;
    tokio::io::AsyncReadExt::read_to_end(&mut server, &mut vec![]).await.unwrap();
    drop(server);
    let server = pod.session(meta(), open()).await;
    drop(server.server);
    let mut client = server.client;
    tokio::io::AsyncReadExt::read_to_end(&mut client, &mut vec![]).await.unwrap();
    drop(client);
    let ended = || recorder.uploads().iter().filter(|seen| seen.ended == Ended::Cleanly).count();
    eventually("both", || ended() == 2).await;
    let mut words: Vec<String> = recorder
        .uploads()
        .iter()
        .map(|seen| Cast::parse(&seen.body).ending().unwrap().0.to_owned())
        .collect();
    words.sort();
    assert_eq!(words, ["client-left", "server-left"]);
}

/// One of the sessions that `podwitness-wire` has as others put them on the wire.
struct Golden {
    spoken: (Transport, Protocol),
    tty: bool,
    failed: bool,
    client: Vec<u8>,
    server: Vec<u8>,
}

fn golden() -> Vec<Golden> {
    let hex = |line: &str| -> Vec<u8> {
        let byte = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        line.as_bytes().chunks_exact(2).map(byte).collect()
    };
    let text = include_str!("../../../wire/src/testing/sessions.txt");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let session = |lines: &[&str]| {
        let what: Vec<&str> = lines[0].split(' ').collect();
        let transport = if what[0] == "spdy" { Transport::Spdy } else { Transport::WebSocket };
        let protocol = Protocol::parse(what[1].trim_matches('"')).unwrap();
        let (client, server) = (hex(lines[1]), hex(lines[2]));
        Golden {
            spoken: (transport, protocol),
            tty: what[2] == "tty",
            failed: what[3] == "7",
            client,
            server,
        }
    };
    lines.chunks_exact(3).map(session).collect()
}

#[tokio::test(start_paused = true)]
async fn every_transport_and_version_is_recorded_alike() {
    let sessions = golden();
    assert_eq!(sessions.len(), 36);
    for Golden { spoken, tty, failed, client, server } in sessions {
        let what = format!("{spoken:?}, tty {tty}, failed {failed}");
        let pod = Pod::new();
        let recorder = pod.recorder(ONE);
        let meta = if tty { with_tty() } else { meta() };
        let recording = pod.sessions.open(meta, open()).await.map_err(|status| status.message).unwrap();
        let mut session = Session::speaking(Language::Command(spoken.0, spoken.1), recording);
        session.types(&client).await;
        session.says(&server).await;
        session.leaves().await;
        eventually(&what, || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
            .await;
        let cast = Cast::parse(&recorder.uploads()[0].body);
        let output = String::from_utf8(cast.output()).unwrap();
        assert!(output.ends_with("inputout\n"), "{what}: {output:?}");
        let exit = match (failed, spoken.1.has_status()) {
            (false, _) => "0",
            (true, true) => "7",
            (true, false) => "command terminated with non-zero exit code: exit 7",
        };
        assert!(cast.events.contains(&Event::Exit(exit.into())), "{what}: {:?}", cast.events);
        assert_eq!(cast.ending(), Some(("completed", "recorded")), "{what}");
    }
}
