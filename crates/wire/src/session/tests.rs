use proptest::prelude::*;

use super::*;
use crate::{
    spdy::data,
    testing::{
        in_pieces,
        sessions::{Session, failed, sessions},
        spdy::ping,
    },
};

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Seen {
    stdout: String,
    stderr: String,
    statuses: Vec<String>,
    resizes: Vec<(u16, u16)>,
    passed: Vec<u8>,
}

/// Relays `pieces` as they come: whole units go on, after they were looked at.
fn relay(direction: &mut Direction, pieces: &[&[u8]]) -> Seen {
    let (mut seen, mut held) = (Seen::default(), vec![]);
    for piece in pieces {
        held.extend_from_slice(piece);
        while let Some(unit) = direction.peek(&held).unwrap() {
            look(direction, &held[..unit.len], &mut seen);
            direction.gone_on(unit);
            seen.passed.extend(held.drain(..unit.len));
        }
    }
    assert!(held.is_empty(), "{held:x?}");
    seen
}

fn look(direction: &mut Direction, bytes: &[u8], seen: &mut Seen) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let fed = direction.feed(bytes, |event| match event {
        Event::Stdout(payload) => payload.read(|bytes| seen.stdout += &text(bytes)),
        Event::Stderr(payload) => payload.read(|bytes| seen.stderr += &text(bytes)),
        Event::Status(bytes) => seen.statuses.push(text(bytes)),
        Event::Resize(size) => seen.resizes.push((size.cols, size.rows)),
        Event::Flow(_) | Event::Undecoded(_) => panic!("{event:?}"),
    });
    fed.unwrap();
}

