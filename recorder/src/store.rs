//! Recordings on a volume: the only thing that ingest and view share.
//!
//! ```text
//! ROOT/2026/08/01/CLUSTER/NAMESPACE/POD/SESSION.PART.cast   the bytes of an upload, as they came
//! ROOT/2026/08/01/CLUSTER/NAMESPACE/POD/SESSION.PART.json   who made it, and how it ended: see `meta`
//! ROOT/events/                                              API events: see `events`
//! ROOT/quarantine/                                          what could not be read: see `quarantine`
//! ```
//!
//! Invariants: a `.cast` is created once, by one upload, and only ever appended to; nothing here removes or replaces
//! one that anybody was told of. Where it lies follows from a verified identity and the recorder's own clock, never from
//! what an upload says. An upload whose metadata has no `end` was cut off by a crash; the next process writes one, and
//! changes no byte of it.

pub mod events;
pub mod layout;
pub(crate) mod live;
pub mod mark;
pub mod meta;
mod part;
pub mod quarantine;
mod shares;
mod space;
pub mod times;
mod usage;
pub mod walk;

pub use part::{Part, complete};
pub use shares::{ShareKey, proportion};
use space::PART;
pub use space::{Space, SpaceLimits, SpaceReport};

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    ops::ControlFlow,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use events::EventLog;
use layout::PartName;
use live::Live;
use meta::{MAX_META, Meta, Owner};
use quarantine::Quarantine;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;
use walk::{Place, walk};

const DIR_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// Where recordings are kept. All calls block; run them where that is allowed.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    space: Space,
    live: Live,
    quarantine: Quarantine,
}

/// A recording that cannot be stored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The root cannot be used.
    #[error("recordings cannot be kept in {path}; is the volume mounted and writable for this user?")]
    Root {
        /// The root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The volume is nearly full.
    #[error("the volume of recordings has less than {floor} bytes free")]
    Full {
        /// What has to stay free.
        floor: u64,
    },
    /// The volume is full of files.
    #[error("the file system of recordings has hardly an inode free")]
    Inodes,
    /// There is space, but it is for others.
    #[error("the {owner} has more than its share of the volume of recordings: {used} bytes")]
    Share {
        /// Which pod or namespace.
        owner: String,
        /// Bytes that it has there.
        used: u64,
    },
    /// This part of this session was uploaded before.
    #[error("part {part} of session {session} is stored already")]
    Exists {
        /// The session.
        session: String,
        /// The part.
        part: u32,
    },
    /// It is on the volume, but is to be acknowledged only when the bucket has it.
    #[error("the bucket did not take everything in time")]
    Bucket,
    /// The operating system refused.
    #[error("the recording cannot be {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Store {
    /// Opens the store, making its root if need be, and proves that it can be written.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn open(root: impl Into<PathBuf>, floor: u64) -> Result<Self, StoreError> {
        Self::bounded(root, SpaceLimits::floor(floor))
    }

    /// The same within these limits. Where the volume has a size limit, what lies there is counted first.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn bounded(root: impl Into<PathBuf>, limits: SpaceLimits) -> Result<Self, StoreError> {
        let root = root.into();
        let unusable = |source| StoreError::Root { path: root.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(&root).map_err(unusable)?;
        let probe = root.join(format!(".probe-{}", ulid::Ulid::new()));
        create_new(&probe).and_then(|file| file.sync_all()).map_err(unusable)?;
        fs::remove_file(&probe).map_err(unusable)?;
        let (space, quarantine) = (Space::new(&root, limits), Quarantine::new(&root));
        if limits.size_limit.is_some() {
            space.measure_when_due();
        }
        Ok(Self { space, live: Live::default(), quarantine, root })
    }

    /// Where it lies.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where what cannot be read goes.
    #[must_use]
    pub const fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Calls `visit` with every part that this process does not write, oldest day first, until it breaks.
    ///
    /// # Errors
    /// Where the root cannot be read.
    pub fn resting(&self, visit: &mut dyn FnMut(Place) -> ControlFlow<()>) -> io::Result<()> {
        walk(&self.root, &mut |place| {
            if self.live.contains(&place.cast()) { ControlFlow::Continue(()) } else { visit(place) }
        })
    }

    /// What is known of the volume's free space.
    #[must_use]
    pub const fn space(&self) -> &Space {
        &self.space
    }

    /// Creates a part. `now` is in Unix seconds and gives the day under which it lies.
    ///
    /// # Errors
    /// Where the volume is nearly full, the owner has more than its share, or the part exists.
    pub fn create(&self, name: &PartName, meta: Meta, now: i64) -> Result<Part, StoreError> {
        let owner = ShareKey::of(&meta.owner);
        self.space.begin(&owner)?;
        self.place(name, meta, now).inspect_err(|_| self.space.refund(&owner, PART))
    }

    fn place(&self, name: &PartName, meta: Meta, now: i64) -> Result<Part, StoreError> {
        let directory = self.directory(&meta.owner, now)?;
        let writing = self.live.begin(directory.join(name.cast()));
        let file = create_new(&directory.join(name.cast())).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => {
                StoreError::Exists { session: name.session().to_owned(), part: name.part() }
            }
            _ => StoreError::Io { action: "created", source },
        })?;
        // So that no other process takes it for one that was left. Where locks are not kept there is no other either.
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        let part = Part::new(file, directory, name, meta, Some(writing));
        match part.publish() {
            Ok(()) => Ok(part),
            Err(error) => {
                part.remove();
                Err(error)
            }
        }
    }

    /// Appends pieces to a part; they are durable when this returns.
    ///
    /// # Errors
    /// Where the volume is nearly full, the part's owner has more than its share, or the bytes cannot be written whole.
    pub fn append<P: AsRef<[u8]>>(&self, part: &mut Part, pieces: &[P]) -> Result<(), StoreError> {
        let bytes: usize = pieces.iter().map(|piece| piece.as_ref().len()).fold(0, usize::saturating_add);
        let (owner, bytes) = (part.share().clone(), bytes as u64);
        self.space.charge(&owner, bytes)?;
        part.append(pieces).inspect_err(|_| self.space.refund(&owner, bytes))
    }

    /// Removes a part that is empty, because there was no room even for its header: it would be listed as a recording of
    /// which nothing can be shown.
    pub fn discard(&self, part: Part) {
        self.space.refund(part.share(), PART);
        part.remove();
    }

    /// Opens the table of events, to be written by this process alone.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn events(&self) -> Result<EventLog, StoreError> {
        EventLog::open(&self.root, self.quarantine.clone())
    }

    fn directory(&self, owner: &Owner, now: i64) -> Result<PathBuf, StoreError> {
        let failed = |source| StoreError::Io { action: "given a directory", source };
        let mut directory = self.root.clone();
        for component in layout::directory(owner, now) {
            let parent = directory.clone();
            directory.push(component);
            match fs::DirBuilder::new().mode(DIR_MODE).create(&directory) {
                Ok(()) => sync_directory(&parent).map_err(failed)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(directory)
    }
}

/// Reads metadata.
///
/// # Errors
/// Where there is none, or it is not what we write.
pub fn read_meta(path: &Path) -> io::Result<Meta> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_META as u64).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Creates a file that must not exist; a link in its place counts as existing.
fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Makes names in a directory survive a loss of power.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests;
