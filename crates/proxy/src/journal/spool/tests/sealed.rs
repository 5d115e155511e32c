//! Sealed spools: what is changed in them is found, and what is not comes out as it went in.

use std::{fs, path::PathBuf};

use podwitness_wire::cast::{Event, Line};
use proptest::prelude::*;

use super::*;

/// A pod: its spool, and what is kept of it in memory.
struct Pod {
    spool: tempfile::TempDir,
    state: tempfile::TempDir,
}

/// A recording that one process after the other has put into the spool, and what of it should be there.
struct Kept {
    name: String,
    lines: Vec<u8>,
}

impl Pod {
    fn new() -> Self {
        Self { spool: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() }
    }

    /// The budgets of a process that starts now.
    fn process(&self) -> Budgets {
        let seals = Seals::load_or_create(self.state.path()).unwrap();
        Budgets { seals: Some(Arc::new(seals)), ..budgets(self.spool.path()) }
    }

    /// Writes blocks in files of at most two hundred bytes and a block, of which the first part is acknowledged. Then the
    /// process is killed.
    async fn keep(&self, budgets: &Budgets, name: &str, blocks: &[usize], acked: usize) -> Kept {
        let (journal, mut spooler) = self.recording(budgets, name);
        let mut lines = Vec::new();
        for (n, block) in blocks.iter().enumerate() {
            let text = "x".repeat(block % 60);
            let some: String =
                (0..=block % 4).map(|m| format!("[{n}.{m},\"o\",\"{name} {n} {m} {text}\"]\n")).collect();
            journal.append(Duration::from_secs(n as u64), some.as_bytes(), 1);
            lines.extend_from_slice(some.as_bytes());
            spool(&journal, &mut spooler).await;
        }
        journal.ack(
            lines[..lines.len() * acked / 100]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at as u64 + 1),
        );
        spooler.tidy().await;
        let from =
            journal.state().spool.segments.front().map_or(lines.len() as u64, |first| first.lines.start);
        Kept { name: name.to_owned(), lines: lines.split_off(usize::try_from(from).unwrap()) }
    }

    fn recording(&self, budgets: &Budgets, name: &str) -> (Journal, Spooler) {
        let journal = Journal::new(Policy::Open, budgets);
        journal.begin(Header { command: name.into(), ..Header::default() });
        journal.state().spool.segment = 200;
        let waybill = Waybill { session: name.into(), ..Waybill::default() };
        let spooler = Spooler::of(journal.clone(), self.spool.path(), waybill, budgets);
        (journal, spooler)
    }

    /// The files of a recording.
    fn files(&self, name: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.spool.path().join(name))
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default();
        files.sort();
        files
    }
}

/// Puts everything that is in memory into the spool.
async fn spool(journal: &Journal, spooler: &mut Spooler) {
    loop {
        let Some(lines) = next_move(&mut journal.state()) else { break };
        spooler.write(lines).await.unwrap();
    }
}

/// What a process that starts now uploads of each recording.
async fn uploads(budgets: &Budgets) -> Vec<(String, String)> {
    let mut uploads = Vec::new();
    for left in left_behind(budgets, 100) {
        let from = left.journal.acked();
        let text = all(&left.journal, from).await;
        assert_eq!(left.journal.begun().await.unwrap().command, left.waybill.session);
        left.journal.ack(from + text.len() as u64);
        assert!(left.journal.state().is_done(), "everything counts as acknowledged");
        left.spooler.run().await;
        uploads.push((left.waybill.session, String::from_utf8(text).unwrap()));
    }
    uploads
}

const END: &str = "\"x-end\",\"interrupted\"]";

/// Whether an upload has gaps in place of lines, and nothing else that was not put there.
fn has_gaps(upload: &str, kept: &str) -> bool {
    let mut rest = kept.lines();
    let mut gaps = false;
    for line in upload.lines() {
        match Line::parse(line.as_bytes()).unwrap().event {
            Event::Tampered(_) => gaps = true,
            Event::End(_) | Event::Close(_) => {}
            _ => assert!(rest.any(|it| it == line), "{line} was never said there"),
        }
    }
    gaps
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Flip,
    Insert,
    Delete,
    Truncate,
    Remove,
    /// Exchanges the contents of two files.
    Swap,
    /// Puts a file of another recording in place of one.
    Splice,
    /// Puts a part of the file itself somewhere else in it.
    Repeat,
}

