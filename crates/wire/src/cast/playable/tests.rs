use proptest::prelude::*;

use super::*;

const OURS: &str =
    r#"{"version":2,"width":0,"height":0,"timestamp":1,"podwitness":{"session":"s","tty":false}}"#;
const TERMINAL: &str =
    r#"{"version":2,"width":80,"height":24,"timestamp":1,"podwitness":{"session":"s","tty":true}}"#;

fn played(stored: &str) -> String {
    let (mut filter, mut out) = (Playable::new(), vec![]);
    filter.push(stored.as_bytes(), &mut out);
    filter.finish(&mut out);
    String::from_utf8(out).unwrap()
}

/// Event lines that play, of a recording with this header.
fn events(header: &str, lines: &str) -> Vec<String> {
    played(&format!("{header}\n{lines}")).lines().skip(1).map(str::to_owned).collect()
}

fn first_line(header: &str) -> Value {
    serde_json::from_str(played(&format!("{header}\n")).lines().next().unwrap()).unwrap()
}

#[test]
fn a_recording_of_a_terminal_is_as_it_was_stored() {
    let stored =
        format!("{TERMINAL}\n[0.5,\"o\",\"a\\nb \\ud83d\\ude00\"]\n[1,\"r\",\"100x40\"]\n[2,\"m\",\"\"]\n");
    assert_eq!(played(&stored), stored);
}

