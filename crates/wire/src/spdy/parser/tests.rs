use proptest::prelude::*;

use super::*;
use crate::{
    spdy::{MAX_BLOCK, MAX_CARRY, MAX_CONTROL, data, go_away, rst_stream},
    testing::{
        hex, in_pieces,
        spdy::{End, block, control, ping, stream},
    },
};

/// What a stream says, independent of where it was cut.
#[derive(Debug, Default, Eq, PartialEq)]
struct Seen {
    heads: Vec<Head>,
    payload: Vec<u8>,
    ended: usize,
    controls: Vec<Control>,
    kinds: Vec<Option<String>>,
    error: Option<SpdyError>,
}

fn see(from: Source, pieces: &[&[u8]]) -> Seen {
    let (mut parser, mut seen) = (Parser::new(from), Seen::default());
    for mut piece in pieces.iter().copied() {
        loop {
            match parser.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(Event::Start(head))) => seen.heads.push(head),
                Ok(Some(Event::Data(data))) => data.read(|bytes| seen.payload.extend_from_slice(bytes)),
                Ok(Some(Event::End)) => seen.ended += 1,
                Ok(Some(Event::Control(control))) => {
                    seen.controls.push(control);
                    let kind =
                        parser.headers().stream_type().map(|kind| String::from_utf8_lossy(kind).into());
                    seen.kinds.push(kind);
                }
                Err(error) => {
                    seen.error = Some(error);
                    break;
                }
            }
        }
    }
    seen
}

fn client(bytes: &[u8]) -> Seen {
    see(Source::Client, &[bytes])
}

/// What `moby/spdystream` writes for the streams of a terminal: zlib at level 9, flushed after each block.
#[test]
fn streams_are_opened_as_client_go_opens_them() {
    let stream = [
        "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff",
        "800300010000001700000003000000000000c22e555c92929907000000ffff",
        "800300010000001900000005000000000000c22ac5565c92925f5a02000000ffff",
        "800300010000001800000007000000000000c22e57945a9c59950a000000ffff",
    ]
    .map(hex)
    .concat();
    let seen = client(&stream);
    assert_eq!(seen.kinds, ["error", "stdin", "stdout", "resize"].map(|kind| Some(kind.to_owned())));
    assert_eq!(seen.controls[3], Control::SynStream { stream: 7, fin: false });
    let skipped = see(Source::Server, &[&stream]);
    assert_eq!((skipped.controls, skipped.kinds), (seen.controls, vec![None; 4]));
}

#[test]
fn every_kind_of_frame_is_told_apart() {
    let mut end = End::new();
    let frames = [
        end.syn_stream(1, &[]),
        end.syn_reply(2),
        rst_stream(3, 5),
        control(4, 1, &[0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 9]),
        ping(5),
        go_away(7, 0),
        end.headers(9, &[]),
        control(9, 0, &[0, 0, 0, 1, 0, 0, 0, 4]),
        control(10, 0, b"?"),
        data(0x7fff_ffff, b"hi", true),
    ];
    let seen = client(&frames.concat());
    assert_eq!(seen.error, None);
    let fin = false;
    let controls = [
        Control::SynStream { stream: 1, fin },
        Control::SynReply { stream: 2, fin },
        Control::RstStream { stream: 3 },
        Control::Other,
        Control::Ping { id: 5 },
        Control::GoAway,
        Control::Headers { stream: 9, fin },
        Control::Other,
        Control::Other,
    ];
    assert_eq!(seen.controls, controls);
    assert_eq!((seen.payload.as_slice(), seen.ended), (&b"hi"[..], 1));
    assert_eq!(seen.heads[9], Head { kind: Kind::Data(0x7fff_ffff), flags: 1, len: 2 });
}

#[test]
fn every_block_of_the_client_feeds_one_context() {
    let mut end = End::new();
    let frames = [
        end.syn_stream(1, &[("streamtype", "error")]),
        end.headers(1, &[("streamtype", "a value that the next block repeats")]),
        end.syn_reply(2),
        end.syn_stream(3, &[("streamtype", "a value that the next block repeats")]),
    ];
    let seen = client(&frames.concat());
    assert_eq!(seen.kinds[3].as_deref(), Some("a value that the next block repeats"));
    assert_eq!(client(&frames[3]).error, Some(SpdyError::Inflate));
}