fn change() -> impl Strategy<Value = Change> {
    use Change::{Delete, Flip, Insert, Remove, Repeat, Splice, Swap, Truncate};
    prop::sample::select(vec![Flip, Insert, Delete, Truncate, Remove, Swap, Splice, Repeat])
}

/// Changes a file of a recording, and tells whether that can make a difference: what is put behind a file cannot.
fn apply(pod: &Pod, change: Change, which: usize, at: usize, len: usize) -> bool {
    let files = pod.files("one");
    let path = &files[which % files.len()];
    let before = fs::read(path).unwrap();
    let mut bytes = before.clone();
    let at = at % bytes.len().max(1);
    let end = (at + len).min(bytes.len());
    match change {
        Change::Flip => bytes[at] ^= 1 << (len % 8),
        Change::Insert => drop(bytes.splice(at..at, b"[0,\"o\",\"forged\"]\n".repeat(len))),
        Change::Delete => drop(bytes.drain(at..end)),
        Change::Truncate => bytes.truncate(at),
        Change::Remove => {
            fs::remove_file(path).unwrap();
            return true;
        }
        Change::Swap => {
            let other = &files[(which + 1 + at) % files.len()];
            bytes = fs::read(other).unwrap();
            fs::write(other, &before).unwrap();
        }
        Change::Splice => {
            let others = pod.files("two");
            let same = others.iter().find(|other| other.file_name() == path.file_name());
            bytes = fs::read(same.unwrap_or(&others[which % others.len()])).unwrap();
        }
        Change::Repeat => {
            let part = bytes[at..end].to_vec();
            bytes.splice(0..0, part);
        }
    }
    fs::write(path, &bytes).unwrap();
    bytes != before && !bytes.starts_with(&before)
}

fn blocks() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..1000_usize, 1..25)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_was_not_touched_comes_out_as_it_went_in(
        one in blocks(), two in blocks(), acked in 0..100_usize, restarts in 0..4_usize,
    ) {
        run(async {
            let pod = Pod::new();
            let process = pod.process();
            let kept = [
                pod.keep(&process, "one", &one, acked).await,
                pod.keep(&process, "two", &two, acked / 2).await,
            ];
            for _ in 0..restarts {
                let process = pod.process();
                drop(left_behind(&process, 100));
            }
            let process = pod.process();
            let uploads = uploads(&process).await;
            assert_eq!(uploads.len(), 2);
            for (name, text) in uploads {
                let kept = kept.iter().find(|kept| kept.name == name).unwrap();
                let kept = std::str::from_utf8(&kept.lines).unwrap();
                assert!(text.strip_prefix(kept).is_some_and(|end| end.contains(END)), "{text}");
            }
            assert_eq!((process.incidents.count_tampered(), process.disk.used()), (0, 0));
            assert_eq!(fs::read_dir(pod.spool.path()).unwrap().count(), 0);
            assert!(uploads_of_next(&pod).await.is_empty());
        });
    }

    #[test]
    fn what_the_next_process_finds_changed_is_said_to_be(
        one in blocks(), two in blocks(), acked in 0..60_usize,
        change in change(), which in 0..1000_usize, at in 0..100_000_usize, len in 1..200_usize,
    ) {
        run(async {
            let pod = Pod::new();
            let process = pod.process();
            let kept = pod.keep(&process, "one", &one, acked).await;
            let other = pod.keep(&process, "two", &two, 0).await;
            let matters = apply(&pod, change, which, at, len);
            let process = pod.process();
            let uploads = uploads(&process).await;
            let find = |name| uploads.iter().find(|(it, _)| it == name).map(|(_, text)| text.as_str());
            let other = std::str::from_utf8(&other.lines).unwrap();
            assert!(find("two").unwrap().starts_with(other), "the other recording is whole");
            let kept = std::str::from_utf8(&kept.lines).unwrap();
            let found = process.incidents.count_tampered() > 0;
            match find("one") {
                // Without its waybill it has no session.
                None => assert!(found),
                Some(text) => assert_eq!(has_gaps(text, kept), found, "{text}"),
            }
            assert!(found || !matters, "{change:?} was not found");
            if !found {
                assert!(find("one").unwrap().starts_with(kept));
            }
            assert!(uploads_of_next(&pod).await.is_empty());
        });
    }

    #[test]
    fn what_the_same_process_finds_changed_is_said_to_be(
        one in blocks(), change in change(), which in 0..1000_usize, at in 0..100_000_usize, len in 1..200_usize,
    ) {
        run(async {
            let pod = Pod::new();
            let process = pod.process();
            pod.keep(&process, "two", &one, 0).await;
            let (journal, mut spooler) = pod.recording(&process, "one");
            let mut kept = String::new();
            for (n, len) in one.iter().enumerate() {
                let line = format!("[{n},\"o\",\"{}\"]\n", "x".repeat(len % 90));
                journal.append(Duration::from_secs(n as u64), line.as_bytes(), 1);
                kept.push_str(&line);
                spool(&journal, &mut spooler).await;
            }
            journal.close(Duration::from_secs(100), b"[100,\"x-end\",\"completed\"]\n", podwitness_core::outcome::End::Completed);
            journal.state().decide(Outcome::RecordedLate);
            if one.len() % 2 == 0 {
                spool(&journal, &mut spooler).await;
            }
            let matters = apply(&pod, change, which, at, len);
            let text = String::from_utf8(all(&journal, 0).await).unwrap();
            assert!(text.contains("\"x-end\",\"completed\"]\n"), "{text}");
            let found = process.incidents.count_tampered() > 0;
            assert_eq!(has_gaps(&text, &kept), found);
            // This process has the waybill in memory and its files open.
            assert!(found || text.starts_with(&kept));
            let outcome = if found { "gap" } else { "recorded-late" };
            assert!(text.ends_with(&format!("\"x-close\",\"{outcome}\"]\n")), "{text}");
            let lines = pod.files("one")[which % pod.files("one").len().max(1)].extension().is_some_and(|e| e != "json");
            let in_place = matches!(change, Change::Flip | Change::Truncate | Change::Delete | Change::Splice);
            assert!(found || !(matters && lines && in_place), "{change:?} was not found");
            journal.ack(text.len() as u64);
            assert!(journal.state().is_done());
        });
    }
}

