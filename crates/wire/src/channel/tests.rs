use proptest::prelude::*;

use super::*;
use crate::{
    testing::{frames, in_pieces},
    ws::{self, Opcode, encode},
};

#[derive(Debug, Default, Eq, PartialEq)]
struct Seen {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    statuses: Vec<String>,
    resizes: Vec<(u16, u16)>,
    failed: bool,
}

fn see(from: Source, pieces: &[&[u8]]) -> Seen {
    see_as(Protocol::V5, from, pieces)
}

fn see_as(protocol: Protocol, from: Source, pieces: &[&[u8]]) -> Seen {
    let (mut decoder, mut seen) = (Decoder::speaking(protocol, from), Seen::default());
    for piece in pieces {
        let fed = decoder.feed(piece, |event| match event {
            Event::Stdout(payload) => payload.read(|bytes| seen.stdout.extend_from_slice(bytes)),
            Event::Stderr(payload) => payload.read(|bytes| seen.stderr.extend_from_slice(bytes)),
            Event::Status(bytes) => seen.statuses.push(String::from_utf8_lossy(bytes).into_owned()),
            Event::Resize(size) => seen.resizes.push((size.cols, size.rows)),
            Event::Flow(_) | Event::Undecoded(_) => panic!("{event:?}"),
        });
        seen.failed |= fed.is_err();
    }
    seen
}

fn message(channel: u8, payload: &[u8]) -> Vec<u8> {
    encode(Opcode::Binary, &[&[channel], payload].concat(), None)
}

fn masked(channel: u8, payload: &[u8]) -> Vec<u8> {
    encode(Opcode::Binary, &[&[channel], payload].concat(), Some([1, 2, 3, 4]))
}

/// `head` with the payload `[channel] + payload`, for vectors that are written frame by frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(payload.len()).unwrap()], payload].concat()
}

const RESIZE_JSON: &[u8] = br#"{"width":10,"height":20}"#;

#[test]
fn output_is_seen_by_its_channel() {
    let stream = [message(STDOUT, b""), message(STDOUT, &[7, 8]), message(STDERR, b"oh"), message(0, b"in")];
    let seen = see(Source::Server, &[&stream.concat()]);
    assert_eq!((seen.stdout.as_slice(), seen.stderr.as_slice()), (&[7, 8][..], &b"oh"[..]));
}

#[test]
fn only_the_first_fragment_names_the_channel() {
    let stream = [frame(0x02, &[STDOUT, 1, 2]), frame(0x00, &[3, 4]), frame(0x80, &[1, 9])].concat();
    assert_eq!(see(Source::Server, &[&stream]).stdout, [1, 2, 3, 4, 1, 9]);
}

#[test]
fn a_first_fragment_may_be_empty() {
    let stream = [frame(0x02, &[]), frame(0x80, &[STDOUT, 5])].concat();
    assert_eq!(see(Source::Server, &[&stream]).stdout, [5]);
}

#[test]
fn channels_of_the_other_direction_are_ignored() {
    let both = [message(STDOUT, b"forged"), message(RESIZE, RESIZE_JSON), message(ERROR, b"{}")].concat();
    assert_eq!(see(Source::Client, &[&both]), Seen { resizes: vec![(10, 20)], ..Seen::default() });
    let seen = see(Source::Server, &[&both]);
    assert_eq!((seen.resizes.len(), seen.stdout.as_slice()), (0, &b"forged"[..]));
}

/// The resize cases of the reference's reader tests, except that fragments are what they are to the server.
#[test]
fn resizes_are_read_as_the_server_reads_them() {
    let one = message(RESIZE, RESIZE_JSON);
    let (a, b) = RESIZE_JSON.split_at(10);
    let cases: [(&str, Vec<u8>, usize); 7] = [
        ("non-final frame and empty end", [frame(0x02, &one[2..]), vec![0x80, 0]].concat(), 1),
        ("lone close frame", vec![0x88, 0], 0),
        ("single", one.clone(), 1),
        ("two at once", [one.clone(), one.clone()].concat(), 2),
        ("close frame before", [&[0x88, 0], one.as_slice()].concat(), 1),
        (
            "a fragment is a message to the server",
            [frame(0x02, &[&[RESIZE], a].concat()), frame(0x80, b)].concat(),
            0,
        ),
        (
            "and names its channel",
            [frame(0x02, &[&[RESIZE], a].concat()), frame(0x80, &[&[RESIZE], b].concat())].concat(),
            1,
        ),
    ];
    for (name, stream, count) in cases {
        assert_eq!(see(Source::Client, &[&stream]).resizes, vec![(10, 20); count], "{name}");
    }
}