#[test]
fn headers_last_until_the_next_frame_begins() {
    let stream = [End::new().syn_stream(1, &[("streamtype", "stdin")]), ping(1)].concat();
    assert_eq!(client(&stream).kinds, [Some("stdin".to_owned()), None]);
}

/// The error that follows `bytes` for good.
fn failed(from: Source, bytes: &[u8]) -> SpdyError {
    let mut parser = Parser::new(from);
    let mut input = bytes;
    while let Ok(Some(_)) = parser.next(&mut input) {}
    parser.next(&mut &ping(1)[..]).unwrap_err()
}

#[test]
fn what_a_server_may_not_say_is_refused_for_good() {
    let long = [0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff];
    for (bytes, error) in [
        (&[0x80, 2, 0, 1, 0, 0, 0, 10][..], SpdyError::Version(2)),
        (&[0, 0, 0, 0, 0, 0, 0, 0], SpdyError::Stream),
        (&long, SpdyError::Control(0xff_ffff)),
        (&control(6, 0, &[0; 8]), SpdyError::Length { kind: 6, len: 8 }),
        (&control(3, 0, &[0; 4]), SpdyError::Length { kind: 3, len: 4 }),
        (&control(7, 0, &[0; 4]), SpdyError::Length { kind: 7, len: 4 }),
        (&control(1, 0, &[0; 9]), SpdyError::Length { kind: 1, len: 9 }),
        (&control(4, 0, &[0; 9]), SpdyError::Length { kind: 4, len: 9 }),
        (&control(4, 0, &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]), SpdyError::Length { kind: 4, len: 12 }),
    ] {
        assert_eq!(failed(Source::Server, bytes), error, "{bytes:x?}");
    }
}

#[test]
fn where_a_client_s_headers_cannot_be_read_it_is_refused_for_good() {
    for (bytes, error) in [
        (&control(7, 0, &[0; 4])[..], SpdyError::Length { kind: 7, len: 4 }),
        (&control(9, 0, &[0; 12]), SpdyError::Length { kind: 9, len: 12 }),
        (&control(1, 0, &[0; 9]), SpdyError::Length { kind: 1, len: 9 }),
        (&control(8, 0, &[0; 3]), SpdyError::Length { kind: 8, len: 3 }),
        (&control(1, 0, &[1; 10]), SpdyError::Inflate),
        (&control(1, 0, &[1; 40]), SpdyError::Inflate),
    ] {
        assert_eq!(failed(Source::Client, bytes), error, "{bytes:x?}");
    }
}

/// A SYN_STREAM of this id, with these compressed bytes.
fn syn_stream(id: u32, block: &[u8]) -> Vec<u8> {
    control(1, 0, &[&id.to_be_bytes()[..], &[0; 6], block].concat())
}

fn kinds(seen: &Seen) -> Vec<&str> {
    seen.kinds.iter().flatten().map(String::as_str).collect()
}

/// As `moby/spdystream` does: else a stream would be of another kind to the server than to us.
#[test]
fn what_a_frame_has_behind_its_headers_begins_the_next_block() {
    let blocks = ["stdin", "stdout", "stderr"].map(|kind| block(&[("streamtype", kind)]));
    let whole = End::new().deflate(&blocks.concat());
    for cut in 0..whole.len() {
        let (first, second) = whole.split_at(cut);
        let seen = client(&[syn_stream(1, first), syn_stream(3, second), syn_stream(5, &[])].concat());
        if seen.error.is_none() {
            assert_eq!(kinds(&seen), ["stdin", "stdout", "stderr"], "{cut}");
        }
    }
    let at_once = [syn_stream(1, &whole), syn_stream(3, &[]), syn_stream(5, &[])].concat();
    assert_eq!((kinds(&client(&at_once)).len(), client(&at_once).error), (3, None));
    let (first, rest) = whole.split_at(whole.len() - 4);
    let late = [syn_stream(1, first), syn_stream(3, rest), syn_stream(5, &[])].concat();
    assert_eq!((kinds(&client(&late)).len(), client(&late).error), (3, None));
}