async fn uploads_of_next(pod: &Pod) -> Vec<(String, String)> {
    let process = pod.process();
    let uploads = uploads(&process).await;
    assert_eq!(process.incidents.count_tampered(), 0, "it is said once");
    uploads
}

#[tokio::test]
async fn a_block_that_the_process_did_not_come_to_seal_is_a_torn_end() {
    let pod = Pod::new();
    let process = pod.process();
    let kept = pod.keep(&process, "one", &[3, 7, 11], 0).await;
    let last = pod.files("one").into_iter().rfind(|path| path.extension().unwrap() == "lines").unwrap();
    let torn = [fs::read(&last).unwrap(), b"[9,\"o\",\"not whole".to_vec()].concat();
    fs::write(&last, torn).unwrap();
    let process = pod.process();
    let [(_, text)] = uploads(&process).await.try_into().unwrap();
    assert!(text.starts_with(std::str::from_utf8(&kept.lines).unwrap()) && !text.contains("not whole"));
    assert_eq!(process.incidents.count_tampered(), 0);
}

#[tokio::test]
async fn a_spool_from_before_the_key_is_taken_as_it_is_found() {
    for sealed in [false, true] {
        let mut pod = Pod::new();
        let before = if sealed { pod.process() } else { budgets(pod.spool.path()) };
        let kept = pod.keep(&before, "one", &[3, 7, 11, 20, 90], 30).await;
        // The node was started anew, and its memory is empty; the last line did not reach the disk.
        pod.state = tempfile::tempdir().unwrap();
        let last = pod.files("one").into_iter().rfind(|path| path.extension().unwrap() == "lines").unwrap();
        let len = fs::metadata(&last).unwrap().len();
        fs::OpenOptions::new().write(true).open(&last).unwrap().set_len(len - 3).unwrap();
        // Nor does the process after that take it for tampering.
        drop(left_behind(&pod.process(), 10));
        let process = pod.process();
        let [(_, text)] = uploads(&process).await.try_into().unwrap();
        let whole = text.split_once("\"x-end\"").unwrap().0.rsplit_once('\n').unwrap().0;
        assert!(whole.len() > 100 && kept.lines.starts_with(whole.as_bytes()), "{text}");
        assert_eq!(process.incidents.count_tampered(), 0);
        assert!(uploads_of_next(&pod).await.is_empty());
    }
}

