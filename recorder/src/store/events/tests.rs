use std::{fs::OpenOptions, io::Write as _};

use bytes::Bytes;
use podwitness_wire::pack::Unpacker;

use super::*;

const NOW: i64 = 1_700_000_000;
const PARTITION: &str = "date=2023-11-14/hour=22";

fn draft(name: &str) -> Draft {
    let text = format!("{{\"id\":,\"name\":\"{name}\"}}");
    Draft::new(text.into_bytes(), "{\"id\":".len())
}

fn open_log(root: &Path) -> Result<EventLog, StoreError> {
    EventLog::open(root, Quarantine::new(root))
}

/// Every published file: its path below the table and its lines.
fn published(root: &Path) -> Vec<(String, Vec<serde_json::Value>)> {
    let table = root.join(TABLE);
    let mut found = Vec::new();
    let visible = |path: &Path| {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.retain(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
        entries.sort();
        entries
    };
    for file in visible(&table).iter().flat_map(|date| visible(date)).flat_map(|hour| visible(&hour)) {
        let (mut bytes, mut text) = (Bytes::from(fs::read(&file).unwrap()), Vec::new());
        let mut unpacker = Unpacker::new();
        while let Some(lines) = unpacker.unpack(&mut bytes).unwrap() {
            text.extend_from_slice(&lines);
        }
        assert!(unpacker.at_rest());
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let lines = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
        found.push((file.strip_prefix(&table).unwrap().to_str().unwrap().to_owned(), lines));
    }
    found
}

fn open_files(root: &Path) -> Vec<PathBuf> {
    fs::read_dir(root.join(TABLE).join(OPEN)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn events_are_published_under_their_hour_and_know_where_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(dir.path()).unwrap();
    let first = log.append([draft("a"), draft("b")].iter(), NOW).unwrap();
    let second = log.append([draft("c")].iter(), NOW + 1).unwrap();
    assert!(published(dir.path()).is_empty());
    log.publish().unwrap();
    assert!(!log.is_open() && open_files(dir.path()).is_empty());
    let files = published(dir.path());
    let [(path, lines)] = files.as_slice() else { panic!("{files:?}") };
    assert!(path.starts_with(PARTITION), "{path}");
    let ids: Vec<&str> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&first[..], &second[..]].concat());
    assert_eq!(ids[2], format!("{TABLE}/{path}#2"));
    log.publish().unwrap();
    assert_eq!(published(dir.path()).len(), 1);
}

#[test]
fn an_hour_has_files_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(dir.path()).unwrap();
    log.append([draft("a")].iter(), NOW).unwrap();
    log.append([draft("b")].iter(), NOW + 3600).unwrap();
    log.publish().unwrap();
    let files = published(dir.path());
    let places: Vec<&str> = files.iter().map(|(path, _)| path.rsplit_once('/').unwrap().0).collect();
    assert_eq!(places, [PARTITION, "date=2023-11-14/hour=23"]);
}

#[test]
fn what_a_crash_left_is_published_without_what_was_torn() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(dir.path()).unwrap();
    log.append([draft("kept")].iter(), NOW).unwrap();
    let [path] = &open_files(dir.path())[..] else { panic!() };
    // Another process does not touch what this one writes.
    drop(open_log(dir.path()).unwrap());
    assert_eq!(open_files(dir.path()).len(), 1);
    drop(log);
    let whole = fs::read(path).unwrap();
    OpenOptions::new().append(true).open(path).unwrap().write_all(&whole[..whole.len() - 3]).unwrap();
    fs::write(path.with_file_name("notes.txt"), "not ours").unwrap();
    drop(open_log(dir.path()).unwrap());
    let files = published(dir.path());
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].1.iter().map(|line| &line["name"]).collect::<Vec<_>>(), ["kept"]);
    assert_eq!(open_files(dir.path()), [path.with_file_name("notes.txt")]);
}

#[test]
fn a_file_that_holds_nothing_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_log(dir.path()).unwrap());
    let open = dir.path().join(TABLE).join(OPEN);
    fs::write(open.join("2023-11-14.22.01HF7YAT00AAAAAAAAAAAAAAAA.ndjson.zst"), b"torn").unwrap();
    drop(open_log(dir.path()).unwrap());
    assert!(open_files(dir.path()).is_empty() && published(dir.path()).is_empty());
}

#[test]
fn an_event_longer_than_a_frame_is_stored_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(dir.path()).unwrap();
    let long = "x".repeat(700_000);
    log.append([draft(&long), draft("short")].iter(), NOW).unwrap();
    drop(log);
    drop(open_log(dir.path()).unwrap());
    let lines = &published(dir.path())[0].1;
    assert_eq!((lines[0]["name"] == long.as_str(), &lines[1]["name"]), (true, &"short".into()));
}
