mod sealed;

use std::path::Path;

use podwitness_core::{failure::Policy, outcome::Outcome};
use podwitness_wire::cast::Header;
use tokio::time::Instant;

use super::{
    spooler::{Step, next_move, step},
    *,
};
use crate::journal::{Budget, Budgets, Next};

/// More than a journal keeps in memory, in lines that say where they stand.
fn fill(journal: &Journal) -> Vec<u8> {
    let lines: Vec<u8> =
        (0..240_000).flat_map(|n| format!("[{n},\"o\",\"some text\"]\n").into_bytes()).collect();
    for some in lines.chunks(30_000) {
        journal.append(Duration::ZERO, some, 1);
    }
    lines
}

#[tokio::test]
async fn an_acknowledgement_while_lines_are_written_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = Budgets {
        memory: Budget::new(64 << 20),
        disk: Budget::new(64 << 20),
        dir: Some(Arc::new(dir.path().into())),
        ..Budgets::none()
    };
    let journal = Journal::new(Policy::Open, &budgets);
    journal.begin(Header::default());
    let lines = fill(&journal);
    let mut spooler = Spooler::of(journal.clone(), dir.path(), waybill(), &budgets);
    let Step::Move(first) = step(&journal) else { panic!() };
    let place = first.lines.len() as u64;
    spooler.write(first).await.unwrap();
    let Step::Move(second) = step(&journal) else { panic!() };
    assert!(second.file.is_some(), "both lie in one file");
    journal.ack(place + 10);
    spooler.write(second).await.unwrap();
    let Ok(Next::Lines(read)) = journal.next(place + 10).await else { panic!() };
    let from = usize::try_from(place).unwrap() + 10;
    assert!(lines[from..].starts_with(&read), "{:?}", &read[..40]);
    journal.discard();
    spooler.tidy().await;
    assert_eq!((budgets.memory.used(), budgets.disk.used()), (0, 0));
}

/// Under the lock the relay of the session would wait for the disk.
#[tokio::test]
async fn an_acknowledgement_leaves_the_removal_of_files_to_the_spooler() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = budgets(dir.path());
    let journal = Journal::new(Policy::Open, &budgets);
    journal.begin(Header::default());
    fill(&journal);
    let mut spooler = Spooler::of(journal.clone(), dir.path(), waybill(), &budgets);
    let Step::Move(first) = step(&journal) else { panic!() };
    let place = first.lines.len() as u64;
    spooler.write(first).await.unwrap();
    let files = || std::fs::read_dir(dir.path().join("01JSESSION")).unwrap().count();
    let (before, used) = (files(), budgets.disk.used());
    journal.ack(place);
    assert_eq!((files(), budgets.disk.used()), (before, used), "it counts until it is gone");
    let Step::Remove(released) = step(&journal) else { panic!("the spooler is not told") };
    assert_eq!(released.len(), 1);
    spooler.remove(released).await;
    assert!(files() < before);
    assert_eq!(budgets.disk.used(), 0);
}

/// A journal with a spool and little memory, into which lines went for as long as the session did not wait.
fn flooded(dir: &Path, disk: u64) -> (Journal, Budgets, u64) {
    let budgets = Budgets { memory: Budget::new(6 << 20), disk: Budget::new(disk), ..budgets(dir) };
    let journal = Journal::new(Policy::Open, &budgets);
    journal.begin(Header::default());
    let mut appended = 0;
    while !journal.holds_back() && journal.lost() == 0 {
        journal.append(Duration::ZERO, &[b'x'; 64 << 10], 64 << 10);
        appended += 64 << 10;
    }
    (journal, budgets, appended)
}

