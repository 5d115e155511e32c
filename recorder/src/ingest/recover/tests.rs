use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::*;
use crate::store::{layout::PartName, meta::testing, quarantine::QUARANTINE};

const HEADER: &str = "{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1700000000}\n";
const LINES: [&str; 5] = [
    "[0.5,\"o\",\"a\\n\"]\n",
    "[1,\"x-gap\",\"7\"]\n",
    "[2.25,\"x-exit\",\"3\"]\n",
    "[2.5,\"x-end\",\"completed\"]\n",
    "[3,\"o\",\"last\"]\n",
];

/// A store in which an upload was cut off, and the file of it. The process that wrote it is gone.
fn meta() -> Meta {
    testing::meta(1_700_000_000_000, HEADER.len())
}

fn left(dir: &Path, session: &str, content: &[u8]) -> PathBuf {
    left_in(&Store::open(dir, 0).unwrap(), session, content)
}

fn left_in(store: &Store, session: &str, content: &[u8]) -> PathBuf {
    let mut part = store.create(&PartName::new(session, 0).unwrap(), meta(), 1_700_000_000).unwrap();
    part.append(&[content]).unwrap();
    part.path().to_owned()
}

fn again(dir: &Path) -> (Store, Recovered) {
    let store = Store::open(dir, 0).unwrap();
    let recovered = recover(&store).unwrap();
    (store, recovered)
}

fn end_of(cast: &Path) -> End {
    read_meta(&cast.with_extension("json")).unwrap().end.unwrap()
}

fn whole() -> Vec<u8> {
    [HEADER.to_owned(), LINES.concat()].concat().into_bytes()
}

/// Ends of lines: what an acknowledgement can name.
fn boundaries(content: &[u8]) -> Vec<usize> {
    let ends = content.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    [0].into_iter().chain(ends).collect()
}

/// Every byte at which a crash can cut a file: every line that was whole counts, and no byte is changed.
#[test]
fn a_file_cut_at_any_byte_keeps_every_whole_line() {
    let (content, dir) = (whole(), tempfile::tempdir().unwrap());
    let store = Store::open(dir.path(), 0).unwrap();
    let cuts = 0..=content.len();
    let casts: Vec<_> = cuts.map(|cut| (cut, left_in(&store, &format!("s{cut}"), &content[..cut]))).collect();
    drop(store);
    let (store, recovered) = again(dir.path());
    assert_eq!(recovered, Recovered { completed: casts.len() as u64, failed: 0 });
    for (cut, cast) in casts {
        let end = end_of(&cast);
        let safe = boundaries(&content).into_iter().filter(|end| *end <= cut).max().unwrap();
        // A last line without its newline may be whole.
        assert!(end.bytes == safe as u64 || end.bytes == cut as u64, "{cut}: {} of {safe}", end.bytes);
        assert_eq!((end.outcome, end.bytes + end.torn, end.damaged), (Outcome::Interrupted, cut as u64, 0));
        assert_eq!(fs::read(&cast).unwrap(), &content[..cut]);
    }
    assert_eq!(store.quarantine().count(), 0);
    // The next process finds nothing to do.
    assert_eq!(again(dir.path()).1, Recovered::default());
}

/// The same with a tail of zeros or of anything else, as a loss of power leaves it.
#[test]
fn whatever_stands_behind_the_last_whole_line_is_marked() {
    let content = whole();
    for tail in [&b"\0\0\0\0"[..], b"\0\n\0\n", b"[9,\"o\"\n", b"\xff\xfe\n{}\n[", &[b'x'; 100]] {
        let dir = tempfile::tempdir().unwrap();
        let cast = left(dir.path(), "s", &[&content[..], tail].concat());
        again(dir.path());
        let end = end_of(&cast);
        assert_eq!((end.bytes, end.torn), (content.len() as u64, tail.len() as u64), "{tail:?}");
    }
}

#[test]
fn what_the_lines_say_is_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let cast = left(dir.path(), "s", &whole());
    again(dir.path());
    let end = end_of(&cast);
    assert_eq!((end.duration, end.exit.as_deref(), end.gap), (3.0, Some("3"), 7));
    assert_eq!((end.session_end.as_deref(), end.session_outcome), (Some("completed"), None));
    assert!(end.at > 0);
}

/// One bit in each byte: whatever is damaged, recovery ends, no byte is lost, and the sound lines count.
#[test]
fn no_flipped_bit_takes_a_sound_line_away() {
    let (content, dir) = (whole(), tempfile::tempdir().unwrap());
    let store = Store::open(dir.path(), 0).unwrap();
    let flip = |bit: usize| {
        let mut damaged = content.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        damaged
    };
    // Each byte at another bit: each file costs some synchronisations.
    let bits = (0..content.len() * 8).step_by(5);
    let casts: Vec<_> = bits.map(|bit| (bit, left_in(&store, &format!("s{bit}"), &flip(bit)))).collect();
    drop(store);
    let (store, recovered) = again(dir.path());
    assert_eq!((recovered.completed, store.quarantine().count()), (casts.len() as u64, 0));
    let ends = boundaries(&content);
    for (bit, cast) in casts {
        assert_eq!(fs::read(&cast).unwrap(), flip(bit));
        let end = end_of(&cast);
        let hit = ends.iter().rposition(|end| *end <= bit / 8).unwrap();
        // A newline that is none any more takes the next line along.
        if hit + 3 < ends.len() {
            assert_eq!(end.bytes, content.len() as u64, "{bit}");
        } else {
            assert!(end.bytes >= ends[hit] as u64, "{bit}");
        }
    }
}

