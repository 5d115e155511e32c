//! One part on its way into the bucket.
//!
//! ```text
//! SESSIONS/…/SESSION.PART-RECEIVED/begin.json                    what is known at the beginning
//! SESSIONS/…/SESSION.PART-RECEIVED/00000000-0-1048501.cast.zst   segments: number, offset, length
//! SESSIONS/…/SESSION.PART-RECEIVED/manifest.json                 the end
//! ```
//!
//! Every put can be tried again: an object that is there already is read and compared. What was put is noted in a file
//! beside the part, which only spares asking: without it, the same segments are put again and found to be there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use thiserror::Error;
use tokio::task::spawn_blocking;

use super::{
    layout::{self, BEGIN, MANIFEST, Segment},
    manifest::{Entry, MAX_MANIFEST, Manifest, chain, hex, sha256},
    segment::{self, MAX_SEGMENT, MAX_STORED},
};
use crate::{
    bucket::{Bucket, BucketError, Put},
    store::{mark, meta::Meta, walk::Place},
};

/// Cap on the lines of the notes: that of segments.
const MAX_NOTES: usize = 1 << 20;
/// Cap on one of them.
const MAX_NOTE: u64 = 1024;
/// Read at a time where a file is read whole.
const READ: usize = 1 << 20;

/// A part that cannot be shipped now.
#[derive(Debug, Error)]
pub enum ShipError {
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The volume.
    #[error("{} cannot be read for the bucket", .path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A part and how much of it is in the bucket.
pub struct PartShip {
    bucket: Bucket,
    place: Place,
    /// Its directory in the bucket.
    key: String,
    begin: Bytes,
    begun: bool,
    shipped: u64,
    segments: u32,
    whole: Context,
}

impl PartShip {
    /// A part of which nothing was shipped yet, with what is known of it.
    ///
    /// # Errors
    /// Where that cannot be written down.
    pub fn new(bucket: Bucket, root: &Path, place: Place, meta: &Meta) -> Result<Self, ShipError> {
        let key = layout::directory(root, &place, meta.received);
        let begin = serde_json::to_vec(&Meta { end: None, ..meta.clone() });
        let begin = begin.map_err(|error| local(&place.meta(), error.into()))?.into();
        let whole = Context::new(&SHA256);
        Ok(Self { bucket, place, key, begin, begun: false, shipped: 0, segments: 0, whole })
    }

    /// The same, going on where the notes say that this or another process was.
    ///
    /// # Errors
    /// Where the part cannot be read.
    pub async fn resume(self) -> Result<Self, ShipError> {
        blocking(move || {
            let mut ship = self;
            let cast = ship.place.cast();
            ship.take_up().map_err(|source| local(&cast, source))?;
            Ok(ship)
        })
        .await
    }

    /// Where it lies.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Bytes that are in the bucket.
    #[must_use]
    pub const fn shipped(&self) -> u64 {
        self.shipped
    }

    /// Ships one segment of what is durable up to `limit`, where a line ends. Gives the bytes of the object.
    ///
    /// # Errors
    /// Where the bucket does not take it; the same is tried next time.
    pub async fn segment(&mut self, limit: u64) -> Result<u64, ShipError> {
        if !self.begun {
            self.begin = self.put(BEGIN, self.begin.clone(), same_meta).await?;
            self.begun = true;
        }
        let (place, offset) = (self.place.clone(), self.shipped);
        let most = limit.saturating_sub(offset).min(MAX_SEGMENT as u64);
        if most == 0 {
            return Ok(0);
        }
        let cast = place.cast();
        let all = offset.saturating_add(most) == limit;
        let (lines, stored) = blocking(move || cut_segment(&cast, offset, most, all)).await?;
        let length = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        let name = Segment { number: self.segments, offset, length }.to_string();
        let same = |found: &Bytes, _: &Bytes| segment::read(found.clone()).is_ok_and(|read| read == lines);
        let stored = self.put(&name, stored, same).await?;
        self.whole.update(&lines);
        self.shipped = offset.saturating_add(lines.len() as u64);
        self.segments = self.segments.saturating_add(1);
        let entry = Entry { name, stored: stored.len() as u64, sha256: sha256(&stored) };
        let path = self.notes_path();
        let size = entry.stored;
        // Without the note the segment is only asked for once more.
        let _ = blocking(move || note(&path, &entry).map_err(|source| local(&path, source))).await;
        Ok(size)
    }

    /// Closes the part, all of which is shipped, and marks it on the volume.
    ///
    /// # Errors
    /// Where the bucket does not take the manifest, or the volume the mark.
    pub async fn finish(mut self, meta: Meta) -> Result<(), ShipError> {
        let path = self.notes_path();
        let notes = self.notes().map_err(|source| local(&path, source))?;
        if notes.reached != self.shipped {
            // The volume did not take them all. Whoever resumes asks the bucket for the rest.
            return Err(local(&path, io::ErrorKind::UnexpectedEof.into()));
        }
        let entries = notes.entries;
        let manifest = Manifest {
            version: 1,
            meta,
            bytes: self.shipped,
            sha256: hex(self.whole.clone().finish().as_ref()),
            chain: chain(&self.begin, entries.iter()),
            segments: entries,
        };
        let whole = (manifest.bytes, manifest.sha256.clone());
        let text = serde_json::to_vec(&manifest).map_err(|error| local(&path, error.into()))?;
        let same = |found: &Bytes, _: &Bytes| {
            serde_json::from_slice::<Manifest>(found).is_ok_and(|found| (found.bytes, found.sha256) == whole)
        };
        self.put(MANIFEST, text.into(), same).await?;
        let place = self.place;
        blocking(move || {
            mark::put(&place, &self.key).map_err(|source| local(&place.cast(), source))?;
            // It has served.
            let _ = fs::remove_file(&path);
            Ok(())
        })
        .await
    }