#[tokio::test]
async fn a_session_that_is_faster_than_the_disk_waits_for_it_and_nothing_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, budgets, mut appended) = flooded(dir.path(), 64 << 20);
    assert_eq!(journal.lost(), 0);
    let spooler = tokio::spawn(Spooler::of(journal.clone(), dir.path(), waybill(), &budgets).run());
    while appended < 30 << 20 {
        journal.room().await.unwrap();
        journal.append(Duration::ZERO, &[b'x'; 64 << 10], 64 << 10);
        appended += 64 << 10;
    }
    assert_eq!(journal.lost(), 0);
    journal.end();
    journal.ack(appended);
    spooler.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_does_not_wait_long_for_a_disk_that_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = flooded(dir.path(), 64 << 20);
    let begun = Instant::now();
    journal.room().await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(4) && begun.elapsed() < Duration::from_secs(6));
    // Once is enough.
    journal.append(Duration::ZERO, &[b'x'; 64 << 10], 64 << 10);
    assert!(!journal.holds_back());
}

#[tokio::test]
async fn a_session_does_not_wait_for_a_disk_that_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = flooded(dir.path(), 0);
    assert!(journal.holds_back(), "it is not known yet");
    assert!(matches!(step(&journal), Step::Wait(None)));
    assert!(!journal.holds_back());
}

#[tokio::test]
async fn a_session_does_not_wait_for_a_disk_that_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, budgets, _) = flooded(dir.path(), 64 << 20);
    let nowhere = dir.path().join("file");
    std::fs::write(&nowhere, "").unwrap();
    let spooler = tokio::spawn(Spooler::of(journal.clone(), &nowhere, waybill(), &budgets).run());
    journal.room().await.unwrap();
    assert!(!journal.holds_back());
    journal.discard();
    spooler.await.unwrap();
}

fn waybill() -> Waybill {
    Waybill { session: "01JSESSION".into(), ..Waybill::default() }
}

fn budgets(dir: &Path) -> Budgets {
    Budgets {
        memory: Budget::new(64 << 20),
        disk: Budget::new(64 << 20),
        dir: Some(Arc::new(dir.into())),
        ..Budgets::none()
    }
}

async fn all(journal: &Journal, mut from: u64) -> Vec<u8> {
    let mut all = vec![];
    while let Next::Lines(lines) = journal.next(from).await.unwrap() {
        from += lines.len() as u64;
        all.extend_from_slice(&lines);
    }
    all
}

/// What a process that was killed had spooled, as a copy of its folder.
async fn killed(dir: &Path, acked: u64) -> (tempfile::TempDir, Vec<u8>) {
    let journal = Journal::new(Policy::Open, &budgets(dir));
    journal.begin(Header { command: "sh".into(), ..Header::default() });
    let lines: Vec<Vec<u8>> = (0..600)
        .map(|n| (0..1000).flat_map(|m| format!("[{n}.{m:03},\"o\",\"more text\"]\n").into_bytes()).collect())
        .collect();
    for some in &lines {
        journal.append(Duration::ZERO, some, 1);
    }
    let mut spooler = Spooler::of(journal.clone(), dir, waybill(), &budgets(dir));
    while let Step::Move(lines) = step(&journal) {
        spooler.write(lines).await.unwrap();
    }
    journal.ack(acked);
    spooler.tidy().await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("01JSESSION")).unwrap();
    for entry in std::fs::read_dir(dir.join("01JSESSION")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join("01JSESSION").join(path.file_name().unwrap())).unwrap();
    }
    let end = usize::try_from(journal.state().window.start()).unwrap();
    (copy, lines.concat()[..end].to_vec())
}

