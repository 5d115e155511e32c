//! Recordings that an earlier process could not ship. What it had put aside is shipped from where it begins; what it
//! had in memory alone is lost with it, and the recording says that it was interrupted.

use std::{fs, io, path::PathBuf, time::Duration};

use podwitness_core::outcome::{End, Outcome};
use podwitness_wire::cast::{Encoder, Event, Line};

use super::{
    super::{Budgets, Journal},
    Segment,
    folder::{Folder, Lines, Waybill},
};

/// Bytes at the end of a file in which its last line is looked for; no line is longer.
const TAIL: u64 = 256 << 10;

/// A journal of an earlier process, and who is to empty its folder.
pub(crate) struct Left {
    pub(crate) waybill: Waybill,
    pub(crate) journal: Journal,
    pub(crate) spooler: super::Spooler,
}

/// At most so many journals of earlier processes; what cannot be read is removed, and said.
pub(crate) fn left_behind(budgets: &Budgets, most: usize) -> Vec<Left> {
    let Some(dir) = &budgets.dir else { return vec![] };
    let Ok(entries) = fs::read_dir(dir.as_ref()) else { return vec![] };
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir());
    folders.take(most).filter_map(|path| resume(budgets, path)).collect()
}

fn resume(budgets: &Budgets, path: PathBuf) -> Option<Left> {
    match read(budgets, path.clone()) {
        Ok(left) => left,
        Err(error) => {
            tracing::warn!(%error, folder = %path.display(), "a spool of an earlier process cannot be read");
            // Nobody could ever read it.
            let _ = fs::remove_dir_all(path);
            None
        }
    }
}

fn read(budgets: &Budgets, path: PathBuf) -> io::Result<Option<Left>> {
    let (folder, files) = Folder::open(path)?;
    let is_session = folder.waybill().events.is_none();
    let (segments, last) = whole(files, is_session)?;
    let Some(last) = last else {
        folder.remove();
        return Ok(None);
    };
    let end = if is_session { Line::parse(&last).map(|last| end(&last)).unwrap_or_default() } else { vec![] };
    let journal = Journal::resumed(budgets, folder.waybill().header.clone(), segments, &end);
    let waybill = folder.waybill().clone();
    Ok(Some(Left { waybill, spooler: super::Spooler::new(journal.clone(), folder), journal }))
}

/// What is missing behind the last line: nothing where the session had come to its end, and had its outcome.
fn end(last: &Line) -> Vec<u8> {
    let at = Duration::try_from_secs_f64(last.at).unwrap_or_default();
    let mut lines = Vec::new();
    let outcome = match last.event {
        Event::Close(_) => return lines,
        // The outcomes of any other kind are written together with the end.
        Event::End(_) => Outcome::RecordedLate,
        _ => {
            Encoder::new().end(&mut lines, at, End::Interrupted.as_str());
            Outcome::Cut
        }
    };
    Encoder::close(&mut lines, at, outcome.as_str());
    lines
}

/// Files that follow on each other, up to the last whole line, and that line, which can be read if it `is_session`'s.
fn whole(files: Vec<(Lines, u64)>, is_session: bool) -> io::Result<(Vec<Segment>, Option<Vec<u8>>)> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut last = None;
    for (lines, len) in files {
        if segments.last().is_some_and(|before| before.end() != lines.start) {
            break;
        }
        let Some((len, line)) = last_line(&lines, len)? else { break };
        if is_session && Line::parse(&line).is_err() {
            break;
        }
        lines.cut(len)?;
        last = Some(line);
        segments.push(Segment::new(lines, len));
    }
    Ok((segments, last))
}

/// Where the last whole line ends, and what it says.
fn last_line(lines: &Lines, len: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let start = len.saturating_sub(TAIL);
    let mut tail = vec![0; usize::try_from(len - start).unwrap_or_default()];
    lines.read(&mut tail, start)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
    let line = tail.get(..end).unwrap_or_default().rsplit(|byte| *byte == b'\n').next();
    Ok(line.map(|line| (start + end as u64 + 1, line.to_vec())))
}
