use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    channel::Size,
    forward::{Flow, Moved},
    testing::in_pieces,
};

const AT: Duration = Duration::from_micros(1_250_000);

fn encoded(pieces: &[(Stream, &[u8])]) -> String {
    let (mut encoder, mut out) = (Encoder::new(), vec![]);
    for (stream, bytes) in pieces {
        encoder.output(&mut out, AT, *stream, bytes);
    }
    encoder.end(&mut out, AT, "completed");
    String::from_utf8(out).unwrap()
}

fn shown(lines: &str) -> (Vec<u8>, Vec<u8>) {
    let (mut transcript, mut stdout, mut stderr) = (Transcript::new(), vec![], vec![]);
    for line in lines.lines() {
        match transcript.output(Line::parse(line.as_bytes()).unwrap().event) {
            Some((Stream::Stdout, bytes)) => stdout.extend(bytes),
            Some((Stream::Stderr, bytes)) => stderr.extend(bytes),
            None => {}
        }
    }
    (stdout, stderr)
}

/// The sample that the reference client produces, byte for byte.
const GOLDEN: &str = concat!(
    r#"{"version":2,"width":0,"height":0,"timestamp":1700000000,"command":"sh -c a \u0026\u0026 b \u003e c","#,
    r#""srcNode":"a.ts.net","srcNodeID":"nX","srcNodeUserID":7,"srcNodeUser":"u@e","env":null,"sshUser":"","#,
    r#""localUser":"","connectionID":"","kubernetes":{"PodName":"p","Namespace":"n","Container":"c","#,
    r#""SessionType":"exec"}}"#,
    "\n"
);

#[test]
fn a_header_is_written_as_the_reference_writes_it() {
    let header = Header::parse(GOLDEN.as_bytes()).unwrap();
    assert_eq!(header.command, "sh -c a && b > c");
    assert_eq!(String::from_utf8(header.to_plain_line().unwrap()).unwrap(), GOLDEN);
}

#[test]
fn our_part_of_the_header_goes_only_to_those_who_know_us() {
    let ours = Podwitness { session: "s".into(), ..Podwitness::default() };
    let header = Header { version: 2, podwitness: Some(ours), ..Header::default() };
    assert!(!String::from_utf8(header.to_plain_line().unwrap()).unwrap().contains("podwitness"));
    let line = header.to_line(Part { number: 3, offset: 99 }).unwrap();
    let back = Header::parse(&line).unwrap().podwitness.unwrap();
    assert_eq!((back.session.as_str(), back.part, back.offset), ("s", 3, 99));
}

#[test]
fn a_header_with_nulls_and_gaps_is_read() {
    let line = br#"{"version":2,"srcNodeTags":null,"env":{"TERM":"xterm"},"command":null,"future":[1]}"#;
    let header = Header::parse(line).unwrap();
    assert_eq!((header.width, header.command.as_str()), (0, ""));
    assert!(matches!(Header::parse(b"{\"version\":3}"), Err(HeaderError::Version(3))));
    assert!(matches!(Header::parse(b"cast"), Err(HeaderError::Json(_))));
    assert!(matches!(Header::parse(&vec![b' '; MAX_HEADER + 1]), Err(HeaderError::TooLong)));
}

#[test]
fn times_are_plain_decimals_of_seconds() {
    let mut out = vec![];
    for micros in [0, 1, 500_000, 1_000_000, 12_345_678] {
        Encoder::gap(&mut out, Duration::from_micros(micros), 7);
    }
    let times: Vec<&str> =
        std::str::from_utf8(&out).unwrap().lines().map(|l| l.split_once(',').unwrap().0).collect();
    assert_eq!(times, ["[0", "[0.000001", "[0.5", "[1", "[12.345678"]);
}

