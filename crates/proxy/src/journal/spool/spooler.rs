//! Moves the oldest lines of a journal from memory to the spool.

use std::{io, path::Path, sync::Arc};

use bytes::Bytes;
use podwitness_core::outcome::Outcome;
use podwitness_wire::{cast::Header, spool::Mac};
use tokio::time::{Instant, sleep_until};

use super::{
    super::{Budgets, Journal, State},
    Segment, Waybill, blocking,
    folder::{Folder, Lines},
};

/// Lines on their way to the disk.
pub(super) struct Move {
    pub(super) file: Option<Arc<Lines>>,
    header: Arc<Header>,
    /// Place in the journal.
    start: u64,
    offset: u64,
    /// Number of the block in its file, and the MAC of the one before.
    number: u64,
    before: Mac,
    pub(super) lines: Bytes,
}

/// Moves the oldest lines of one journal to disk.
pub(crate) struct Spooler {
    journal: Journal,
    folder: Folder,
}

pub(super) enum Step {
    Done,
    /// Nothing is to be done before the journal is pressed, or before then.
    Wait(Option<Instant>),
    Move(Move),
    /// Files to be removed.
    Remove(Vec<Segment>),
}

impl Spooler {
    pub(super) const fn new(journal: Journal, folder: Folder) -> Self {
        Self { journal, folder }
    }

    /// For a new session, with a folder of its own in `dir`.
    pub(crate) fn of(journal: Journal, dir: &Path, waybill: Waybill, budgets: &Budgets) -> Self {
        Self::new(journal, Folder::new(dir, waybill, budgets.seals.clone()))
    }

    /// Works whenever the journal is pressed, until that is discarded or ended and uploaded; then its folder goes.
    /// Where the disk refuses, lines stay in memory and the budget of memory decides.
    pub(crate) async fn run(mut self) {
        loop {
            match step(&self.journal) {
                Step::Done => break,
                Step::Wait(until) => self.wait(until).await,
                Step::Remove(released) => self.remove(released).await,
                Step::Move(lines) => {
                    if let Err(error) = self.write(lines).await {
                        tracing::warn!(%error, "cannot write to the spool; recordings wait in memory alone");
                        self.journal.state().spool.usable = false;
                        self.journal.0.acks.notify_waiters();
                    }
                }
            }
        }
        let Self { journal, folder } = self;
        // A thread that cannot be had is a process that ends.
        let _ = blocking(move || {
            folder.remove();
            Ok(())
        })
        .await;
        journal.state().spool.all_removed();
    }

    async fn wait(&self, until: Option<Instant>) {
        let due = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.journal.0.pressure.notified() => {}
            () = due => {}
        }
    }

    /// Removes the files that are done with.
    #[cfg(test)]
    pub(super) async fn tidy(&self) {
        let released = self.journal.state().spool.take_released();
        self.remove(released).await;
    }

    /// Removes files, and gives back their room then.
    pub(super) async fn remove(&self, released: Vec<Segment>) {
        let len = released.iter().map(|segment| segment.len).sum();
        let removing = blocking(move || {
            for segment in released {
                segment.lines.remove(segment.end());
            }
            Ok(())
        });
        // A thread that cannot be had is a process that ends.
        let _ = removing.await;
        self.journal.state().spool.removed(len);
        self.journal.0.acks.notify_waiters();
    }

    pub(super) async fn write(&mut self, lines: Move) -> io::Result<()> {
        let Move { file, header, start, offset, number, before, lines } = lines;
        let len = lines.len() as u64;
        let file = match file {
            Some(file) => Ok(file),
            None => self.create(start, before, header).await,
        };
        let written = match file {
            Ok(file) => {
                blocking(move || {
                    let mac = file.write(&lines, offset, number, &before)?;
                    Ok((file, mac))
                })
                .await
            }
            Err(error) => Err(error),
        };
        let mut state = self.journal.state();
        state.spool.writing = false;
        match written {
            Ok((file, mac)) => {
                state.spool.written(file, len, mac);
                state.window.release(start + len);
                let acked = state.acked;
                state.spool.release(acked);
                drop(state);
                self.journal.0.acks.notify_waiters();
                Ok(())
            }
            Err(error) => {
                state.spool.share.shrink(len);
                Err(error)
            }
        }
    }

    async fn create(&mut self, start: u64, before: Mac, header: Arc<Header>) -> io::Result<Arc<Lines>> {
        let mut folder = self.folder.clone();
        let (folder, lines) = blocking(move || {
            let lines = folder.create(start, &before, &header)?;
            Ok((folder, lines))
        })
        .await?;
        self.folder = folder;
        Ok(Arc::new(lines))
    }
}

pub(super) fn step(journal: &Journal) -> Step {
    let mut state = journal.state();
    let now = Instant::now();
    if state.is_done() {
        return Step::Done;
    }
    if state.spool.has_released() {
        return Step::Remove(state.spool.take_released());
    }
    if state.alone_at().is_some_and(|alone| alone <= now) && state.decide(Outcome::RecordedLate) {
        // The end goes to the disk with its last line, which the next process then finds.
        journal.0.acks.notify_waiters();
    }
    if !state.is_pressed(now) {
        return Step::Wait(state.alone_at().filter(|alone| *alone > now));
    }
    let Some(lines) = next_move(&mut state) else {
        journal.0.acks.notify_waiters();
        return Step::Wait(None);
    };
    Step::Move(lines)
}

/// The oldest lines in memory, if the disk's budget has room for them.
pub(super) fn next_move(state: &mut State) -> Option<Move> {
    let header = state.header.clone()?;
    let start = state.window.start();
    let lines = state.window.read(start)?;
    state.spool.full = !state.spool.share.grow(lines.len() as u64);
    if state.spool.full {
        return None;
    }
    let full = state.spool.segment;
    let last = state.spool.segments.back().filter(|last| last.end() == start && last.len < full);
    let (file, offset, number) =
        last.map_or((None, 0, 0), |last| (Some(Arc::clone(&last.lines)), last.len, last.regions.count()));
    state.spool.writing = true;
    Some(Move { file, header, start, offset, number, before: state.spool.last, lines })
}