    /// Puts an object, or finds `same` there already; gives what is there.
    async fn put(
        &mut self,
        name: &str,
        content: Bytes,
        same: impl FnOnce(&Bytes, &Bytes) -> bool,
    ) -> Result<Bytes, ShipError> {
        let key = format!("{}/{name}", self.key);
        if self.bucket.put(&key, content.clone()).await? == Put::Created {
            return Ok(content);
        }
        let found = self.bucket.get(&key, MAX_MANIFEST.max(MAX_STORED)).await?;
        // Gone again is as good as a failure: the next try tells.
        match found.filter(|found| *found == content || same(found, &content)) {
            Some(found) => Ok(found),
            None => Err(BucketError::conflict(&key).into()),
        }
    }

    /// Goes on behind the segments that were noted.
    fn take_up(&mut self) -> io::Result<()> {
        let notes = self.notes()?;
        if notes.torn {
            OpenOptions::new().write(true).open(self.notes_path())?.set_len(notes.length)?;
        }
        let mut file = BufReader::with_capacity(READ, File::open(self.place.cast())?).take(notes.reached);
        let mut read = 0_u64;
        loop {
            let chunk = file.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            self.whole.update(chunk);
            let length = chunk.len();
            read = read.saturating_add(length as u64);
            file.consume(length);
        }
        if read < notes.reached {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.begun = !notes.entries.is_empty();
        self.shipped = notes.reached;
        self.segments = u32::try_from(notes.entries.len()).unwrap_or(u32::MAX);
        Ok(())
    }

    /// The segments that were noted, as far as each goes on where the one before ends.
    fn notes(&self) -> io::Result<Notes> {
        let mut notes = Notes::default();
        let file = match File::open(self.notes_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(notes),
            file => file?,
        };
        let (mut reader, mut line) = (BufReader::new(file), Vec::new());
        for _ in 0..MAX_NOTES {
            line.clear();
            if reader.by_ref().take(MAX_NOTE).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if !line.ends_with(b"\n") || !notes.add(&line) {
                notes.torn = true;
                break;
            }
            notes.length = notes.length.saturating_add(line.len() as u64);
        }
        Ok(notes)
    }

    fn notes_path(&self) -> PathBuf {
        mark::notes(&self.place)
    }
}

impl std::fmt::Debug for PartShip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartShip")
            .field("key", &self.key)
            .field("shipped", &self.shipped)
            .finish_non_exhaustive()
    }
}

/// What the notes of a part hold.
#[derive(Debug, Default)]
struct Notes {
    entries: Vec<Entry>,
    /// Bytes of the recording that they are about.
    reached: u64,
    /// Bytes of their file that are good.
    length: u64,
    /// Whether there are others behind these.
    torn: bool,
}

impl Notes {
    /// Whether a line goes on where the ones before end.
    fn add(&mut self, line: &[u8]) -> bool {
        let Ok(entry) = serde_json::from_slice::<Entry>(line) else { return false };
        let Ok(segment) = entry.name.parse::<Segment>() else { return false };
        let next = segment.offset == self.reached && segment.number as usize == self.entries.len();
        if next {
            self.reached = self.reached.saturating_add(segment.length.into());
            self.entries.push(entry);
        }
        next
    }
}

/// Another version of this program may write the same in another way.
fn same_meta(found: &Bytes, ours: &Bytes) -> bool {
    let read = |text: &Bytes| serde_json::from_slice::<Meta>(text).ok();
    read(found).is_some_and(|found| read(ours) == Some(found))
}

/// Reads what one segment holds, and makes it.
fn cut_segment(cast: &Path, offset: u64, most: u64, all: bool) -> Result<(Bytes, Bytes), ShipError> {
    let read = || {
        let mut file = File::open(cast)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut lines = Vec::new();
        file.take(most).read_to_end(&mut lines)?;
        if (lines.len() as u64) < most {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        lines.truncate(segment::length(&lines, all));
        let stored = segment::make(&lines)?;
        Ok((lines.into(), stored))
    };
    read().map_err(|source| local(cast, source))
}

/// Notes a segment. A torn note ends what is read of them, and is written over.
fn note(path: &Path, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    OpenOptions::new().create(true).append(true).open(path)?.write_all(&line)
}

fn local(path: &Path, source: io::Error) -> ShipError {
    ShipError::Local { path: path.to_owned(), source }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ShipError> + Send + 'static,
) -> Result<T, ShipError> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(local(Path::new(""), io::Error::other(error))),
    }
}