#[tokio::test]
async fn the_next_process_ships_what_the_last_one_had_spooled() {
    let dir = tempfile::tempdir().unwrap();
    let (copy, lines) = killed(dir.path(), 9 << 20).await;
    let budgets = budgets(copy.path());
    let [left] = left_behind(&budgets, 10).try_into().ok().unwrap();
    assert_eq!((&*left.waybill.session, left.waybill.process), ("01JSESSION", 1));
    assert_eq!(left.journal.begun().await.unwrap().command, "sh");
    let from = left.journal.acked();
    assert!(from > 0 && from <= 9 << 20, "files that were acknowledged are gone: {from}");
    let text = all(&left.journal, from).await;
    let kept = &lines[usize::try_from(from).unwrap()..];
    assert!(text.starts_with(kept));
    let close = String::from_utf8(text[kept.len()..].to_vec()).unwrap();
    let words: Vec<&str> = close.lines().map(|line| line.split_once(',').unwrap().1).collect();
    assert_eq!(words, [r#""x-end","interrupted"]"#, r#""x-close","cut"]"#]);
    left.journal.ack(from + text.len() as u64);
    left.spooler.run().await;
    assert_eq!((budgets.memory.used(), budgets.disk.used()), (0, 0));
    assert_eq!(std::fs::read_dir(copy.path()).unwrap().count(), 0, "its folder is gone");
}

#[tokio::test]
async fn a_line_that_was_cut_by_the_end_of_a_process_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (copy, _) = killed(dir.path(), 0).await;
    let mut files: Vec<_> =
        std::fs::read_dir(copy.path().join("01JSESSION")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "lines"));
    files.sort();
    let last = files.last().unwrap();
    let len = std::fs::metadata(last).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(last).unwrap().set_len(len - 5).unwrap();
    let [left] = left_behind(&budgets(copy.path()), 10).try_into().ok().unwrap();
    let text = String::from_utf8(all(&left.journal, 0).await).unwrap();
    assert!(text.lines().all(|line| line.starts_with('[') && line.ends_with(']')), "every line is whole");
    let [.., before, _, close] = text.lines().collect::<Vec<_>>()[..] else { panic!() };
    let time = |line: &str| line.split([',', '[']).nth(1).unwrap().parse::<f64>().unwrap();
    assert!(close.contains("cut") && time(close) == time(before), "{before} {close}");
}

#[tokio::test]
async fn a_session_that_had_ended_keeps_its_own_end() {
    let dir = tempfile::tempdir().unwrap();
    let (copy, _) = killed(dir.path(), 0).await;
    let folder = copy.path().join("01JSESSION");
    let files = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
    files
        .filter(|path| path.extension().unwrap() == "lines")
        .for_each(|path| std::fs::remove_file(path).unwrap());
    let ended = "[1.5,\"o\",\"all\"]\n[2.5,\"x-end\",\"completed\"]\n";
    let late = "[2.5,\"x-close\",\"recorded-late\"]\n";
    let closed = "[2.5,\"x-close\",\"gap\"]\n";
    for (lines, added) in [(ended.to_owned(), late), (format!("{ended}{closed}"), "")] {
        std::fs::write(folder.join("00000000000000000000.lines"), &lines).unwrap();
        let [left] = left_behind(&budgets(copy.path()), 10).try_into().ok().unwrap();
        assert_eq!(String::from_utf8(all(&left.journal, 0).await).unwrap(), format!("{lines}{added}"));
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_removed_and_hurts_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (copy, _) = killed(dir.path(), 0).await;
    std::fs::create_dir(copy.path().join("broken")).unwrap();
    std::fs::write(copy.path().join("broken/waybill.json"), "{").unwrap();
    let left = left_behind(&budgets(copy.path()), 10);
    assert_eq!(left.len(), 1);
    assert!(!copy.path().join("broken").exists());
}

#[tokio::test(start_paused = true)]
async fn lines_that_no_recorder_takes_are_put_aside_soon() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = budgets(dir.path());
    let journal = Journal::new(Policy::Open, &budgets);
    journal.begin(Header::default());
    let spooler = tokio::spawn(Spooler::of(journal.clone(), dir.path(), waybill(), &budgets).run());
    journal.append(Duration::ZERO, b"[0.0,\"o\",\"hello\"]\n", 5);
    assert_eq!(budgets.disk.used(), 0, "it may find a recorder yet");
    while budgets.disk.used() == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(budgets.memory.used(), 0);
    journal.taken_by("[fd70::1]:80".parse().unwrap(), None);
    journal.append(Duration::ZERO, b"[0.1,\"o\",\"again\"]\n", 5);
    tokio::time::sleep(ALONE * 3).await;
    assert!(budgets.memory.used() > 0, "what a recorder takes stays in memory");
    journal.discard();
    spooler.await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
