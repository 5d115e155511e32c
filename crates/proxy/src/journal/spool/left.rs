//! Recordings that an earlier process could not ship. What it had put aside is shipped from where it begins; what it
//! had in memory alone is lost with it, and the recording says that it was interrupted.

use std::{
    fs,
    io::{self, BufReader, Read as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use podwitness_core::outcome::{End, Outcome};
use podwitness_wire::{
    cast::{Encoder, Event, Line},
    spool::{Block, Mac, RECORD, Regions},
};

use super::{
    super::{Budgets, Journal},
    Segment,
    folder::{Folder, Lines, Unusable, Waybill},
    seal::Head,
};

/// Bytes at the end of a file in which its last line is looked for; no line is longer.
const TAIL: u64 = 256 << 10;

/// Which places a spool reaches from and to, what it has of them, and its last line.
type Found = ((u64, u64), Vec<Segment>, Option<Vec<u8>>);

/// A journal of an earlier process, and who is to empty its folder.
pub(crate) struct Left {
    pub(crate) waybill: Waybill,
    pub(crate) journal: Journal,
    pub(crate) spooler: super::Spooler,
}

/// At most so many journals of earlier processes; those above it stay where they are. What cannot be read is removed, and
/// said.
pub(crate) fn left_behind(budgets: &Budgets, most: usize) -> Vec<Left> {
    let Some(dir) = &budgets.dir else { return vec![] };
    let mut heads = budgets.seals.as_ref().and_then(|seals| seals.left());
    let mut left = Vec::new();
    for path in fs::read_dir(dir.as_ref()).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
    {
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !is_folder {
            continue;
        }
        let head = heads.as_mut().map(|heads| heads.remove(&name));
        if left.len() < most {
            left.extend(resume(budgets, path, head));
            continue;
        }
        // It is there for a process after this one.
        budgets.incidents.too_many();
        if let (None, Some(seals)) = (&head, &budgets.seals)
            && let Err(error) = seals.seal(&name, false)
        {
            tracing::warn!(%error, session = name, "cannot note what waits in the spool");
        }
    }
    for (name, head) in heads.into_iter().flatten() {
        gone(budgets, &name, &head);
    }
    left
}

/// A folder, with what is known of it; `None` for where nothing is known of any folder.
fn resume(budgets: &Budgets, path: PathBuf, head: Option<Option<Head>>) -> Option<Left> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let head = match head {
        Some(Some(head)) => Some(head),
        None => None,
        Some(None) => {
            // No process of ours has put it there, or one had done with it.
            budgets.incidents.tampered(&name, 0);
            let _ = fs::remove_dir_all(path);
            return None;
        }
    };
    match read(budgets, path.clone(), head.as_ref()) {
        Ok(left) => return left,
        Err(Unusable::Tampered) => {}
        Err(Unusable::Io(error)) => {
            tracing::warn!(%error, folder = %path.display(), "a spool of an earlier process cannot be read");
        }
    }
    // No process could ever read it.
    let _ = fs::remove_dir_all(&path);
    if let Some(head) = head {
        gone(budgets, &name, &head);
    }
    None
}

/// A recording of which nothing can be shipped.
fn gone(budgets: &Budgets, name: &str, head: &Head) {
    if head.sealed && head.begin < head.end {
        budgets.incidents.tampered(name, head.end - head.begin);
    }
    if let Some(seals) = &budgets.seals {
        seals.resume(name, head).free();
    }
}

fn read(budgets: &Budgets, path: PathBuf, head: Option<&Head>) -> Result<Option<Left>, Unusable> {
    let (folder, files) = Folder::open(path, budgets.seals.as_ref(), head)?;
    let is_session = folder.waybill().events.is_none();
    let (reach, segments, last) = match head.filter(|head| head.sealed) {
        Some(head) => sealed(files, head)?,
        None => whole(files, is_session)?,
    };
    if reach.0 == reach.1 {
        folder.remove();
        return Ok(None);
    }
    let last = last.and_then(|last| Line::parse(&last).ok());
    let end = if is_session { end(last.as_ref()) } else { vec![] };
    let journal = Journal::resumed(budgets, folder.waybill(), reach, segments, &end);
    let waybill = folder.waybill().clone();
    Ok(Some(Left { waybill, spooler: super::Spooler::new(journal.clone(), folder), journal }))
}

/// What a sealed spool has of what it should have, each part as far as its index goes, and the last line. The parts are
/// checked when they are read; behind what is known to have been written there is at most a torn end.
fn sealed(files: Vec<(Lines, u64)>, head: &Head) -> io::Result<Found> {
    let starts: Vec<u64> = files.iter().skip(1).map(|(lines, _)| lines.start).chain([head.end]).collect();
    let mut segments = Vec::new();
    for ((lines, _), next) in files.into_iter().zip(starts) {
        let limit = next.min(head.end).saturating_sub(lines.start);
        if lines.start < head.begin || limit == 0 {
            continue;
        }
        segments.push(Segment::sealed(lines, limit)?);
    }
    let last = match segments.last().filter(|last| last.end() == head.end) {
        Some(last) => last.last_line()?,
        None => None,
    };
    Ok(((head.begin, head.end), segments, last))
}

/// What is missing behind the last line: nothing where the session had come to its end, and had its outcome.
fn end(last: Option<&Line>) -> Vec<u8> {
    let at = last.and_then(|last| Duration::try_from_secs_f64(last.at).ok()).unwrap_or_default();
    let mut lines = Vec::new();
    let outcome = match last.map(|last| &last.event) {
        Some(Event::Close(_)) => return lines,
        // The outcomes of any other kind are written together with the end.
        Some(Event::End(_)) => Outcome::RecordedLate,
        _ => {
            Encoder::new().end(&mut lines, at, End::Interrupted.as_str());
            Outcome::Cut
        }
    };
    Encoder::close(&mut lines, at, outcome.as_str());
    lines
}

/// Files that follow on each other, up to the last whole line, and that line, which can be read if it `is_session`'s.
fn whole(files: Vec<(Lines, u64)>, is_session: bool) -> io::Result<Found> {
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
    let reach = (segments.first().map_or(0, |s| s.lines.start), segments.last().map_or(0, Segment::end));
    Ok((reach, segments, last))
}

/// Where the last whole line ends, and what it says.
fn last_line(lines: &Lines, len: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let start = len.saturating_sub(TAIL);
    let mut tail = vec![0; usize::try_from(len - start).unwrap_or_default()];
    lines.read(&mut tail, start)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
    Ok(last_of(tail.get(..=end).unwrap_or_default()).map(|line| (start + end as u64 + 1, line)))
}

/// The last of some whole lines.
fn last_of(lines: &[u8]) -> Option<Vec<u8>> {
    lines.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next().map(<[u8]>::to_vec)
}

impl Segment {
    /// One of at most so many bytes, as its index has it.
    fn sealed(lines: Lines, limit: u64) -> io::Result<Self> {
        let Some(file) = lines.index() else { return Ok(Self::new(lines, 0)) };
        let mut index = BufReader::new(file);
        let mut first: Mac = [0; 32];
        let regions = match index.read_exact(&mut first) {
            Ok(()) => Regions::of(records(index), limit),
            Err(_) => Regions::default(),
        };
        Ok(Self { len: regions.len(), lines: Arc::new(lines), regions })
    }

    /// The last line, if it is what was written.
    fn last_line(&self) -> io::Result<Option<Vec<u8>>> {
        let Some(region) = self.len.checked_sub(1).and_then(|last| self.regions.at(last)) else {
            return Ok(None);
        };
        Ok(self.lines.checked(&region)?.and_then(|lines| last_of(&lines)))
    }
}

fn records(mut index: impl io::Read) -> impl Iterator<Item = Block> {
    let mut record = [0; RECORD];
    std::iter::from_fn(move || {
        index.read_exact(&mut record).ok()?;
        Block::of_record(&record)
    })
}