/// What is broken behind the headers of a block is so for the next.
#[test]
fn what_cannot_be_inflated_counts_once_it_is_needed() {
    let mut end = End::new();
    let stream = |end: &mut End| end.deflate(&block(&[("streamtype", "stdout")]));
    let broken = [stream(&mut end).as_slice(), &[0xff; 9]].concat();
    let seen =
        client(&[syn_stream(1, &broken), data(1, b"x", false), syn_stream(3, &stream(&mut end))].concat());
    assert_eq!((kinds(&seen), seen.error), (vec!["stdout"], Some(SpdyError::Inflate)));
    assert_eq!(seen.payload, b"x");
}

#[test]
fn a_zlib_stream_that_ends_serves_the_block_it_ends_with() {
    let mut context = flate2::Compress::new(flate2::Compression::best(), true);
    context.set_dictionary(crate::spdy::DICTIONARY).unwrap();
    let mut last = Vec::with_capacity(1024);
    context
        .compress_vec(&block(&[("streamtype", "stdout")]), &mut last, flate2::FlushCompress::Finish)
        .unwrap();
    let seen = client(&[syn_stream(1, &last), syn_stream(3, &[])].concat());
    assert_eq!((kinds(&seen), seen.error), (vec!["stdout"], Some(SpdyError::Inflate)));
}

#[test]
fn a_block_is_inflated_and_its_rest_kept_up_to_a_cap() {
    let value = |len: usize| "x".repeat(len);
    let fits = End::new().syn_stream(1, &[("a", &value(MAX_BLOCK - 13))]);
    assert_eq!(client(&fits).error, None);
    assert!(fits.len() < 16 << 10);
    let bomb = End::new().syn_stream(1, &[("a", &value(MAX_BLOCK - 12))]);
    assert_eq!(client(&bomb).error, Some(SpdyError::Block));
    let names: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(client(&End::new().syn_stream(1, &many)).error, None);
    let carried = |len| {
        let block = [End::new().deflate(&block(&[])), vec![0; len]].concat();
        client(&[syn_stream(1, &block[..]), ping(1)].concat()).error
    };
    assert_eq!((carried(MAX_CARRY), carried(MAX_CARRY + 4096)), (None, Some(SpdyError::Carry)));
}

/// A client's control frame may be longer than what is held.
#[test]
fn a_long_control_frame_of_a_client_is_read_in_pieces() {
    let long = control(77, 0, &vec![0; 200_000]);
    let seen = client(&[long, End::new().syn_stream(1, &[("streamtype", "stdin")])].concat());
    assert_eq!((kinds(&seen), seen.error), (vec!["stdin"], None));
}

#[test]
fn the_longest_control_frame_of_a_server_is_still_read() {
    let seen = see(Source::Server, &[&control(11, 0, &vec![0; MAX_CONTROL as usize])]);
    assert_eq!((seen.controls.as_slice(), seen.error), (&[Control::Other][..], None));
}

#[test]
fn nothing_is_made_for_what_was_only_announced() {
    let mut parser = Parser::new(Source::Client);
    let syn_stream = [&[0x80, 3, 0, 1, 0, 0, 0xff, 0xf8][..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    let mut input = syn_stream.as_slice();
    while let Ok(Some(_)) = parser.next(&mut input) {}
    let Blocks::Inflated(Some(context)) = &parser.blocks else { panic!("no context was made") };
    assert_eq!(context.held(), 0);
}

proptest! {
    #[test]
    fn frames_are_the_same_wherever_the_stream_is_cut(
        stream in stream(), cuts in prop::collection::vec(0usize..4096, 0..12)
    ) {
        let whole = client(&stream);
        prop_assert_eq!(whole.error, None);
        prop_assert_eq!(see(Source::Client, &in_pieces(&stream, &cuts)), whole);
        prop_assert_eq!(see(Source::Server, &in_pieces(&stream, &cuts)), see(Source::Server, &[&stream]));
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..512), cuts in prop::collection::vec(0usize..512, 0..6)
    ) {
        // Most random bytes begin data; half of the runs begin with a control frame.
        for bytes in [bytes.clone(), [&[0x80, 3, 0][..], &bytes].concat()] {
            prop_assert_eq!(see(Source::Client, &in_pieces(&bytes, &cuts)), client(&bytes));
        }
    }
}