#[test]
fn text_is_escaped_as_json_wants_it() {
    let text = "plain \"q\" \\ \u{1b}[0m\r\n\t\u{8}\u{c}\u{7f} é€😀 \u{2028}\0 and sixteen more bytes";
    let lines = encoded(&[(Stream::Stdout, text.as_bytes())]);
    assert_eq!(shown(&lines).0, text.as_bytes());
    assert!(lines.starts_with(r#"[1.25,"o","plain \"q\" \\ \u001b[0m\r\n\t\b\f"#), "{lines}");
    assert!(!lines.contains("x-raw"));
}

#[test]
fn the_streams_are_told_apart() {
    let lines = encoded(&[
        (Stream::Stdout, b"a"),
        (Stream::Stderr, b"b"),
        (Stream::Stderr, b"c"),
        (Stream::Stdout, b"d"),
    ]);
    let expected = [
        r#"[1.25,"o","a"]"#,
        r#"[1.25,"x-stream","stderr"]"#,
        r#"[1.25,"o","b"]"#,
        r#"[1.25,"o","c"]"#,
        r#"[1.25,"x-stream","stdout"]"#,
        r#"[1.25,"o","d"]"#,
        r#"[1.25,"x-end","completed"]"#,
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_character_cut_in_two_is_joined() {
    for cut in 1..4 {
        let (a, b) = "😀".as_bytes().split_at(cut);
        let lines = encoded(&[(Stream::Stdout, a), (Stream::Stderr, b"x"), (Stream::Stdout, b)]);
        assert!(lines.contains("😀") && !lines.contains("x-raw"), "{lines}");
    }
}

#[test]
fn what_is_not_utf8_stands_exactly_before_its_lossy_text() {
    let lines = encoded(&[(Stream::Stdout, &[b'a', 0xff, b'b'])]);
    let expected = "[1.25,\"x-raw\",\"Yf9i\"]\n[1.25,\"o\",\"a\u{fffd}b\"]\n[1.25,\"x-end\",\"completed\"]\n";
    assert_eq!(lines, expected);
}

#[test]
fn a_character_that_never_ends_is_written_at_the_end() {
    let lines = encoded(&[(Stream::Stdout, &[b'a', 0xe2, 0x82])]);
    assert_eq!(shown(&lines).0, [b'a', 0xe2, 0x82]);
}

#[test]
fn long_output_becomes_lines_within_the_cap() {
    for byte in [b'x', 0x01, 0xff] {
        let bytes = vec![byte; 3 * MAX_PIECE + 1];
        let lines = encoded(&[(Stream::Stdout, &bytes)]);
        assert!(lines.lines().all(|line| line.len() < MAX_LINE));
        assert_eq!(shown(&lines).0, bytes);
    }
}

#[test]
fn lines_of_ours_are_known_without_parsing_them() {
    let lines = encoded(&[(Stream::Stderr, &[0xff])]);
    let additive: Vec<bool> = lines.lines().map(|line| line::is_additive(line.as_bytes())).collect();
    assert_eq!(additive, [true, true, false, true]);
    assert!(!line::is_additive(br#"[0,"o",",\"x-"]"#));
    assert!(!line::is_additive(b""));
}

#[test]
fn a_sum_is_json_in_a_line() {
    let mut out = vec![];
    let sum = Sum { bytes: 1024, left_out: Some(512), sha256: "ab".into(), ..Sum::of(Stream::Stdout) };
    Encoder::sum(&mut out, AT, &sum);
    let expected =
        r#"[1.25,"x-sum","{\"stream\":\"stdout\",\"bytes\":1024,\"leftOut\":512,\"sha256\":\"ab\"}"]"#;
    assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
}

#[test]
fn every_code_is_read_back() {
    let (mut encoder, mut out) = (Encoder::new(), vec![]);
    encoder.resize(&mut out, AT, Size { cols: 80, rows: 24 });
    encoder.exit(&mut out, AT, "7");
    Encoder::gap(&mut out, AT, 12);
    Encoder::tampered(&mut out, AT, 13);
    let begun = Flow { id: 3, port: Some(80), moved: None };
    let over = Flow { moved: Some(Moved { sent: 5, received: 6 }), ..begun };
    Encoder::flow(&mut out, AT, &begun);
    Encoder::flow(&mut out, AT, &over);
    let sum = Sum { member: Some("a \"b\"\n".into()), size: Some(7), bytes: 7, ..Sum::of(Stream::Stdout) };
    Encoder::sum(&mut out, AT, &sum);
    encoder.end(&mut out, AT, "completed");
    Encoder::close(&mut out, AT, "recorded");
    let events: Vec<Event> =
        out.split_inclusive(|b| *b == b'\n').map(|line| Line::parse(line).unwrap().event).collect();
    let expected = [
        Event::Resize("80x24".into()),
        Event::Exit("7".into()),
        Event::Gap(12),
        Event::Tampered(13),
        Event::Flow(begun),
        Event::Flow(over),
        Event::Sum(sum.into()),
        Event::End("completed".into()),
        Event::Close("recorded".into()),
    ];
    assert_eq!(events, expected);
    assert_eq!(Line::parse(br#"[1, "m", "mark"]"#).unwrap().event, Event::Other("m".into()));
    assert_eq!(
        Line::parse(br#"[1,"x-gap","7 eaten"]"#).unwrap().event,
        Event::Gap(7),
        "a reason yet to come"
    );
    for bad in [
        r#"[1,"x-flow","{}"]"#,
        r#"[1,"x-sum","{}"]"#,
        r#"[1,"x-gap","many"]"#,
        r#"[1,"x-raw","*"]"#,
        r#"[1,"x-stream","in"]"#,
        r#"{"version":2}"#,
    ] {
        assert!(Line::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

/// Pieces of lines, good and bad, which in a row are seldom either.
const SHREDS: [&[u8]; 20] = [
    b"[1,\"o\",\"",
    b"[1,\"o\",",
    b"[1,\"r\",\"",
    b"[\"1\",\"o\",\"",
    b"\"]\n",
    b"\"]",
    b"]",
    b"\"",
    b"a",
    b"\\",
    b"\\n",
    b"\\u0041",
    b"\\ud83d\\ude00",
    b"\\uD83d",
    b"\\ude00",
    b"\\u12",
    b"\xc3\xa9",
    b"\xc3",
    b"\n",
    b"7",
];

proptest! {
    #[test]
    fn what_is_checked_is_what_can_be_read(shreds in prop::collection::vec(prop::sample::select(&SHREDS[..]), 0..6)) {
        let line = shreds.concat();
        let (checked, read) = (Line::check(&line), Line::parse(&line));
        prop_assert_eq!(checked.is_ok(), read.is_ok(), "{:?}", String::from_utf8_lossy(&line));
        if let (Ok(checked), Ok(read)) = (checked, read) {
            prop_assert_eq!(checked.at, read.at);
            match read.event {
                Event::Output(_) => prop_assert!(matches!(checked.event, Event::Output(_))),
                event => prop_assert_eq!(checked.event, event),
            }
        }
    }

    #[test]
    fn the_exact_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..600), cuts in prop::collection::vec(0usize..600, 0..8)) {
        let pieces: Vec<(Stream, &[u8])> = in_pieces(&bytes, &cuts).into_iter().map(|p| (Stream::Stdout, p)).collect();
        prop_assert_eq!(shown(&encoded(&pieces)).0, bytes);
    }

    #[test]
    fn text_stays_text_wherever_it_is_cut(text in "\\PC{0,200}", cuts in prop::collection::vec(0usize..800, 0..8)) {
        let pieces: Vec<(Stream, &[u8])> = in_pieces(text.as_bytes(), &cuts).into_iter().map(|p| (Stream::Stderr, p)).collect();
        let lines = encoded(&pieces);
        prop_assert!(!lines.contains("x-raw"));
        prop_assert_eq!(shown(&lines).1, text.into_bytes());
    }
}
