use proptest::prelude::*;

use super::*;
use crate::{
    session::{Carrier, Direction, Language, directions},
    testing::{in_pieces, spdy::End},
    ws::{self, Opcode},
};

/// What a session shows, and what has passed.
#[derive(Debug, Default, Eq, PartialEq)]
struct Seen {
    flows: Vec<Flow>,
    passed: Vec<u8>,
}

/// Relays `pieces` as they come.
fn relay(direction: &mut Direction, pieces: &[&[u8]], seen: &mut Seen) {
    let mut held = vec![];
    for piece in pieces {
        held.extend_from_slice(piece);
        while let Some(unit) = direction.peek(&held).unwrap() {
            direction.feed(&held[..unit.len], |event| see(event, seen)).unwrap();
            direction.gone_on(unit);
            seen.passed.extend(held.drain(..unit.len));
        }
    }
    assert!(held.is_empty());
}

fn see(event: Event<'_>, seen: &mut Seen) {
    match event {
        Event::Flow(flow) => seen.flows.push(flow),
        other => panic!("{other:?}"),
    }
}

fn session(carrier: Carrier, client: &[&[u8]], server: &[&[u8]]) -> Vec<Flow> {
    let (mut to_server, mut to_client) = directions(Language::Forward(carrier));
    let mut seen = Seen::default();
    relay(&mut to_server, client, &mut seen);
    assert_eq!(seen.passed, client.concat());
    seen.passed.clear();
    relay(&mut to_client, server, &mut seen);
    assert_eq!(seen.passed, server.concat());
    to_server.finish(|event| see(event, &mut seen));
    to_client.finish(|event| see(event, &mut seen));
    seen.flows
}

/// kubectl's streams for one connection: errors on `id`, which it ends at once, data on the next.
fn connection(end: &mut End, id: u32, port: &str) -> Vec<u8> {
    let headers =
        |kind| [("streamtype", kind), ("port", port), ("requestid", if id < 5 { "0" } else { "1" })];
    [end.syn_stream(id, &headers("error")), data(id, b"", true), end.syn_stream(id + 2, &headers("data"))]
        .concat()
}

fn begun(id: u32, port: u16) -> Flow {
    Flow { id, port: Some(port), moved: None }
}

fn over(id: u32, port: u16, sent: u64, received: u64) -> Flow {
    Flow { moved: Some(Moved { sent, received }), ..begun(id, port) }
}

/// Two connections: one is over at both ends, the other still open when the session ends.
fn two() -> (Vec<u8>, Vec<u8>) {
    let (mut client, mut server) = (End::new(), End::new());
    let said = [
        connection(&mut client, 1, "80"),
        data(3, b"GET /", false),
        connection(&mut client, 5, "5432"),
        data(7, &[0; 70_000], false),
        data(3, b"", true),
    ];
    let answered = [
        server.syn_reply(1),
        server.syn_reply(3),
        data(3, b"200", false),
        data(3, b" OK", true),
        data(1, b"", true),
        server.syn_reply(5),
        server.syn_reply(7),
        data(7, &[1; 9], false),
    ];
    (said.concat(), answered.concat())
}

fn flows_of_two() -> Vec<Flow> {
    vec![begun(3, 80), begun(7, 5432), over(3, 80, 5, 6), over(7, 5432, 70_000, 9)]
}

/// The same bytes in the messages of a WebSocket, cut anywhere.
fn tunnelled(bytes: &[u8], cuts: &[usize], mask: Option<[u8; 4]>) -> Vec<u8> {
    in_pieces(bytes, cuts).into_iter().flat_map(|piece| ws::encode(Opcode::Binary, piece, mask)).collect()
}

#[test]
fn a_connection_is_shown_with_its_port_and_what_it_has_moved() {
    let (client, server) = two();
    assert_eq!(session(Carrier::Spdy, &[&client], &[&server]), flows_of_two());
}

#[test]
fn what_is_no_connection_is_not_shown() {
    let mut end = End::new();
    let client = [
        end.syn_stream(1, &[("streamtype", "stdout"), ("port", "80")]),
        end.syn_stream(3, &[("streamtype", "data")]),
        end.syn_stream(5, &[("streamtype", "data"), ("port", "65536")]),
        end.syn_stream(0x8000_0007, &[("streamtype", "data"), ("port", "80")]),
        data(3, b"nothing", true),
    ];
    assert_eq!(session(Carrier::Spdy, &[&client.concat()], &[&rst_stream(3, 5)]), []);
}

