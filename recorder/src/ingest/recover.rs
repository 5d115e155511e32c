//! Completes what a process that died left open, and moves aside what cannot be read.
//!
//! A part without an end that nobody writes gets one: `interrupted`, with what its lines say. No byte of it is changed.
//! Bytes are acknowledged only when they are durable, and they are whole lines, so that what does not end in a whole line
//! was never acknowledged; it is left where it is, behind the end that the metadata names.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _},
    ops::ControlFlow,
    time::UNIX_EPOCH,
};

use podwitness_wire::cast::Header;
use rustix::fs::{FlockOperation, flock};

use super::intake::{Progress, look_at};
use crate::store::{
    Store, complete,
    meta::{End, Meta, Outcome},
    read_meta, times,
    walk::Place,
};

/// Read at a time.
const READ: usize = 256 << 10;
/// Cap on a stored line, which earlier versions took longer than they are taken now.
const MAX_STORED: usize = 1 << 20;

/// What was done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recovered {
    /// Parts that have an end now.
    pub completed: u64,
    /// Parts whose end could not be written; the next process tries again.
    pub failed: u64,
}

/// Completes every part of the store that a dead process left. Blocks.
///
/// # Errors
/// Where the store's root cannot be read.
pub fn recover(store: &Store) -> io::Result<Recovered> {
    let mut done = Recovered::default();
    store.resting(&mut |place| {
        match recover_part(store, &place) {
            Ok(false) => {}
            Ok(true) => done.completed = done.completed.saturating_add(1),
            Err(error) => {
                done.failed = done.failed.saturating_add(1);
                tracing::warn!(part = %place.cast().display(), %error, "an interrupted recording cannot be completed");
            }
        }
        ControlFlow::Continue(())
    })?;
    if done != Recovered::default() {
        tracing::info!(
            completed = done.completed,
            failed = done.failed,
            "interrupted recordings are completed"
        );
    }
    Ok(done)
}

/// True where the part had no end and has one now.
fn recover_part(store: &Store, place: &Place) -> io::Result<bool> {
    let mut meta = match read_meta(&place.meta()) {
        Ok(Meta { end: Some(_), .. }) => return Ok(false),
        Ok(meta) => meta,
        Err(error) => return undescribed(store, place, &error).map(|()| false),
    };
    let opened = OpenOptions::new().read(true).open(place.cast());
    let completed = opened.and_then(|file| {
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            // Another process writes it.
            return Ok(None);
        }
        end(&file, meta.facts.start).map(|end| Some((file, end)))
    });
    match completed {
        Ok(None) => Ok(false),
        Ok(Some((_locked, end))) => {
            meta.end = Some(end);
            complete(place, &meta)?;
            Ok(true)
        }
        Err(error) => {
            aside(store, place, &error);
            Ok(false)
        }
    }
}

/// Metadata stands before the first byte, so that an empty file without any is what a crash left of a part that nobody
/// was told of. Anything else was damaged.
fn undescribed(store: &Store, place: &Place, error: &io::Error) -> io::Result<()> {
    let cast = place.cast();
    if error.kind() == io::ErrorKind::NotFound && std::fs::metadata(&cast)?.len() == 0 {
        return std::fs::remove_file(&cast);
    }
    aside(store, place, error);
    Ok(())
}

fn aside(store: &Store, place: &Place, error: &io::Error) {
    store.quarantine().take(&place.cast(), error);
    store.quarantine().take(&place.meta(), error);
}

/// The end of a file that broke off, of a session that began at `start` (Unix seconds).
fn end(file: &File, start: i64) -> io::Result<End> {
    let about = file.metadata()?;
    let found = scan(file)?;
    let at = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    Ok(End {
        outcome: Outcome::Interrupted,
        message: "the recorder was interrupted".to_owned(),
        at,
        bytes: found.good,
        duration: times::duration(found.progress.at, start, at),
        exit: found.progress.exit,
        session_end: found.progress.end,
        session_outcome: found.progress.outcome,
        gap: found.progress.gap,
        torn: about.len().saturating_sub(found.good),
        damaged: found.damaged,
    })
}

/// What the lines of a file say.
#[derive(Debug, Default)]
struct Found {
    /// Bytes up to the end of the last good line.
    good: u64,
    /// Lines before it that are none.
    damaged: u64,
    progress: Progress,
}

/// Looks at every line. What is bad at the end is torn; what is bad between good lines is damage, and is kept with them.
fn scan(file: &File) -> io::Result<Found> {
    let mut reader = BufReader::with_capacity(READ, file);
    let (mut found, mut line, mut lines) = (Found::default(), Vec::new(), 0);
    let (mut at, mut bad) = (0_u64, 0_u64);
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_STORED as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(found);
        }
        at = at.saturating_add(read as u64);
        let good = if lines == 0 {
            lines = 1;
            Header::parse(&line).is_ok()
        } else {
            look_at(&line, MAX_STORED, &mut lines, &mut found.progress).is_ok()
        };
        if good {
            found.good = at;
            found.damaged = found.damaged.saturating_add(std::mem::take(&mut bad));
        } else {
            bad = bad.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests;
