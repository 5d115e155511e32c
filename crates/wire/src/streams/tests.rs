use proptest::prelude::*;

use super::*;
use crate::{
    spdy::{data, go_away, rst_stream},
    testing::{
        in_pieces,
        spdy::{End, control, ping, stream},
    },
};

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Seen {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    statuses: Vec<String>,
    resizes: Vec<(u16, u16)>,
    failed: Option<StreamsError>,
}

fn see(decoder: &mut Decoder, pieces: &[&[u8]]) -> Seen {
    let mut seen = Seen::default();
    for piece in pieces {
        let fed = decoder.feed(piece, |event| match event {
            Event::Stdout(payload) => payload.read(|bytes| seen.stdout.extend_from_slice(bytes)),
            Event::Stderr(payload) => payload.read(|bytes| seen.stderr.extend_from_slice(bytes)),
            Event::Status(bytes) => seen.statuses.push(String::from_utf8_lossy(bytes).into_owned()),
            Event::Resize(size) => seen.resizes.push((size.cols, size.rows)),
            Event::Flow(_) | Event::Undecoded(_) => panic!("{event:?}"),
        });
        seen.failed = seen.failed.or_else(|| fed.err());
    }
    seen
}

/// What the client and then the server are seen to say.
fn session(protocol: Protocol, client: &[&[u8]], server: &[&[u8]]) -> (Seen, Seen) {
    let streams = Streams::new();
    let decoder = |from| Decoder::new(protocol, from, streams.clone());
    (see(&mut decoder(Source::Client), client), see(&mut decoder(Source::Server), server))
}

const KINDS: [&str; 5] = ["error", "stdin", "stdout", "stderr", "resize"];
const SIZE: &[u8] = br#"{"Width":80,"Height":24}"#;

fn server(protocol: Protocol, said: &[Vec<u8>]) -> Seen {
    session(protocol, &[&End::new().open(&KINDS)], &[&said.concat()]).1
}

fn client(said: &[Vec<u8>]) -> Seen {
    session(Protocol::V4, &[&said.concat()], &[]).0
}

#[test]
fn streams_are_what_their_opener_calls_them() {
    let seen = server(Protocol::V4, &[data(5, b"out", false), data(7, b"err", false), data(1, b"{}", false)]);
    let expected =
        Seen { stdout: b"out".into(), stderr: b"err".into(), statuses: vec!["{}".into()], ..Seen::default() };
    assert_eq!(seen, expected);
}

/// Stream 129 is 1 and 65,541 is 5 to whoever looks at fewer bits.
#[test]
fn all_31_bits_of_an_id_count() {
    let mut end = End::new();
    let opened = [(1, "error"), (5, "stdin"), (129, "stdout"), (65_541, "stderr"), (0x7fff_ffff, "stdout")];
    let opened = opened.map(|(id, kind)| end.syn_stream(id, &[("streamtype", kind)])).concat();
    let said = [data(129, b"a", false), data(65_541, b"b", false), data(0x7fff_ffff, b"c", false)].concat();
    let (_, seen) = session(Protocol::V4, &[&opened], &[&said]);
    assert_eq!((seen.stdout.as_slice(), seen.stderr.as_slice()), (&b"ac"[..], &b"b"[..]));
}

#[test]
fn streams_of_the_other_direction_are_ignored() {
    let frames: Vec<Vec<u8>> = (0..5).map(|n| data(2 * n + 1, SIZE, false)).collect();
    let seen = client(&[vec![End::new().open(&KINDS)], frames.clone()].concat());
    assert_eq!(seen, Seen { resizes: vec![(80, 24)], ..Seen::default() });
    let seen = server(Protocol::V4, &frames);
    assert_eq!((seen.resizes.len(), seen.stdout.as_slice()), (0, SIZE));
}

#[test]
fn what_nobody_opened_is_no_output() {
    let mut end = End::new();
    let opened =
        [end.syn_stream(1, &[("streamtype", "data")]), end.syn_stream(3, &[("port", "80")])].concat();
    let said = [data(1, b"x", false), data(3, b"x", false), data(5, b"x", false)].concat();
    let (seen, answer) = session(Protocol::V4, &[&opened], &[&said]);
    assert_eq!((seen, answer), Default::default());
}

#[test]
fn output_on_each_of_several_streams_is_seen() {
    let opened = End::new().open(&["stdout", "stdin", "stdout"]);
    let said = [data(1, b"a", false), data(5, b"b", false)].concat();
    assert_eq!(session(Protocol::V4, &[&opened], &[&said]).1.stdout, b"ab");
}