#[test]
fn a_reset_ends_both_halves() {
    let client = connection(&mut End::new(), 1, "80");
    assert_eq!(session(Carrier::Spdy, &[&client], &[&rst_stream(3, 5)]), [begun(3, 80), over(3, 80, 0, 0)]);
}

#[test]
fn an_id_opens_one_stream() {
    let mut end = End::new();
    let client =
        [connection(&mut end, 3, "80"), connection(&mut end, 3, "81"), connection(&mut end, 8, "82")]
            .concat();
    let flows = session(Carrier::Spdy, &[&client], &[]);
    assert_eq!(flows, [begun(5, 80), begun(10, 82), over(5, 80, 0, 0), over(10, 82, 0, 0)]);
}

#[test]
fn open_streams_are_counted_and_those_that_are_over_are_not() {
    let (mut end, flows) = (End::new(), Flows::new());
    let mut client = Decoder::new(Source::Client, flows.clone());
    let mut server = Decoder::new(Source::Server, flows);
    let mut id = 1;
    for _ in 0..MAX_FLOWS {
        client.feed(&connection(&mut end, id, "80"), |_| {}).unwrap();
        server.feed(&[rst_stream(id, 5), rst_stream(id + 2, 5)].concat(), |_| {}).unwrap();
        id += 4;
    }
    for _ in 0..MAX_FLOWS / 2 {
        client.feed(&connection(&mut end, id, "80"), |_| {}).unwrap();
        id += 4;
    }
    assert_eq!(client.feed(&connection(&mut end, id, "80"), |_| {}), Err(ForwardError::Many));
}

#[test]
fn a_server_is_not_followed_on_streams_that_nobody_has_seen_opened() {
    let flows = Flows::new();
    let mut client = Decoder::new(Source::Client, flows.clone());
    client.feed(&[0x80, 3, 0, 1, 0, 0, 0, 0], |_| {}).unwrap_err();
    let mut server = Decoder::new(Source::Server, flows);
    assert_eq!(server.feed(&data(3, b"x", false), |_| {}), Err(ForwardError::Unknown(3)));
}

#[test]
fn a_port_with_more_zeros_than_are_kept_is_not_passed_over() {
    let (mut end, flows) = (End::new(), Flows::new());
    let port = format!("{}80", "0".repeat(64));
    let opened = end.syn_stream(1, &[("streamtype", "data"), ("port", &port)]);
    Decoder::new(Source::Client, flows.clone()).feed(&opened, |_| {}).unwrap();
    let mut server = Decoder::new(Source::Server, flows);
    assert_eq!(server.feed(&data(1, b"x", false), |_| {}), Err(ForwardError::Unknown(1)));
}

#[test]
fn what_cannot_be_decoded_is_counted_as_one_connection_more() {
    let client = connection(&mut End::new(), 1, "80");
    let (mut to_server, mut to_client) = directions(Language::Forward(Carrier::Spdy));
    let mut seen = Seen::default();
    relay(&mut to_server, &[&client], &mut seen);
    to_server.stop_decoding();
    to_client.stop_decoding();
    relay(&mut to_server, &[b"nobody", b"knows"], &mut seen);
    relay(&mut to_client, &[&[0xff; 70_000]], &mut seen);
    to_server.finish(|event| see(event, &mut seen));
    to_client.finish(|event| see(event, &mut seen));
    let moved = Some(Moved { sent: 11, received: 70_000 });
    let undecoded = Flow { id: u32::MAX, port: None, moved };
    assert_eq!(seen.flows, [begun(3, 80), over(3, 80, 0, 0), undecoded]);
}