fn statuses(session: &Session) -> Vec<String> {
    let failure = "command terminated with non-zero exit code: exit 7";
    let details = r#""reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}"#;
    vec![match (session.protocol.has_status(), session.exit) {
        (true, 0) => r#"{"metadata":{},"status":"Success"}"#.to_owned(),
        (true, _) => format!(r#"{{"metadata":{{}},"status":"Failure","message":"{failure}",{details}}}"#),
        (false, 0) => String::new(),
        (false, _) => failure.to_owned(),
    }]
}

/// What the command of [`sessions`] does, see there.
fn expected(session: &Session) -> (Seen, Seen) {
    let spdy = session.transport == Transport::Spdy;
    let sized = !spdy || session.tty && matches!(session.protocol, Protocol::V3 | Protocol::V4);
    let client = Seen {
        resizes: if sized { vec![(100, 30)] } else { vec![] },
        passed: session.client.clone(),
        ..Seen::default()
    };
    let server = Seen {
        stdout: if sized && session.tty { "100x30\r\ninputout\n" } else { "inputout\n" }.to_owned(),
        stderr: if session.tty { "" } else { "err\n" }.to_owned(),
        statuses: statuses(session),
        passed: session.server.clone(),
        ..Seen::default()
    };
    (client, server)
}

#[test]
fn a_session_says_what_its_command_said() {
    let sessions = sessions();
    assert_eq!(sessions.len(), 36);
    for session in sessions {
        let (mut client, mut server) = directions(Language::Command(session.transport, session.protocol));
        let seen = (relay(&mut client, &[&session.client]), relay(&mut server, &[&session.server]));
        assert_eq!(seen, expected(&session), "{:?} {:?}", session.transport, session.protocol);
    }
}

proptest! {
    #[test]
    fn a_session_says_the_same_wherever_it_is_cut(
        which in 0usize..36, cuts in prop::collection::vec(0usize..512, 0..24)
    ) {
        let session = sessions().swap_remove(which);
        let (mut client, mut server) = directions(Language::Command(session.transport, session.protocol));
        let seen = (
            relay(&mut client, &in_pieces(&session.client, &cuts)),
            relay(&mut server, &in_pieces(&session.server, &cuts)),
        );
        prop_assert_eq!(seen, expected(&session));
    }
}

/// The stream of a server with `frame` put in wherever one may be, and how often that was.
fn with_frames(session: &Session, cuts: &[usize], frame: &[u8]) -> (Vec<u8>, usize) {
    let (_, mut server) = directions(Language::Command(session.transport, session.protocol));
    let (mut out, mut held, mut count) = (vec![], vec![], 0);
    for piece in in_pieces(&session.server, cuts) {
        held.extend_from_slice(piece);
        while let Some(unit) = server.peek(&held).unwrap() {
            server.feed(&held[..unit.len], |_| {}).unwrap();
            server.gone_on(unit);
            out.extend(held.drain(..unit.len));
            if server.takes_control_frame() {
                out.extend_from_slice(frame);
                count += 1;
            }
        }
    }
    (out, count)
}

proptest! {
    #[test]
    fn a_pong_wherever_one_may_be_changes_nothing_that_is_said(
        which in 0usize..36, cuts in prop::collection::vec(0usize..512, 0..24)
    ) {
        let session = sessions().swap_remove(which);
        let (stream, count) = with_frames(&session, &cuts, &ws::encode(ws::Opcode::Pong, b"now", None));
        prop_assert_eq!(count > 0, session.transport == Transport::WebSocket);
        let (mut client, mut server) = directions(Language::Command(session.transport, session.protocol));
        relay(&mut client, &[&session.client]);
        let seen = relay(&mut server, &[&stream]);
        prop_assert_eq!(Seen { passed: vec![], ..seen }, Seen { passed: vec![], ..expected(&session).1 });
    }
}

#[test]
fn only_pings_of_a_client_over_websocket_are_answered() {
    let ping = ws::encode(ws::Opcode::Ping, b"now", Some([1, 2, 3, 4]));
    for (language, answered) in [
        (Language::Command(Transport::WebSocket, Protocol::V5), true),
        (Language::Forward(Carrier::Tunnel), true),
        (Language::Forward(Carrier::Channels), true),
        (Language::Command(Transport::Spdy, Protocol::V4), false),
        (Language::Forward(Carrier::Spdy), false),
        (Language::Opaque, false),
        (Language::Undecoded, false),
    ] {
        let (mut client, mut server) = directions(language);
        assert_eq!(client.pong(&ping).is_some(), answered, "{language:?}");
        assert_eq!((server.pong(&ping), server.takes_control_frame()), (None, answered), "{language:?}");
        client.stop_decoding();
        server.stop_decoding();
        assert_eq!((client.pong(&ping), server.takes_control_frame()), (None, false), "{language:?}");
    }
}

const FAREWELL: Farewell<'static> = Farewell { status: br#"{"status":"Failure"}"#, message: "it is over" };

/// The last words of a session whose server has said so many bytes.
fn last_words(transport: Transport, protocol: Protocol, server: &[u8]) -> Vec<u8> {
    let session = failed(transport, protocol);
    let (mut to_server, mut to_client) = directions(Language::Command(transport, protocol));
    relay(&mut to_server, &[&session.client]);
    relay(&mut to_client, &[server]);
    to_client.last_words(&FAREWELL).unwrap()
}

#[test]
fn over_websocket_a_session_ends_with_a_message_and_a_close_frame() {
    let close = [0x88, 2, 0x03, 0xe8];
    for (protocol, message) in [
        (Protocol::V4, [&[0x82, 21, 3], FAREWELL.status].concat()),
        (Protocol::V1, b"\x82\x0b\x03it is over".to_vec()),
        (Protocol::Unnamed, b"\x82\x0b\x03it is over".to_vec()),
        (Protocol::Base64V1, b"\x81\x113aXQgaXMgb3Zlcg==".to_vec()),
        (Protocol::Base64V4, b"\x81\x1d3eyJzdGF0dXMiOiJGYWlsdXJlIn0=".to_vec()),
    ] {
        let words = last_words(Transport::WebSocket, protocol, &[]);
        assert_eq!(words, [message.as_slice(), &close].concat(), "{protocol:?}");
    }
}

/// The four streams of a command without a terminal are 1 error, 3 stdin, 5 stdout, 7 stderr.
#[test]
fn over_spdy_a_session_ends_with_the_status_and_all_that_client_go_waits_for() {
    let (fin, go_away) =
        (|id| [0, 0, 0, id, 1, 0, 0, 0], [0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 0]);
    for (protocol, message) in [(Protocol::V4, FAREWELL.status), (Protocol::V2, FAREWELL.message.as_bytes())]
    {
        let replies = &failed(Transport::Spdy, protocol).server[..88];
        let error = [&[0, 0, 0, 1, 1, 0, 0, u8::try_from(message.len()).unwrap()], message].concat();
        let words = last_words(Transport::Spdy, protocol, replies);
        assert_eq!(words, [error.as_slice(), &fin(5), &fin(7), &go_away].concat());
    }
}

#[test]
fn over_spdy_a_stream_that_waits_for_its_answer_is_refused() {
    let words = last_words(Transport::Spdy, Protocol::V4, &[]);
    let refused = |id| [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, id, 0, 0, 0, 3];
    let go_away = [0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 0];
    assert_eq!(words, [1, 3, 5, 7].map(refused).into_iter().chain([go_away]).flatten().collect::<Vec<u8>>());
}

#[test]
fn what_is_open_is_finished_before_the_last_words() {
    for (transport, open) in [
        (Transport::WebSocket, [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0, 1][..], b"begun"].concat()),
        (Transport::Spdy, [&[0, 0, 0, 5, 0, 1, 0, 0][..], b"begun"].concat()),
    ] {
        let words = last_words(transport, Protocol::V4, &open);
        let padding = words.iter().take_while(|byte| **byte == 0).count();
        let heads = if transport == Transport::WebSocket { 10 } else { 8 };
        assert!(padding >= (1 << 16) - (open.len() - heads), "{transport:?} {padding}");
    }
}