#[test]
fn without_a_terminal_each_line_feed_has_a_carriage_return() {
    for (stored, shown) in [
        (r#"[1,"o","a\nb\n"]"#, r#"[1,"o","a\r\nb\r\n"]"#),
        (r#"[1,"o","a\r\nb\u000a"]"#, r#"[1,"o","a\r\nb\r\n"]"#),
        (r#"[1,"o","\n\n"]"#, r#"[1,"o","\r\n\r\n"]"#),
        (r#"[1,"o","plain"]"#, r#"[1,"o","plain"]"#),
        (r#"[1,"o","back\\n"]"#, r#"[1,"o","back\\n"]"#),
    ] {
        assert_eq!(events(OURS, stored), [shown], "{stored}");
    }
    let cut = "[1,\"o\",\"a\\r\"]\n[2,\"o\",\"\"]\n[3,\"o\",\"\\nb\"]\n[4,\"o\",\"c\"]\n[5,\"o\",\"\\n\"]";
    let expected =
        [r#"[1,"o","a\r"]"#, r#"[2,"o",""]"#, r#"[3,"o","\nb"]"#, r#"[4,"o","c"]"#, r#"[5,"o","\r\n"]"#];
    assert_eq!(events(OURS, cut), expected, "a return and its feed in two lines");
}

#[test]
fn codes_that_players_misread_are_left_out() {
    for code in ["x-exit", "x-stream", "x-raw", "x-close", "x", "ox", "", "\\u006f", "size"] {
        assert!(events(TERMINAL, &format!("[1,\"{code}\",\"1\"]")).is_empty(), "{code}");
    }
    for code in ["o", "i", "m"] {
        assert_eq!(events(TERMINAL, &format!("[1,\"{code}\",\"1\"]")).len(), 1, "{code}");
    }
}

#[test]
fn what_is_no_event_line_is_left_out() {
    for line in [
        "",
        "{}",
        "[]",
        "[1,\"o\"]",
        "[1,\"o\",1]",
        "[1,\"o\",\"\\ud800\"]",
        "[\"1\",\"o\",\"a\"]",
        "[1,\"o\",\"a",
    ] {
        assert!(events(TERMINAL, line).is_empty(), "{line}");
        assert!(events(OURS, line).is_empty(), "{line}");
    }
}

#[test]
fn a_size_that_the_terminal_never_had_is_left_out_and_a_huge_one_is_capped() {
    for (stored, shown) in [
        ("0x0", None),
        ("0x24", None),
        ("80x0", None),
        ("abc", None),
        ("80", None),
        ("-1x5", None),
        ("99999999999999999999x5", None),
        ("100x40", Some("100x40")),
        ("1000x1001", Some("1000x1000")),
        ("65535x65535", Some("1000x1000")),
    ] {
        let lines = events(TERMINAL, &format!("[1,\"r\",\"{stored}\"]"));
        let expected: Vec<String> = shown.iter().map(|size| format!("[1,\"r\",\"{size}\"]")).collect();
        assert_eq!(lines, expected, "{stored}");
    }
}

#[test]
fn sizes_of_the_reference_client_are_turned_to_columns_and_rows() {
    let reference = r#"{"version":2,"width":10,"height":20,"kubernetes":{"PodName":"p"}}"#;
    assert_eq!(events(reference, r#"[0,"r","20x10"]"#), [r#"[0,"r","10x20"]"#]);
}

#[test]
fn a_header_has_a_size_that_plays() {
    for (width, height, expected) in [
        ("0", "0", (80, 24)),
        ("0", "50", (80, 24)),
        ("100", "0", (80, 24)),
        ("null", "null", (80, 24)),
        ("-4", "7", (80, 24)),
        ("132", "50", (132, 50)),
        ("65535", "20000", (1000, 1000)),
    ] {
        let header =
            first_line(&format!(r#"{{"version":2,"width":{width},"height":{height},"command":"id"}}"#));
        let shown = (header["width"].as_u64().unwrap(), header["height"].as_u64().unwrap());
        assert_eq!((shown, &header["command"]), (expected, &Value::from("id")), "{width}x{height}");
    }
}

#[test]
fn a_header_that_players_refuse_is_mended() {
    for header in ["", "{", "[1,\"o\",\"a\"]", "{}", r#"{"version":2,"width":1,"height":1,"timestamp":-5}"#] {
        let shown = first_line(header);
        assert_eq!((&shown["version"], shown.get("timestamp")), (&Value::from(2), None), "{header}");
        assert!(shown["width"].as_u64().unwrap() > 0, "{header}");
    }
}

#[test]
fn times_are_plain_decimals_that_never_decrease() {
    let lines = ["1e-7", "0.25", "-3", "0.1", "1e300", "2000000000", "1.5"]
        .map(|at| format!("[{at},\"o\",\"x\"]\n"))
        .concat();
    let times: Vec<String> = events(TERMINAL, &lines)
        .iter()
        .map(|line| line.trim_start_matches('[').split(',').next().unwrap().to_owned())
        .collect();
    assert_eq!(times, ["0.000000", "0.25", "0.250000", "0.250000", "0.250000", "0.250000", "1.5"]);
}

#[test]
fn a_line_without_end_is_not_held() {
    let (mut filter, mut out) = (Playable::new(), vec![]);
    filter.push(format!("{TERMINAL}\n").as_bytes(), &mut out);
    out.clear();
    for _ in 0..100 {
        filter.push(&[b'x'; 64 << 10], &mut out);
        assert!(filter.line.capacity() <= 2 * MAX_LINE && out.is_empty());
    }
    filter.push(b"\n[1,\"o\",\"after\"]\n", &mut out);
    assert_eq!(out, b"[1,\"o\",\"after\"]\n");
}

const SHREDS: [&str; 16] = [
    TERMINAL,
    OURS,
    "{}",
    "\n",
    "[1,\"o\",\"",
    "[2,\"r\",\"",
    "[0.5,\"x-exit\",\"",
    "\"]\n",
    "0x0",
    "70000x5",
    "\\n",
    "\\r",
    "é",
    "\\ud83d",
    "\"",
    "[3,\"o\",\"a\\nb\"]\n",
];

proptest! {
    #[test]
    fn the_pieces_that_bytes_come_in_change_nothing(
        shreds in prop::collection::vec(prop::sample::select(&SHREDS[..]), 0..20),
        cuts in prop::collection::vec(1usize..40, 0..60),
        ours in any::<bool>(),
    ) {
        let stored = format!("{}\n{}", if ours { OURS } else { TERMINAL }, shreds.concat());
        let (mut filter, mut out) = (Playable::new(), vec![]);
        let mut rest = stored.as_bytes();
        for cut in cuts {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            filter.push(piece, &mut out);
            prop_assert!(out.is_empty() || out.ends_with(b"\n"));
            rest = behind;
        }
        filter.push(rest, &mut out);
        filter.finish(&mut out);
        let whole = played(&stored);
        prop_assert_eq!(&whole, &String::from_utf8(out).unwrap());
        // Whatever was stored plays, and what plays is not changed again where there is a terminal.
        for line in whole.lines().skip(1) {
            let (at, code, _): (f64, String, String) = serde_json::from_str(line).unwrap();
            prop_assert!(at >= 0.0 && matches!(code.as_str(), "o" | "i" | "r" | "m"));
        }
        prop_assert_eq!(played(&whole), whole);
    }

    #[test]
    fn a_recording_cut_off_anywhere_plays_as_far_as_its_whole_lines(at in 0usize..200) {
        let stored = format!("{OURS}\n[1,\"o\",\"a\\n\"]\n[2,\"x-exit\",\"0\"]\n[3,\"o\",\"b\\n\"]\n");
        let (cut, whole) = (played(stored.get(..at).unwrap_or(&stored)), played(&stored));
        let lines: Vec<&str> = cut.lines().skip(1).collect();
        let all: Vec<&str> = whole.lines().skip(1).collect();
        prop_assert!(all.starts_with(&lines));
    }
}
