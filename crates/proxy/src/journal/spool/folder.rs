//! The folder of one session's spool: its waybill, and files of whole lines named by where they begin, each with its
//! index beside it. It outlives the process, and is gone when its recording is.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use podwitness_core::{grant::Obligation, identity::Caller, request_info::RequestInfo};
use podwitness_wire::{
    cast::Header,
    spool::{Block, MAX_BLOCK, Mac, Region, record_at},
};
use serde::{Deserialize, Serialize};

use super::seal::{Head, Seal, Seals};

const WAYBILL: &str = "waybill.json";
const LINES: &str = "lines";
const INDEX: &str = "macs";
/// Longest waybill that is read: a header and a request, each with a command that fills a request target.
const MAX_WAYBILL: u64 = 4 << 20;

/// What has to be known of a recording to ship it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Waybill {
    /// Id of the session.
    pub(crate) session: String,
    /// Whose session it is.
    pub(crate) caller: Caller,
    /// What was asked for.
    pub(crate) request: RequestInfo,
    /// How many processes had it before.
    pub(crate) process: u16,
    /// Its header, once there is one.
    pub(crate) header: Header,
    /// What the grants ask of its events, where it is no session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) events: Option<Obligation>,
}

/// A folder that is made when the first file is.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    waybill: Waybill,
    seals: Option<Arc<Seals>>,
    seal: Option<Arc<Seal>>,
    made: bool,
}

/// A file of lines, and its index where lines are sealed. It stays until it is removed.
#[derive(Debug)]
pub(super) struct Lines {
    file: File,
    path: PathBuf,
    /// Place of its first byte in the journal.
    pub(super) start: u64,
    pub(super) sealed: Option<Index>,
}

#[derive(Debug)]
pub(super) struct Index {
    file: File,
    seal: Arc<Seal>,
}

/// Why a folder of an earlier process is not taken.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It cannot be read.
    Io(io::Error),
    /// It is not what was put there.
    Tampered,
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Folder {
    pub(super) fn new(dir: &Path, waybill: Waybill, seals: Option<Arc<Seals>>) -> Self {
        Self { path: dir.join(&waybill.session), waybill, seals, seal: None, made: false }
    }

    /// What an earlier process left: its waybill and its files in order, with their lengths. Sealed, if it reaches as far
    /// as `head` says; else as it is found.
    pub(super) fn open(
        path: PathBuf,
        seals: Option<&Arc<Seals>>,
        head: Option<&Head>,
    ) -> Result<(Self, Vec<(Lines, u64)>), Unusable> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let seal = match (seals, head) {
            (Some(seals), Some(head)) => Some(seals.resume(name, head)),
            (Some(seals), None) => Some(seals.seal(name, false)?),
            (None, _) => None,
        };
        let seal = seal.map(Arc::new);
        let sealed = seal.as_ref().filter(|seal| seal.is_sealed());
        let mut waybill = read_waybill(&path, sealed)?;
        waybill.process = waybill.process.saturating_add(1);
        let mut files = fs::read_dir(&path)?
            .filter_map(|entry| Lines::reopen(&entry.ok()?.path(), sealed))
            // A sealed one that cannot be read is missing, as if it were gone.
            .filter(|file| file.is_ok() || sealed.is_none())
            .collect::<io::Result<Vec<_>>>()?;
        files.sort_by_key(|(lines, _)| lines.start);
        let folder = Self { path, waybill, seals: seals.cloned(), seal, made: true };
        folder.write_waybill()?;
        Ok((folder, files))
    }

    pub(super) const fn waybill(&self) -> &Waybill {
        &self.waybill
    }

    /// A file for the lines from `start` on, behind the block with that MAC. The waybill is there before it.
    pub(super) fn create(&mut self, start: u64, before: &Mac, header: &Header) -> io::Result<Lines> {
        if !self.made {
            self.waybill.header = header.clone();
            self.make()?;
        }
        let create =
            |path: &Path| OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
        let path = self.path.join(format!("{start:020}.{LINES}"));
        let file = create(&path)?;
        let sealed = match &self.seal {
            Some(seal) => {
                let index = create(&path.with_extension(INDEX))?;
                index.write_all_at(before, 0)?;
                seal.start(start)?;
                Some(Index { file: index, seal: Arc::clone(seal) })
            }
            None => None,
        };
        Ok(Lines { file, path, start, sealed })
    }

    fn make(&mut self) -> io::Result<()> {
        if let Some(seals) = &self.seals {
            self.seal = Some(Arc::new(seals.seal(&self.waybill.session, true)?));
        }
        let made = DirBuilder::new().mode(0o700).create(&self.path).and_then(|()| self.write_waybill());
        if let (Err(_), Some(seal)) = (&made, &self.seal) {
            seal.free();
        }
        self.made = made.is_ok();
        made
    }

    /// Removes the folder with everything in it.
    pub(super) fn remove(&self) {
        if let Some(seal) = &self.seal {
            // Whatever becomes of the folder from here on, nothing is missing.
            seal.release(u64::MAX);
        }
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, session = self.waybill.session, "cannot remove a spool that is done with");
            }
            _ => {
                if let Some(seal) = &self.seal {
                    seal.free();
                }
            }
        }
    }

    /// Renamed into place, so that no reader finds half of one. Its MAC stands behind it.
    fn write_waybill(&self) -> io::Result<()> {
        let new = self.path.join(format!("{WAYBILL}.new"));
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let mut text = serde_json::to_vec(&self.waybill)?;
        if let Some(seal) = self.seal.as_ref().filter(|seal| seal.is_sealed()) {
            let mac = STANDARD.encode(seal.mac_of_waybill(&text));
            text.push(b'\n');
            text.extend_from_slice(mac.as_bytes());
        }
        file.write_all(&text)?;
        fs::rename(new, self.path.join(WAYBILL))
    }
}