#[test]
fn a_client_whose_units_are_none_leaves_its_server_unreadable() {
    let (client, mut server) = directions(Language::Command(Transport::Spdy, Protocol::V4));
    assert_eq!(server.feed(&data(1, b"", false), |_| {}), Ok(()));
    let error = client.peek(&[0x80, 3, 0, 1, 0, 0, 0, 9]).unwrap_err();
    assert_eq!(error, SessionError::Spdy(spdy::SpdyError::Length { kind: 1, len: 9 }.into()));
    let error = server.feed(&data(1, b"x", false), |_| {}).unwrap_err();
    assert_eq!(error, SessionError::Spdy(StreamsError::Unknown(1)));
}

#[test]
fn a_unit_of_the_other_transport_changes_nothing() {
    let (_, mut server) = directions(Language::Command(Transport::Spdy, Protocol::V4));
    let (_, other) = directions(Language::Command(Transport::WebSocket, Protocol::V4));
    server.gone_on(other.peek(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0, 1]).unwrap().unwrap());
    assert!(server.peek(&ping(2)).unwrap().unwrap().control);
}

/// What of `bytes` is shown once they are no longer decoded, and whether all of them go on.
fn undecoded(direction: &mut Direction, bytes: &[u8]) -> Vec<u8> {
    let (mut shown, mut rest) = (vec![], bytes);
    direction.stop_decoding();
    while let Some(unit) = direction.peek(rest).unwrap() {
        assert!(0 < unit.len && unit.len <= MAX_HELD);
        let fed = direction.feed(&rest[..unit.len], |event| match event {
            Event::Undecoded(bytes) => shown.extend_from_slice(bytes),
            other => panic!("{other:?}"),
        });
        fed.unwrap();
        direction.gone_on(unit);
        rest = &rest[unit.len..];
    }
    assert!(rest.is_empty());
    shown
}

#[test]
fn what_a_server_says_is_shown_as_it_stands_where_it_cannot_be_decoded() {
    let command = |transport| Language::Command(transport, Protocol::V4);
    for language in [command(Transport::WebSocket), command(Transport::Spdy), Language::Undecoded] {
        let (mut client, mut server) = directions(language);
        let bytes = vec![0xff; MAX_HELD + 9];
        assert_eq!(undecoded(&mut server, &bytes), bytes, "{language:?}");
        assert!(undecoded(&mut client, &bytes).is_empty(), "{language:?}");
        assert!(server.shows_undecoded() && !client.shows_undecoded());
        assert_eq!(server.last_words(&FAREWELL), None);
    }
}

proptest! {
    /// Whatever a client says, each of its server's bytes is shown in one way or the other.
    #[test]
    fn no_client_hides_what_its_server_says(
        which in 0usize..36, said in crate::testing::spdy::stream(), raw in prop::collection::vec(any::<u8>(), 0..64)
    ) {
        let session = sessions().swap_remove(which);
        let (mut client, mut server) = directions(Language::Command(session.transport, session.protocol));
        let said = [&session.client, &said, &raw].into_iter().flatten().copied().collect::<Vec<u8>>();
        let mut rest = &said[..];
        while let Ok(Some(unit)) = client.peek(rest) {
            if client.feed(&rest[..unit.len], |_| {}).is_err() {
                break;
            }
            client.gone_on(unit);
            rest = &rest[unit.len..];
        }
        let (expected, mut rest, mut seen) = (expected(&session).1, &session.server[..], Seen::default());
        while let Some(unit) = server.peek(rest).unwrap() {
            look(&mut server, &rest[..unit.len], &mut seen);
            server.gone_on(unit);
            rest = &rest[unit.len..];
        }
        prop_assert_eq!((seen.stdout, seen.stderr), (expected.stdout, expected.stderr));
    }
}