#[test]
fn a_resize_is_read_as_go_reads_it() {
    let stream = masked(RESIZE, b"{\"Width\":80,\"Height\":24}\n{\"WIDTH\":1}");
    assert_eq!(see(Source::Client, &[&stream]).resizes, [(80, 24), (1, 0)]);
    let halves = [masked(RESIZE, b"{\"Width\":80,"), masked(RESIZE, b"\"Height\":24}")].concat();
    assert_eq!(see(Source::Client, &[&halves]).resizes, [(80, 24)]);
}

#[test]
fn resizes_end_at_the_first_that_is_none() {
    for junk in [&b"{\"Width\":70000}"[..], b"[1]", b"{\"Width\":\"x\"}"] {
        let stream = [message(RESIZE, junk), message(RESIZE, RESIZE_JSON), message(STDIN, b"x")].concat();
        assert_eq!(see(Source::Client, &[&stream]), Seen::default());
    }
}

#[test]
fn a_status_is_shown_when_a_message_ends() {
    let text = r#"{"metadata":{},"status":"Success"}"#;
    let (a, b) = text.split_at(9);
    let stream = [message(ERROR, b""), message(ERROR, a.as_bytes()), message(ERROR, b.as_bytes())].concat();
    assert_eq!(see(Source::Server, &[&stream]).statuses, [a, text]);
}

#[test]
fn a_status_is_kept_up_to_its_cap() {
    let stream = message(ERROR, &vec![b'x'; MAX_STATUS + 10]);
    assert_eq!(see(Source::Server, &[&stream]).statuses[0].len(), MAX_STATUS);
}

#[test]
fn a_half_close_is_no_output() {
    assert_eq!(see(Source::Server, &[&frame(0x82, &[CLOSE, STDOUT])]), Seen::default());
}

#[test]
fn a_version_is_known_by_its_exact_name() {
    for (name, protocol) in [
        ("", Protocol::Unnamed),
        ("channel.k8s.io", Protocol::V1),
        ("v4.channel.k8s.io", Protocol::V4),
        ("v5.channel.k8s.io", Protocol::V5),
        ("base64.channel.k8s.io", Protocol::Base64V1),
        ("v4.base64.channel.k8s.io", Protocol::Base64V4),
    ] {
        assert_eq!((Protocol::parse(name), protocol.as_str()), (Some(protocol), name));
    }
    for name in
        ["v1.channel.k8s.io", "V4.channel.k8s.io", "v5.base64.channel.k8s.io", "v6.channel.k8s.io", " "]
    {
        assert_eq!(Protocol::parse(name), None, "{name}");
    }
}

fn text(message: &str) -> Vec<u8> {
    encode(Opcode::Text, message.as_bytes(), None)
}

#[test]
fn base64_is_read_from_text_and_binary_and_from_fragments() {
    let stream = [
        text("1"),
        text("1b3V0"),
        encode(Opcode::Binary, b"2ZXJy", None),
        text("0aW4="),
        text("3e30="),
        [frame(0x01, b"1Y"), frame(0x89, b""), frame(0x00, b"WJ"), frame(0x80, b"j")].concat(),
        text("9not!"),
        text(""),
    ];
    let seen = see_as(Protocol::Base64V4, Source::Server, &[&stream.concat()]);
    let expected = Seen {
        stdout: b"outabc".into(),
        stderr: b"err".into(),
        statuses: vec!["{}".into()],
        ..Seen::default()
    };
    assert_eq!(seen, expected);
}