#[test]
fn sizes_are_read_from_the_last_resize_stream() {
    let (a, b) = SIZE.split_at(9);
    let mut end = End::new();
    let opened = end.open(&KINDS);
    assert_eq!(client(&[opened.clone(), data(9, a, false), ping(1), data(9, b, false)]).resizes, [(80, 24)]);
    let again = end.syn_stream(11, &[("streamtype", "resize")]);
    let seen = client(&[opened, data(9, a, false), again, data(11, SIZE, false), data(9, SIZE, false)]);
    assert_eq!(seen.resizes, [(80, 24)]);
}

#[test]
fn any_id_that_the_server_takes_is_followed() {
    for ids in [[2, 4, 6], [128, 130, 133], [65537, 70000, 0x7fff_ffff]] {
        let mut end = End::new();
        let opened = ids.map(|id| end.syn_stream(id, &[("streamtype", "stdout")]));
        let said = ids.map(|id| data(id, b"a", false));
        let (seen, answer) =
            session(Protocol::V4, &opened.each_ref().map(Vec::as_slice), &said.each_ref().map(Vec::as_slice));
        assert_eq!(
            (seen.failed, answer.failed, answer.stdout.as_slice()),
            (None, None, &b"aaa"[..]),
            "{ids:?}"
        );
    }
}

#[test]
fn an_id_with_its_top_bit_set_is_refused_like_others() {
    let mut end = End::new();
    let opened = [
        end.syn_stream(0x8000_0001, &[("streamtype", "stdout")]),
        end.syn_stream(1, &[("streamtype", "stdout")]),
    ];
    let said = [rst_stream(0x8000_0001, 1), data(1, b"a", false)].concat();
    let (seen, answer) = session(Protocol::V4, &opened.each_ref().map(Vec::as_slice), &[&said]);
    assert_eq!((seen.failed, answer.failed, answer.stdout.as_slice()), (None, None, &b"a"[..]));
}

/// As `moby/spdystream` reads them: what follows such a frame begins where it stops to read.
#[test]
fn frames_whose_length_the_server_does_not_believe_hide_nothing() {
    let (nine, one) = ([9; 9], 1u32.to_be_bytes());
    for before in [
        control(6, 0, &[&one[..], &data(9, b"inner", false)].concat()),
        control(6, 0, &one),
        [&[0x80, 3, 0, 6, 0, 0, 0, 0][..], &one].concat(),
        [&[0x80, 3, 0, 6, 0, 0xff, 0xff, 0xff][..], &one].concat(),
        [&[0x80, 3, 0, 3, 0, 0, 0, 4][..], &one, &one].concat(),
        [&[0x80, 3, 0, 4, 0, 0, 0, 4][..], &one, &[0; 8]].concat(),
        [&[0x80, 3, 0, 4, 0, 0, 0, 20][..], &[0; 4]].concat(),
        [&[0x80, 9, 0, 6, 7, 0, 0, 4][..], &one].concat(),
        control(77, 0, &nine),
    ] {
        let opened = [before, End::new().syn_stream(1, &[("streamtype", "stdout")])].concat();
        let (seen, answer) = session(Protocol::V4, &[&opened], &[&data(1, b"seen", false)]);
        assert_eq!((seen.failed, answer.failed), (None, None), "{opened:x?}");
        assert_eq!(answer.stdout, b"seen", "{opened:x?}");
    }
}

/// Else a client could open one in the wrong order to have all that it opens later go by unseen.
#[test]
fn an_id_that_the_server_refuses_opens_nothing_and_hides_nothing() {
    let mut end = End::new();
    let mut syn = |id, kind| end.syn_stream(id, &[("streamtype", kind)]);
    let opened = [syn(5, "error"), syn(3, "stdout"), syn(5, "stdout"), syn(6, "stdout"), syn(7, "stdout")];
    let opened = opened.each_ref().map(Vec::as_slice);
    let (seen, answer) = session(Protocol::V4, &opened, &[&data(7, b"seen", false)]);
    assert_eq!((seen.failed, answer.failed, answer.stdout.as_slice()), (None, None, &b"seen"[..]));
    for other in [3, 6] {
        let (_, answer) = session(Protocol::V4, &opened, &[&data(other, b"taken after all", false)]);
        assert_eq!(answer.failed, Some(StreamsError::Unknown(other)));
    }
}