#[tokio::test]
async fn a_recording_that_is_gone_or_put_there_is_said() {
    let pod = Pod::new();
    let process = pod.process();
    pod.keep(&process, "one", &[3, 7], 0).await;
    pod.keep(&process, "two", &[3, 7], 0).await;
    fs::remove_dir_all(pod.spool.path().join("one")).unwrap();
    fs::create_dir(pod.spool.path().join("three")).unwrap();
    for file in pod.files("two") {
        fs::copy(&file, pod.spool.path().join("three").join(file.file_name().unwrap())).unwrap();
    }
    let process = pod.process();
    let uploads = uploads(&process).await;
    assert_eq!((uploads.len(), &*uploads[0].0, process.incidents.count_tampered()), (1, "two", 2));
    assert!(uploads_of_next(&pod).await.is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_in_the_spool_leads_nowhere() {
    let pod = Pod::new();
    let process = pod.process();
    pod.keep(&process, "one", &[3, 7], 0).await;
    let target = pod.state.path().join("tunnel.key");
    fs::write(&target, "secret").unwrap();
    for file in pod.files("one").into_iter().filter(|file| file.extension().unwrap() != "json") {
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&target, &file).unwrap();
    }
    let process = pod.process();
    let [(_, text)] = uploads(&process).await.try_into().unwrap();
    assert!(has_gaps(&text, "") && !text.contains("secret"));
    assert_eq!(fs::read_to_string(&target).unwrap(), "secret");
}

#[tokio::test]
async fn regions_of_a_large_spool_fail_one_by_one() {
    let pod = Pod::new();
    let process = pod.process();
    let (journal, mut spooler) = pod.recording(&process, "one");
    journal.state().spool.segment = SEGMENT;
    let mut kept = String::new();
    for n in 0..40_000 {
        let line = format!("[{n},\"o\",\"some text that is kept\"]\n");
        journal.append(Duration::from_secs(n), line.as_bytes(), 1);
        kept.push_str(&line);
    }
    spool(&journal, &mut spooler).await;
    journal.end();
    let path = pod.files("one").into_iter().find(|path| path.extension().unwrap() == "lines").unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"forged", 700_000).unwrap();
    let text = String::from_utf8(all(&journal, 0).await).unwrap();
    assert!(has_gaps(&text, &kept));
    let (before, behind) = text.split_once("\"x-gap\"").unwrap();
    let before = before.rsplit_once('\n').unwrap().0;
    let behind = behind.split_once('\n').unwrap().1;
    assert!(kept.starts_with(before) && kept.ends_with(behind));
    assert!(before.len() > 250_000 && kept.len() - before.len() - behind.len() < 600_000);
    assert_eq!(process.incidents.count_tampered(), 1);
    // Read again from the beginning it says the same, and what is acknowledged of it is what was read.
    assert_eq!(String::from_utf8(all(&journal, 0).await).unwrap(), text);
    journal.ack(before.len() as u64 + 1);
    let from = journal.acked();
    assert_eq!(all(&journal, from).await, text.as_bytes()[before.len() + 1..]);
    journal.ack(text.len() as u64);
    spooler.tidy().await;
    assert_eq!(process.disk.used(), 0);
}

#[tokio::test]
async fn a_disk_that_refuses_leaves_no_entry_behind() {
    let pod = Pod::new();
    let process = pod.process();
    let gone = pod.spool.path().join("gone").join("further");
    for _ in 0..3 {
        let journal = Journal::new(Policy::Open, &process);
        journal.begin(Header::default());
        journal.append(Duration::ZERO, b"[0,\"o\",\"x\"]\n", 1);
        let mut spooler = Spooler::of(journal.clone(), &gone, waybill(), &process);
        let lines = next_move(&mut journal.state()).unwrap();
        assert!(spooler.write(lines).await.is_err());
    }
    assert_eq!(pod.process().seals.unwrap().left().unwrap().len(), 0);
}
