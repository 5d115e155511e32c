//! The folder of one session's spool: its waybill, and files of whole lines named by where they begin. It outlives the
//! process, and is gone when its recording is.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use podwitness_core::{grant::Obligation, identity::Caller, request_info::RequestInfo};
use podwitness_wire::cast::Header;
use serde::{Deserialize, Serialize};

const WAYBILL: &str = "waybill.json";
const ENDING: &str = "lines";
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
    made: bool,
}

/// A file of lines; removed when it is dropped.
#[derive(Debug)]
pub(super) struct Lines {
    file: File,
    path: PathBuf,
    /// Place of its first byte in the journal.
    pub(super) start: u64,
}

impl Folder {
    pub(super) fn new(dir: &Path, waybill: Waybill) -> Self {
        Self { path: dir.join(&waybill.session), waybill, made: false }
    }

    /// What an earlier process left: its waybill and its files in order, with their lengths.
    pub(super) fn open(path: PathBuf) -> io::Result<(Self, Vec<(Lines, u64)>)> {
        let mut text = Vec::new();
        File::open(path.join(WAYBILL))?.take(MAX_WAYBILL).read_to_end(&mut text)?;
        let mut waybill: Waybill = serde_json::from_slice(&text)?;
        waybill.process = waybill.process.saturating_add(1);
        let mut files = fs::read_dir(&path)?
            .filter_map(|entry| Lines::reopen(&entry.ok()?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        files.sort_by_key(|(lines, _)| lines.start);
        let folder = Self { path, waybill, made: true };
        folder.write_waybill()?;
        Ok((folder, files))
    }

    pub(super) const fn waybill(&self) -> &Waybill {
        &self.waybill
    }

    /// A file for the lines from `start` on. The waybill is there before it.
    pub(super) fn create(&mut self, start: u64, header: &Header) -> io::Result<Lines> {
        if !self.made {
            DirBuilder::new().mode(0o700).create(&self.path)?;
            self.waybill.header = header.clone();
            self.write_waybill()?;
            self.made = true;
        }
        let path = self.path.join(format!("{start:020}.{ENDING}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Lines { file, path, start })
    }

    /// Removes the folder with everything in it.
    pub(super) fn remove(&self) {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, session = self.waybill.session, "cannot remove a spool that is done with");
            }
            _ => {}
        }
    }

    /// Renamed into place, so that nobody finds half of one.
    fn write_waybill(&self) -> io::Result<()> {
        let new = self.path.join(format!("{WAYBILL}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(&self.waybill)?)?;
        fs::rename(new, self.path.join(WAYBILL))
    }
}

impl Lines {
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Forgets what stands behind `len`.
    pub(super) fn cut(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// `None` for a path that is no file of lines.
    fn reopen(path: &Path) -> Option<io::Result<(Self, u64)>> {
        let name = path.file_name()?.to_str()?;
        let start = name.strip_suffix(ENDING)?.strip_suffix('.')?.parse().ok()?;
        let open = || {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let len = file.metadata()?.len();
            Ok((Self { file, path: path.to_owned(), start }, len))
        };
        Some(open())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // What cannot be removed is removed with its folder.
        let _ = fs::remove_file(&self.path);
    }
}
