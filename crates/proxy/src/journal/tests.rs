use podwitness_core::{
    failure::{MAX_AGE_DURABLE, MAX_PAUSE},
    outcome::End,
};

use super::*;

fn budgets(memory: u64, disk: u64, dir: Option<&tempfile::TempDir>) -> Budgets {
    Budgets {
        memory: Budget::new(memory),
        disk: Budget::new(disk),
        dir: dir.map(|dir| Arc::new(dir.path().into())),
        ..Budgets::none()
    }
}

fn closed(lead: u64) -> Journal {
    Journal::new(Policy::Closed { grants: vec!["pci".into()], lead }, &budgets(1 << 20, 0, None))
}

fn open(memory: u64) -> Journal {
    // One alone gets two thirds.
    Journal::new(Policy::Open, &budgets(memory.div_ceil(2) * 3, 0, None))
}

const NOW: Duration = Duration::from_secs(1);

/// Everything behind `from` until the journal has nothing more to give.
async fn read(journal: &Journal, mut from: u64) -> Vec<u8> {
    let mut all = vec![];
    while let Ok(Ok(Next::Lines(lines))) =
        tokio::time::timeout(Duration::from_secs(1), journal.next(from)).await
    {
        from += lines.len() as u64;
        all.extend_from_slice(&lines);
    }
    all
}