fn read_waybill(path: &Path, sealed: Option<&Arc<Seal>>) -> Result<Waybill, Unusable> {
    let mut text = Vec::new();
    let waybill = path.join(WAYBILL);
    let opened = if is_file(&waybill) { File::open(waybill) } else { Err(io::ErrorKind::NotFound.into()) };
    let read = opened.and_then(|file| file.take(MAX_WAYBILL).read_to_end(&mut text));
    // JSON has no line breaks of its own here. A process without the key, or with another one, reads what stands before
    // the MAC.
    let (json, mac) = match text.iter().position(|byte| *byte == b'\n') {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
        None => (text.as_slice(), &[][..]),
    };
    let Some(seal) = sealed else {
        read?;
        return Ok(serde_json::from_slice(json).map_err(io::Error::from)?);
    };
    let expected = STANDARD.encode(seal.mac_of_waybill(json));
    if read.is_err() || aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), mac).is_err() {
        return Err(Unusable::Tampered);
    }
    let waybill: Waybill = serde_json::from_slice(json).map_err(io::Error::from)?;
    if waybill.session == seal.session() { Ok(waybill) } else { Err(Unusable::Tampered) }
}

/// Whether it is a file and no way to another one.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

impl Lines {
    /// Writes lines at an offset, and gives the MAC of their block, which has that number, where they are sealed. Lines
    /// come first: what the process did not come to seal is a torn end.
    pub(super) fn write(&self, bytes: &[u8], offset: u64, number: u64, before: &Mac) -> io::Result<Mac> {
        self.file.write_all_at(bytes, offset)?;
        let Some(Index { file, seal }) = &self.sealed else { return Ok(*before) };
        let place = self.start + offset;
        let mac = seal.mac(place, before, bytes);
        let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= MAX_BLOCK);
        let len = len.ok_or(io::ErrorKind::FileTooLarge)?;
        file.write_all_at(&Block { len, mac }.to_record(), record_at(number))?;
        seal.extend(place + u64::from(len))?;
        Ok(mac)
    }

    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// The lines of a region; `None` where they are not what was written.
    pub(super) fn checked(&self, region: &Region) -> io::Result<Option<Vec<u8>>> {
        let Some(Index { file, seal }) = &self.sealed else { return Ok(None) };
        let [mut lines, mut index] =
            [region.len, region.index_len()].map(|len| vec![0; usize::try_from(len).unwrap_or_default()]);
        let read = self.read(&mut lines, region.offset);
        match read.and_then(|()| file.read_exact_at(&mut index, region.index_at())) {
            Ok(()) => Ok(Some(lines).filter(|lines| seal.holds(self.start + region.offset, &index, lines))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its index, to be read from the beginning.
    pub(super) fn index(&self) -> Option<&File> {
        self.sealed.as_ref().map(|index| &index.file)
    }

    /// Name of the recording, where that is known.
    pub(super) fn session(&self) -> &str {
        self.sealed.as_ref().map_or("", |index| index.seal.session())
    }

    /// Removes the file: what stands before `to` in the journal is not needed any more. Who reads it may go on.
    pub(super) fn remove(&self, to: u64) {
        if let Some(index) = &self.sealed {
            // Said first: whatever becomes of the file from here on, nothing is missing.
            index.seal.release(to);
            let _ = fs::remove_file(self.path.with_extension(INDEX));
        }
        // What cannot be removed is removed with its folder.
        let _ = fs::remove_file(&self.path);
    }

    /// Forgets what stands behind `len`.
    pub(super) fn cut(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// `None` for a path that is no file of lines.
    fn reopen(path: &Path, sealed: Option<&Arc<Seal>>) -> Option<io::Result<(Self, u64)>> {
        let name = path.file_name()?.to_str()?;
        let start = name.strip_suffix(LINES)?.strip_suffix('.')?.parse().ok()?;
        if name != format!("{start:020}.{LINES}") {
            return None;
        }
        if !is_file(path) {
            return None;
        }
        let existing = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let open = || {
            let file = existing(path)?;
            let len = file.metadata()?.len();
            let sealed = match sealed {
                Some(seal) => {
                    let path = path.with_extension(INDEX);
                    let index = if is_file(&path) {
                        existing(&path)?
                    } else {
                        // One that is gone is as good as an empty one.
                        let _ = fs::remove_file(&path);
                        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?
                    };
                    Some(Index { file: index, seal: Arc::clone(seal) })
                }
                None => None,
            };
            Ok((Self { file, path: path.to_owned(), start, sealed }, len))
        };
        Some(open())
    }
}