/// Metadata is damaged at any byte: either it still reads, or both files lie in the quarantine, whole.
#[test]
fn damaged_metadata_is_quarantined_and_hurts_nobody() {
    let (content, dir) = (whole(), tempfile::tempdir().unwrap());
    let store = Store::open(dir.path(), 0).unwrap();
    let other = left_in(&store, "other", &content);
    let text = fs::read(other.with_extension("json")).unwrap();
    let flip = |bit: usize| {
        let mut damaged = text.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        damaged
    };
    let left = |bit: usize| {
        let cast = left_in(&store, &format!("s{bit}"), &content);
        fs::write(cast.with_extension("json"), flip(bit)).unwrap();
        (bit, cast)
    };
    let casts: Vec<_> = (0..text.len() * 8).step_by(9).map(left).collect();
    drop(store);
    let (store, recovered) = again(dir.path());
    let mut quarantined = 0;
    for (bit, cast) in &casts {
        let aside = dir.path().join(QUARANTINE).join(cast.strip_prefix(dir.path()).unwrap());
        if cast.exists() {
            assert_eq!(fs::read(cast).unwrap(), content, "{bit}");
            assert_eq!(end_of(cast).bytes, content.len() as u64, "{bit}");
        } else {
            quarantined += 1;
            assert_eq!(fs::read(&aside).unwrap(), content, "{bit}");
            assert_eq!(fs::read(aside.with_extension("json")).unwrap(), flip(*bit), "{bit}");
        }
    }
    assert_eq!(store.quarantine().count(), 2 * quarantined);
    assert_eq!(recovered, Recovered { completed: casts.len() as u64 + 1 - quarantined, failed: 0 });
    assert!(quarantined > 0 && recovered.completed > 1);
    assert_eq!(end_of(&other).bytes, content.len() as u64);
}

#[test]
fn a_part_that_nobody_was_told_of_is_removed_and_a_nameless_one_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let empty = left(dir.path(), "empty", b"");
    let full = left(dir.path(), "full", &whole());
    for cast in [&empty, &full] {
        fs::remove_file(cast.with_extension("json")).unwrap();
    }
    let (store, _) = again(dir.path());
    assert_eq!(store.quarantine().count(), 1);
    assert!(!empty.exists() && !full.exists());
    // The name is free again.
    assert_eq!(left(dir.path(), "empty", b""), empty);
}

#[test]
fn a_directory_in_the_place_of_metadata_is_moved_aside_with_its_part() {
    let dir = tempfile::tempdir().unwrap();
    let cast = left(dir.path(), "s", &whole());
    let meta = cast.with_extension("json");
    fs::remove_file(&meta).unwrap();
    fs::create_dir(&meta).unwrap();
    let (store, _) = again(dir.path());
    assert_eq!((store.quarantine().count(), cast.exists(), meta.exists()), (2, false, false));
}

#[test]
fn what_is_written_now_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 0).unwrap();
    let mut part = store.create(&PartName::new("s", 0).unwrap(), meta(), 1_700_000_000).unwrap();
    part.append(&[HEADER.as_bytes()]).unwrap();
    assert_eq!(recover(&store).unwrap(), Recovered::default());
    // Nor does another process touch it.
    assert_eq!(again(dir.path()).1, Recovered::default());
    part.append(&[LINES[0].as_bytes()]).unwrap();
    drop(part);
    assert_eq!(recover(&store).unwrap().completed, 1);
}

proptest! {
    #[test]
    fn no_content_panics_or_is_changed(content in prop::collection::vec(any::<u8>(), 0..2000)) {
        let dir = tempfile::tempdir().unwrap();
        let cast = left(dir.path(), "s", &content);
        again(dir.path());
        prop_assert_eq!(fs::read(&cast).unwrap(), content.clone());
        let end = end_of(&cast);
        prop_assert_eq!(end.bytes + end.torn, content.len() as u64);
    }

    /// Lines are written one commit at a time; a crash is at any byte, and what follows it is anything.
    #[test]
    fn every_acknowledged_byte_counts(
        lines in prop::collection::vec("[a-z]{0,40}", 1..30),
        cut in any::<prop::sample::Index>(),
        garbage in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let text: String = lines.iter().enumerate().map(|(at, text)| format!("[{at},\"o\",\"{text}\"]\n")).collect();
        let content = [HEADER.as_bytes(), text.as_bytes()].concat();
        let cut = cut.index(content.len() + 1);
        let dir = tempfile::tempdir().unwrap();
        let cast = left(dir.path(), "s", &[&content[..cut], &garbage[..]].concat());
        again(dir.path());
        let safe = boundaries(&content).into_iter().filter(|end| *end <= cut).max().unwrap_or(0);
        prop_assert!(end_of(&cast).bytes >= safe as u64);
    }
}