#[test]
fn streams_are_counted() {
    let opened = End::new().open(&["stdout"; MAX_STREAMS + 1]);
    let (seen, answer) = session(Protocol::V4, &[&opened], &[&data(127, b"last", false)]);
    assert_eq!((seen.failed, answer.stdout.as_slice()), (Some(StreamsError::Many), &b"last"[..]));
}

#[test]
fn an_error_is_the_same_for_ever() {
    let (mut end, mut decoder) = (End::new(), Decoder::new(Protocol::V4, Source::Client, Streams::new()));
    let opened = end.open(&["resize"]);
    let short = StreamsError::Frames(SpdyError::Length { kind: 1, len: 9 });
    assert_eq!(decoder.feed(&control(1, 0, &[0; 9]), |_| {}), Err(short));
    let seen = see(&mut decoder, &[&opened, &data(1, SIZE, false)]);
    assert_eq!(seen, Seen { failed: Some(short), ..Seen::default() });
}

/// Else a client could break its own direction and have its output go by unseen, with no word about it.
#[test]
fn where_the_client_cannot_be_followed_new_streams_of_the_server_cannot_either() {
    let opened = End::new().open(&["stdout"]);
    let broken = [0x80, 3, 0, 1, 0, 0, 0, 9];
    let said = [data(1, b"a", false), data(3, b"b", false), data(1, b"c", false)].concat();
    let (_, seen) = session(Protocol::V4, &[&opened, &broken], &[&said]);
    let failed = Some(StreamsError::Unknown(3));
    assert_eq!(seen, Seen { stdout: b"a".into(), failed, ..Seen::default() });
    let (_, seen) = session(Protocol::V4, &[&opened], &[&said]);
    assert_eq!(seen, Seen { stdout: b"ac".into(), ..Seen::default() });
}

#[test]
fn a_status_is_shown_as_it_grows() {
    let seen =
        server(Protocol::V4, &[data(1, b"", false), data(1, b"{", false), ping(2), data(1, b"}", true)]);
    assert_eq!(seen.statuses, ["{", "{}"]);
}

#[test]
fn an_error_stream_that_ends_without_a_word_is_success_where_text_is_spoken() {
    let ends =
        [data(1, b"", true), rst_stream(1, 5), go_away(9, 0), [rst_stream(1, 5), go_away(9, 0)].concat()];
    for end in ends {
        assert_eq!(server(Protocol::V3, std::slice::from_ref(&end)).statuses, [""]);
        assert_eq!(server(Protocol::V4, std::slice::from_ref(&end)).statuses, [""; 0]);
        assert_eq!(server(Protocol::V2, &[data(1, b"oh", false), end]).statuses, ["oh"]);
    }
    assert_eq!(server(Protocol::V3, &[rst_stream(5, 5), data(7, b"", true)]).statuses, [""; 0]);
}

#[test]
fn a_first_version_s_error_stream_that_is_reset_says_nothing() {
    assert_eq!(server(Protocol::V1, &[rst_stream(1, 5)]).statuses, [""; 0]);
    let said = [rst_stream(1, 5), data(1, b"oh", false), go_away(9, 0)];
    assert_eq!(server(Protocol::V1, &said).statuses, ["oh"]);
    assert_eq!(server(Protocol::V1, &[rst_stream(1, 5), go_away(9, 0)]).statuses, [""]);
}

proptest! {
    #[test]
    fn events_are_the_same_wherever_the_streams_are_cut(
        asked in stream(), answered in stream(), cuts in prop::collection::vec(0usize..4096, 0..12)
    ) {
        let whole = session(Protocol::V3, &[&asked], &[&answered]);
        let cut = session(Protocol::V3, &in_pieces(&asked, &cuts), &in_pieces(&answered, &cuts));
        prop_assert_eq!(&cut, &whole);
    }

    #[test]
    fn no_bytes_make_it_panic(
        asked in prop::collection::vec(any::<u8>(), 0..256), answered in prop::collection::vec(any::<u8>(), 0..256),
        cuts in prop::collection::vec(0usize..256, 0..4)
    ) {
        let asked = [End::new().open(&KINDS), asked].concat();
        let whole = session(Protocol::V2, &[&asked], &[&answered]);
        prop_assert_eq!(session(Protocol::V2, &in_pieces(&asked, &cuts), &in_pieces(&answered, &cuts)), whole);
    }
}