#[test]
fn what_a_server_says_in_base64_must_be_sound() {
    for wrong in ["1YQ", "1Y!==", "3YQ==YQ=="] {
        let stream = [text(wrong), text("1b3V0")].concat();
        let seen = see_as(Protocol::Base64V1, Source::Server, &[&stream]);
        assert_eq!((seen.failed, seen.stdout.is_empty()), (true, true), "{wrong}");
    }
}

/// As the server does: see `DataFromSocket` in `wsstream/conn.go`.
#[test]
fn what_a_client_says_in_base64_may_be_thrown_away() {
    let size = base64::message(RESIZE, RESIZE_JSON);
    let masked = encode(Opcode::Text, &size, Some([1, 2, 3, 4]));
    let stream = [text("4!!!!"), text("4YQ"), masked, text("0??")].concat();
    let seen = see_as(Protocol::Base64V1, Source::Client, &[&stream]);
    assert_eq!(seen, Seen { resizes: vec![(10, 20)], ..Seen::default() });
}

#[test]
fn a_server_that_closes_without_a_word_tells_of_success_where_text_is_spoken() {
    let close = ws::close(1000, "");
    let failed = [message(ERROR, b"oh"), close.clone()].concat();
    for protocol in [Protocol::Unnamed, Protocol::V1, Protocol::V2, Protocol::V3] {
        assert_eq!(see_as(protocol, Source::Server, &[&close, &close]).statuses, [""]);
        assert_eq!(see_as(protocol, Source::Server, &[&failed]).statuses, ["oh"]);
        assert_eq!(see_as(protocol, Source::Client, &[&close]), Seen::default());
    }
    assert_eq!(see_as(Protocol::V4, Source::Server, &[&close]), Seen::default());
}

#[test]
fn a_half_close_of_the_sizes_ends_them_in_version_5() {
    let size = message(RESIZE, RESIZE_JSON);
    let resizes = |protocol, close: &[u8]| {
        let stream = [size.clone(), message(CLOSE, close), size.clone()].concat();
        see_as(protocol, Source::Client, &[&stream]).resizes.len()
    };
    assert_eq!(resizes(Protocol::V5, &[RESIZE]), 1);
    assert_eq!(resizes(Protocol::V5, &[STDIN]), 2);
    assert_eq!(resizes(Protocol::V5, &[RESIZE, RESIZE]), 2);
    assert_eq!(resizes(Protocol::V4, &[RESIZE]), 2);
}

#[test]
fn a_broken_stream_stays_broken() {
    let stream = [vec![0x83, 0], message(STDOUT, b"late")].concat();
    assert_eq!(see(Source::Server, &[&stream]), Seen { failed: true, ..Seen::default() });
}

/// Else a client could hide a size, or break its own direction, with a frame that its server takes all the same.
#[test]
fn a_client_breaks_nothing_by_frames_that_the_server_takes() {
    for before in
        [&[0x83, 0][..], &[0xf2, 0], &[0x09, 1, 0], &[0x89, 126, 0, 1, 0], &[0x80, 1, 9], &[0x02, 1, 0]]
    {
        let stream = [before, &masked(RESIZE, RESIZE_JSON)].concat();
        let seen = see(Source::Client, &[&stream]);
        assert_eq!(seen, Seen { resizes: vec![(10, 20)], ..Seen::default() }, "{before:x?}");
    }
}

const SPOKEN: [(Protocol, Source); 6] = [
    (Protocol::V1, Source::Client),
    (Protocol::V1, Source::Server),
    (Protocol::V5, Source::Client),
    (Protocol::V5, Source::Server),
    (Protocol::Base64V4, Source::Client),
    (Protocol::Base64V4, Source::Server),
];

proptest! {
    #[test]
    fn events_are_the_same_wherever_the_stream_is_cut(
        stream in frames(), cuts in prop::collection::vec(0usize..4096, 0..12)
    ) {
        for (protocol, from) in SPOKEN {
            prop_assert_eq!(see_as(protocol, from, &in_pieces(&stream, &cuts)), see_as(protocol, from, &[&stream]));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..512), cuts in prop::collection::vec(0usize..512, 0..4)
    ) {
        for (protocol, from) in SPOKEN {
            prop_assert_eq!(see_as(protocol, from, &in_pieces(&bytes, &cuts)), see_as(protocol, from, &[&bytes]));
        }
    }
}