#[test]
fn channels_begin_with_their_ports() {
    let message =
        |channel: u8, bytes: &[u8], mask| ws::encode(Opcode::Binary, &[&[channel], bytes].concat(), mask);
    let key = Some([1, 2, 3, 4]);
    let client = [message(0, b"GET /", key), message(2, b"hi", key), message(1, b"?", key)].concat();
    let server = [
        message(0, &[80, 0], None),
        message(1, &[80, 0], None),
        message(2, &[0x38], None),
        message(2, &[0x15, b'a'], None),
        message(0, b"200 OK", None),
        message(1, b"refused", None),
    ]
    .concat();
    for cut in 0..server.len() {
        let (front, back) = server.split_at(cut);
        assert_eq!(
            session(Carrier::Channels, &[&client], &[front, back]),
            [begun(0, 80), begun(2, 5432), over(0, 80, 5, 6), over(2, 5432, 2, 1)]
        );
    }
}

/// The words that end a session of which so many bytes of the server have gone on.
fn last_words(carrier: Carrier, client: &[u8], server: &[u8]) -> Vec<u8> {
    let (mut to_server, mut to_client) = directions(Language::Forward(carrier));
    relay(&mut to_server, &[client], &mut Seen::default());
    relay(&mut to_client, &[server], &mut Seen::default());
    to_client.last_words(&crate::channel::Farewell { status: b"{}", message: "it is over" }).unwrap()
}

#[test]
fn every_open_connection_is_told_why_it_ends() {
    let (client, server) = two();
    let words = [data(5, b"it is over", true), data(7, b"", true), go_away(7, 0)].concat();
    assert_eq!(last_words(Carrier::Spdy, &client, &server), words);
    let close = ws::close(1000, "");
    let wrapped = [ws::encode(Opcode::Binary, &words, None), close.clone()].concat();
    let (client, server) = (tunnelled(&client, &[9], None), tunnelled(&server, &[99], None));
    assert_eq!(last_words(Carrier::Tunnel, &client, &server), wrapped);
    let open = ws::encode(Opcode::Binary, &[0, 0, 0, 7, 0, 0, 0, 5, b'a', b'b'], None);
    let words = last_words(Carrier::Tunnel, &client, &[server, open].concat());
    assert_eq!(words[2..5], [0, 0, 0], "the open frame is finished first");
    let port = ws::encode(Opcode::Binary, &[2, 80, 0], None);
    let expected = [ws::encode(Opcode::Binary, b"\x03it is over", None), close].concat();
    assert_eq!(last_words(Carrier::Channels, &[], &port), expected);
}

#[test]
fn within_a_control_frame_a_tunnel_just_ends() {
    let open = ws::encode(Opcode::Binary, &[0x80, 3, 0, 2], None);
    assert_eq!(last_words(Carrier::Tunnel, &[], &open), ws::close(1000, ""));
}

#[test]
fn of_what_nobody_knows_the_bytes_are_counted() {
    let (mut client, mut server) = directions(Language::Opaque);
    let mut seen = Seen::default();
    relay(&mut client, &[b"GET", b" /"], &mut seen);
    relay(&mut server, &[&[0; 100_000]], &mut seen);
    client.finish(|event| see(event, &mut seen));
    server.finish(|event| see(event, &mut seen));
    let moved = Some(Moved { sent: 5, received: 100_000 });
    assert_eq!(seen.flows, [Flow { id: 0, port: None, moved }]);
}

proptest! {
    #[test]
    fn connections_are_the_same_in_a_tunnel_and_wherever_they_are_cut(
        messages in prop::collection::vec(0usize..80_000, 0..12),
        pieces in prop::collection::vec(0usize..80_000, 0..12),
        mask in any::<Option<[u8; 4]>>(),
    ) {
        let (client, server) = two();
        let flows = session(Carrier::Spdy, &in_pieces(&client, &pieces), &in_pieces(&server, &pieces));
        prop_assert_eq!(flows, flows_of_two());
        let (client, server) = (tunnelled(&client, &messages, mask), tunnelled(&server, &messages, None));
        let flows = session(Carrier::Tunnel, &in_pieces(&client, &pieces), &in_pieces(&server, &pieces));
        prop_assert_eq!(flows, flows_of_two());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512), cut in any::<usize>()) {
        for carrier in [Carrier::Spdy, Carrier::Tunnel, Carrier::Channels] {
            let (client, server) = directions(Language::Forward(carrier));
            for mut direction in [client, server] {
                for piece in in_pieces(&bytes, &[cut]) {
                    // Whatever cannot be followed is an error.
                    let _ = direction.feed(piece, |_| {});
                }
                direction.finish(|_| {});
            }
        }
    }
}
