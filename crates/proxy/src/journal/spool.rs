//! The part of a journal that lies on disk: the oldest lines of sessions that no recorder takes fast enough.
//!
//! Files hold up to 8 MiB each, so that space comes back while a session goes on. They are removed from their
//! directory as soon as they are open: nothing is left behind, and nobody else opens them.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use ulid::Ulid;

use super::{Journal, State, budget::Share};

/// Bytes of one file, about.
const SEGMENT: u64 = 8 << 20;
/// Bytes written or read at once; no line is longer.
const STEP: usize = 256 << 10;

/// Files with consecutive parts of a journal.
#[derive(Debug)]
pub(super) struct Spool {
    dir: Option<Arc<PathBuf>>,
    segments: VecDeque<Segment>,
    /// Whether lines are being written behind the last segment, which stays until then.
    writing: bool,
    share: Share,
}

#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    start: u64,
    len: u64,
}

/// Where bytes lie on disk.
#[derive(Debug)]
pub(super) struct Place {
    file: Arc<File>,
    offset: u64,
    len: usize,
    /// Whether lines end with the last byte; else the last line may be cut.
    whole: bool,
}

/// Lines on their way to the disk.
struct Move {
    file: Option<Arc<File>>,
    dir: Arc<PathBuf>,
    /// Place in the journal.
    start: u64,
    offset: u64,
    lines: Bytes,
}

impl Spool {
    pub(super) const fn new(dir: Option<Arc<PathBuf>>, share: Share) -> Self {
        Self { dir, segments: VecDeque::new(), writing: false, share }
    }

    /// Whether there is a disk that takes lines.
    pub(super) const fn is_usable(&self) -> bool {
        self.dir.is_some()
    }

    /// Where the lines from `from` on lie, if they are here.
    pub(super) fn find(&self, from: u64) -> Option<Place> {
        let segment = self.segments.iter().find(|s| (s.start..s.start + s.len).contains(&from))?;
        let offset = from - segment.start;
        let left = segment.len - offset;
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(STEP);
        Some(Place { file: Arc::clone(&segment.file), offset, len, whole: len as u64 == left })
    }

    /// Forgets files that lie wholly before `to`.
    pub(super) fn release(&mut self, to: u64) {
        while let Some(segment) = self.segments.front().filter(|s| s.start + s.len <= to) {
            if self.writing && self.segments.len() == 1 {
                return;
            }
            self.share.shrink(segment.len);
            self.segments.pop_front();
        }
    }

    fn written(&mut self, file: Arc<File>, start: u64, len: u64) {
        match self.segments.back_mut() {
            Some(last) if Arc::ptr_eq(&last.file, &file) => last.len += len,
            _ => self.segments.push_back(Segment { file, start, len }),
        }
    }
}

impl Place {
    /// Reads whole lines.
    pub(super) async fn read(self) -> io::Result<Bytes> {
        let whole = self.whole;
        let mut bytes = blocking(move || {
            let mut bytes = BytesMut::zeroed(self.len);
            self.file.read_exact_at(&mut bytes, self.offset)?;
            Ok(bytes)
        })
        .await?;
        if !whole {
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes.truncate(end);
        }
        if bytes.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(bytes.freeze()) }
    }
}

/// Moves the oldest lines of a journal to disk whenever it is pressed, until it is discarded or ended and uploaded.
/// Where the disk refuses, lines stay in memory and the budget of memory decides.
pub(crate) async fn spool(journal: Journal) {
    loop {
        match step(&journal) {
            Step::Done => return,
            Step::Wait => journal.0.pressure.notified().await,
            Step::Move(lines) => {
                if let Err(error) = write(&journal, lines).await {
                    tracing::warn!(%error, "cannot write to the spool; recordings wait in memory alone");
                    journal.state().spool.dir = None;
                }
            }
        }
    }
}

enum Step {
    Done,
    Wait,
    Move(Move),
}

fn step(journal: &Journal) -> Step {
    let mut state = journal.state();
    if state.is_done() {
        return Step::Done;
    }
    if !state.is_pressed() {
        return Step::Wait;
    }
    next_move(&mut state).map_or(Step::Wait, Step::Move)
}

/// The oldest lines in memory, if the disk's budget has room for them.
fn next_move(state: &mut State) -> Option<Move> {
    let dir = state.spool.dir.clone()?;
    let start = state.window.start();
    let lines = state.window.read(start)?;
    if !state.spool.share.grow(lines.len() as u64) {
        return None;
    }
    let last = state.spool.segments.back();
    let last = last.filter(|last| last.start + last.len == start && last.len < SEGMENT);
    let (file, offset) = last.map_or((None, 0), |last| (Some(Arc::clone(&last.file)), last.len));
    state.spool.writing = true;
    Some(Move { file, dir, start, offset, lines })
}

async fn write(journal: &Journal, lines: Move) -> io::Result<()> {
    let Move { file, dir, start, offset, lines } = lines;
    let len = lines.len() as u64;
    let written = blocking(move || {
        let file = file.map_or_else(|| create(&dir).map(Arc::new), Ok)?;
        file.write_all_at(&lines, offset)?;
        Ok(file)
    })
    .await;
    let mut state = journal.state();
    state.spool.writing = false;
    match written {
        Ok(file) => {
            state.spool.written(file, start, len);
            state.window.release(start + len);
            let acked = state.acked;
            state.spool.release(acked);
            Ok(())
        }
        Err(error) => {
            state.spool.share.shrink(len);
            Err(error)
        }
    }
}

/// A file without a name.
fn create(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!("{}.spool", Ulid::new()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use podwitness_core::failure::Policy;

    use super::*;
    use crate::journal::{Budget, Budgets, Next};

    /// More than a journal keeps in memory, in lines that say where they stand.
    fn fill(journal: &Journal) -> Vec<u8> {
        let lines: Vec<u8> =
            (0..60_000).flat_map(|n| format!("[{n},\"o\",\"some text\"]\n").into_bytes()).collect();
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
        };
        let journal = Journal::new(Policy::Open, &budgets);
        let lines = fill(&journal);
        let Step::Move(first) = step(&journal) else { panic!() };
        let place = first.lines.len() as u64;
        write(&journal, first).await.unwrap();
        let Step::Move(second) = step(&journal) else { panic!() };
        assert!(second.file.is_some(), "both lie in one file");
        journal.ack(place + 10);
        write(&journal, second).await.unwrap();
        let Ok(Next::Lines(read)) = journal.next(place + 10).await else { panic!() };
        let from = usize::try_from(place).unwrap() + 10;
        assert!(lines[from..].starts_with(&read), "{:?}", &read[..40]);
        journal.discard();
        assert_eq!((budgets.memory.used(), budgets.disk.used()), (0, 0));
    }
}
