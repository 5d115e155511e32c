//! One file of events while it is written, and what is left of one after a crash.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use podwitness_wire::pack::{self, Unpacker};
use rustix::fs::{FlockOperation, flock};
use ulid::Ulid;

use super::{
    super::{create_new, layout::Hour, quarantine::Quarantine, sync_directory},
    Draft, TABLE,
};

const EXTENSION: &str = "ndjson.zst";
/// Cap on the end of a file that is kept aside: above the largest file.
const MAX_TAIL: u64 = 128 << 20;
/// Bytes that are read at a time when a file is recovered.
const READ: usize = 64 << 10;

/// A file that is locked until this is dropped.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    path: PathBuf,
    hour: Hour,
    name: Ulid,
    len: u64,
    lines: u64,
}

impl OpenFile {
    /// A new file in `directory`.
    pub(super) fn create(directory: &Path, hour: Hour) -> io::Result<Self> {
        let name = Ulid::new();
        let path = directory.join(format!("{hour}.{name}.{EXTENSION}"));
        let file = create_new(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        sync_directory(directory)?;
        Ok(Self { file, path, hour, name, len: 0, lines: 0 })
    }

    /// A file that a crash left, without what was torn, which is kept aside. `None` where it is none of ours, or
    /// another process writes it.
    pub(super) fn recover(path: &Path, quarantine: &Quarantine) -> io::Result<Option<Self>> {
        let named = path.file_name().and_then(|name| name.to_str()).and_then(parse);
        let Some((hour, name)) = named else { return Ok(None) };
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let len = whole(&mut file)?;
        // A torn write looks like a damaged one, and behind the damage there may be what was acknowledged.
        file.seek(SeekFrom::Start(len))?;
        let mut tail = Vec::new();
        (&mut file).take(MAX_TAIL).read_to_end(&mut tail)?;
        if !tail.is_empty() {
            match quarantine.keep(path, &tail, &"it holds no whole frame of events") {
                // Without room to keep it aside the file stays as it is, until the next start.
                Err(error) if is_full(&error) => return Ok(None),
                kept => kept?,
            }
            file.set_len(len)?;
            file.sync_data()?;
        }
        Ok(Some(Self { file, path: path.to_owned(), hour, name, len, lines: 0 }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn hour(&self) -> Hour {
        self.hour
    }

    /// Bytes, compressed.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn published_name(&self) -> String {
        format!("{}.{EXTENSION}", self.name)
    }

    /// Appends events, durably, and gives their ids. After an error the file may end with torn ones.
    pub(super) fn append<'a>(&mut self, events: impl Iterator<Item = &'a Draft>) -> io::Result<Vec<String>> {
        let [date, hour] = self.hour.partition();
        let place = format!("{TABLE}/{date}/{hour}/{}", self.published_name());
        let (mut text, mut ids) = (Vec::new(), Vec::new());
        for (event, line) in events.zip(self.lines..) {
            let id = format!("{place}#{line}");
            event.write(&id, &mut text);
            ids.push(id);
        }
        let packed = packed(&text)?;
        self.file.write_all(&packed).and_then(|()| self.file.sync_data())?;
        self.len = self.len.saturating_add(packed.len() as u64);
        self.lines = self.lines.saturating_add(ids.len() as u64);
        Ok(ids)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The lines in frames.
fn packed(mut lines: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((frame, rest)) =
        lines.split_at_checked(pack::cut(lines)).filter(|(frame, _)| !frame.is_empty())
    {
        out.extend_from_slice(&pack::pack(frame).map_err(io::Error::other)?);
        lines = rest;
    }
    Ok(out)
}

/// How many bytes from the beginning are frames that end with a line.
fn whole(file: &mut File) -> io::Result<u64> {
    let (mut unpacker, mut fed, mut good) = (Unpacker::new(), 0_u64, 0);
    loop {
        let mut chunk = Vec::with_capacity(READ);
        if (&mut *file).take(READ as u64).read_to_end(&mut chunk)? == 0 {
            return Ok(good);
        }
        fed = fed.saturating_add(chunk.len() as u64);
        let mut chunk = Bytes::from(chunk);
        loop {
            match unpacker.unpack(&mut chunk) {
                Ok(Some(lines)) if lines.ends_with(b"\n") => {
                    good = fed.saturating_sub(chunk.len() as u64);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return Ok(good),
            }
        }
    }
}

/// Reads a name in the directory of open files back.
fn parse(name: &str) -> Option<(Hour, Ulid)> {
    let (hour, name) = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.rsplit_once('.')?;
    Some((hour.parse().ok()?, name.parse().ok()?))
}