async fn waits(journal: &Journal) -> bool {
    tokio::time::timeout(Duration::from_millis(10), journal.room()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn fail_open_never_waits_for_a_recorder() {
    let journal = open(1 << 20);
    journal.append(NOW, &[b'x'; 100_000], 1);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!waits(&journal).await);
}

#[tokio::test(start_paused = true)]
async fn fail_closed_waits_for_bytes_and_for_age() {
    let journal = closed(10);
    journal.taken_by("[fd70::1]:80".parse().unwrap(), Some(AckLevel::Volume));
    journal.append(NOW, b"1234567890", 10);
    assert!(!waits(&journal).await);
    journal.append(NOW, b"1", 1);
    assert!(waits(&journal).await);
    journal.ack(1);
    assert!(!waits(&journal).await);
    tokio::time::sleep(MAX_AGE_DURABLE).await;
    assert!(waits(&journal).await, "what was shown is too old");
    journal.ack(11);
    assert!(!waits(&journal).await);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_lasts_too_long_ends_the_session() {
    let journal = closed(1);
    journal.append(NOW, b"12", 2);
    let begun = Instant::now();
    let status = journal.room().await.unwrap_err();
    assert!(status.message.contains("no recorder can be reached"), "{}", status.message);
    assert!(begun.elapsed() > MAX_PAUSE && begun.elapsed() < MAX_PAUSE + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_wakes_everybody_who_waits() {
    let journal = closed(1);
    journal.append(NOW, b"12", 2);
    let (one, two) = (journal.clone(), journal.clone());
    let waiting = tokio::spawn(async move { tokio::join!(one.room(), two.room()) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    journal.ack(2);
    let (one, two) = waiting.await.unwrap();
    assert!(one.is_ok() && two.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_left_out_stands_in_a_gap_line_where_it_was() {
    let journal = open(100);
    journal.append(NOW, &[b'a'; 90], 90);
    journal.append(NOW, &[b'b'; 20], 20);
    journal.append(NOW, &[b'c'; 20], 20);
    journal.ack(90);
    journal.append(NOW, b"[d]\n", 1);
    assert_eq!(read(&journal, 90).await, b"[1,\"x-gap\",\"40\"]\n[d]\n");
    assert_eq!(journal.lost(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_gap_at_the_end_is_written_when_the_journal_ends() {
    let journal = open(100);
    journal.begin(Header::default());
    journal.miss(7);
    journal.end();
    assert_eq!(read(&journal, 0).await, b"[0,\"x-gap\",\"7\"]\n");
    assert!(matches!(journal.next(17).await, Ok(Next::End)));
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_was_never_begun_is_discarded_when_it_ends() {
    let journal = open(100);
    journal.end();
    assert!(journal.begun().await.is_none());
    assert!(matches!(journal.next(0).await, Ok(Next::Discarded)));
}

#[tokio::test(start_paused = true)]
async fn what_is_discarded_gives_its_memory_back() {
    let budgets = budgets(200, 0, None);
    let journal = Journal::new(Policy::Open, &budgets);
    journal.append(NOW, &[b'x'; 60], 60);
    journal.ack(10);
    assert_eq!((budgets.memory.used(), journal.discard(), budgets.memory.used()), (50, 50, 0));
    journal.append(NOW, b"late", 4);
    assert_eq!((budgets.memory.used(), journal.lost()), (0, 4));
}

fn spooler(journal: &Journal, budgets: &Budgets) -> tokio::task::JoinHandle<()> {
    let waybill = Waybill { session: "01JSESSION".into(), ..Waybill::default() };
    tokio::spawn(Spooler::of(journal.clone(), budgets.dir.as_deref().unwrap(), waybill, budgets).run())
}

/// Lines whose content says where they stand.
fn lines(from: usize, count: usize) -> Vec<u8> {
    (from..from + count)
        .flat_map(|n| format!("[{n},\"o\",\"{}\"]\n", "x".repeat(1000)).into_bytes())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_spool_gives_back_what_it_took_from_any_place() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = budgets(64 << 20, 64 << 20, Some(&dir));
    let journal = Journal::new(Policy::Open, &budgets);
    journal.begin(Header::default());
    let spooler = spooler(&journal, &budgets);
    let mut written = vec![];
    for n in 0..300 {
        let some = lines(n * 70, 70);
        journal.append(NOW, &some, 1);
        written.extend(some);
        tokio::task::yield_now().await;
    }
    while budgets.memory.used() > 2 << 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(budgets.disk.used() > 16 << 20);
    for from in [0, 9 << 20, written.len() as u64 - 3_000_000] {
        let start = usize::try_from(from).unwrap();
        assert!(read(&journal, from).await == written[start..], "from {from}");
    }
    journal.ack(17 << 20);
    // Files that are done with go.
    while budgets.disk.used() >= 16 << 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    journal.end();
    journal.ack(written.len() as u64);
    spooler.await.unwrap();
    assert_eq!((budgets.memory.used(), budgets.disk.used()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn under_fail_closed_nothing_is_spooled() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = budgets(64 << 20, 64 << 20, Some(&dir));
    let policy = Policy::Closed { grants: vec![], lead: 1 };
    let journal = Journal::new(policy, &budgets);
    journal.append(NOW, &vec![b'x'; 4 << 20], 1);
    assert!(!journal.state().is_pressed(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_refuses_leaves_lines_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let budgets = Budgets { dir: Some(Arc::new(gone)), ..budgets(64 << 20, 64 << 20, None) };
    let journal = Journal::new(Policy::Open, &budgets);
    journal.begin(Header::default());
    let spooler = spooler(&journal, &budgets);
    let written = lines(0, 3000);
    journal.append(NOW, &written, 1);
    while journal.state().spool.is_usable() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(read(&journal, 0).await == written);
    assert_eq!(budgets.disk.used(), 0);
    journal.discard();
    spooler.await.unwrap();
}

/// A journal whose session has shown something.
fn begun(journal: Journal) -> Journal {
    journal.begin(Header::default());
    journal.append(NOW, b"shown\n", 5);
    journal
}

#[tokio::test(start_paused = true)]
async fn the_last_line_is_written_when_all_before_it_is_acknowledged() {
    let journal = begun(open(1000));
    journal.close(NOW, b"end\n", End::Completed);
    assert_eq!(read(&journal, 0).await, b"shown\nend\n", "it is not known yet");
    journal.ack(9);
    assert_eq!(read(&journal, 9).await, b"\n", "not all is acknowledged");
    journal.ack(10);
    assert_eq!(read(&journal, 10).await, b"[1,\"x-close\",\"recorded\"]\n");
    assert_eq!(journal.closed().await.outcome, Outcome::Recorded);
    assert!(!journal.state().is_done(), "the last line is to be acknowledged too");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_acknowledged_in_time_is_late_for_good() {
    let journal = begun(open(1000));
    journal.close(NOW, b"", End::ClientLeft);
    let begun = Instant::now();
    assert_eq!(journal.closed().await.outcome, Outcome::RecordedLate);
    assert_eq!(begun.elapsed().as_secs(), 10);
    journal.ack(6);
    assert_eq!(read(&journal, 6).await, b"[1,\"x-close\",\"recorded-late\"]\n");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_at_the_end_is_said_at_once() {
    for (missed, end, word) in
        [(7, End::Completed, Outcome::Gap), (0, End::Policy, Outcome::Cut), (7, End::Drained, Outcome::Cut)]
    {
        let journal = begun(open(1000));
        journal.miss(missed);
        journal.close(NOW, b"", end);
        let begun = Instant::now();
        assert_eq!((journal.closed().await.outcome, begun.elapsed()), (word, Duration::ZERO));
        assert!(
            read(&journal, 0).await.ends_with(format!("\"x-close\",\"{}\"]\n", word.as_str()).as_bytes())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_is_given_up_before_its_last_line_has_a_gap_or_was_not_wanted() {
    for early in [true, false] {
        let (lost, unwanted) = (begun(open(1000)), begun(open(1000)));
        if !early {
            lost.close(NOW, b"", End::Completed);
            unwanted.close(NOW, b"", End::Completed);
        }
        lost.discard();
        unwanted.unwanted();
        lost.close(NOW, b"", End::Completed);
        unwanted.close(NOW, b"", End::Completed);
        assert_eq!(
            (lost.closed().await.outcome, unwanted.closed().await.outcome),
            (Outcome::Gap, Outcome::Unwanted)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_used_up_has_room_for_the_end() {
    let journal = begun(open(6));
    journal.append(NOW, b"does not fit\n", 12);
    journal.close(NOW, b"end\n", End::Completed);
    let expected = "shown\n[1,\"x-gap\",\"12\"]\nend\n[1,\"x-close\",\"gap\"]\n";
    assert_eq!(String::from_utf8(read(&journal, 0).await).unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_journal_is_tightened_while_its_session_lasts_and_never_loosened() {
    let closed = |lead| Policy::Closed { grants: vec!["pci".into()], lead };
    let journal = begun(open(1000));
    assert!(!waits(&journal).await);
    assert!(journal.tighten(closed(5)));
    assert!(waits(&journal).await, "what was shown before counts");
    assert!(journal.tighten(Policy::Open) && journal.tighten(closed(1 << 20)));
    assert_eq!(journal.policy(), closed(5));
    journal.ack(6);
    assert!(!waits(&journal).await);
    journal.close(NOW, b"", End::Completed);
    assert!(!journal.tighten(closed(1)));
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_lets_nothing_pass_under_fail_closed() {
    let journal = begun(closed(1000));
    assert!(!waits(&journal).await);
    journal.discard();
    assert!(waits(&journal).await);
    assert!(journal.room().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_flood_makes_no_gap_of_another_session_and_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = budgets(1 << 20, 1 << 20, Some(&dir));
    let flood = Journal::new(Policy::Open, &budgets);
    flood.begin(Header::default());
    let _spooler = spooler(&flood, &budgets);
    let mut shown = 0;
    while flood.lost() < 100_000 {
        flood.append(NOW, &lines(shown, 10), 10_000);
        shown += 10;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let most = (2 << 20) / 3;
    assert!(budgets.disk.used() <= most && budgets.memory.used() <= most);
    let quiet = Journal::new(Policy::Open, &budgets);
    quiet.begin(Header::default());
    let waybill = Waybill { session: "01JQUIET".into(), ..Waybill::default() };
    tokio::spawn(Spooler::of(quiet.clone(), dir.path(), waybill, &budgets).run());
    let written = lines(0, 100);
    quiet.append(NOW, &written, 100_000);
    tokio::time::sleep(Duration::from_secs(5)).await;
    quiet.append(NOW, &lines(100, 100), 100_000);
    assert_eq!((quiet.lost(), budgets.incidents.count_full()), (0, 1));
    assert!(read(&quiet, 0).await.starts_with(&written));
}
