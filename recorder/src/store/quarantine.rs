//! What cannot be read is moved aside, so that nobody stumbles over it twice.
//!
//! ```text
//! ROOT/quarantine/2026/08/01/CLUSTER/NAMESPACE/POD/SESSION.PART.cast   as it lay below the root
//! ```
//!
//! Nothing is removed: what is there is for people to look at. A file that cannot be moved either stays where it is, is
//! counted, and logged once.

use std::{
    collections::HashSet,
    fmt::Display,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{DIR_MODE, sync_directory};

/// Directory of what was moved aside, below the root.
pub const QUARANTINE: &str = "quarantine";
/// Files that could not be moved and whose names are remembered, so that each is logged once.
const REMEMBERED: usize = 1024;

/// Moves files aside. Clones share the count.
#[derive(Clone, Debug)]
pub struct Quarantine {
    root: PathBuf,
    taken: Arc<AtomicU64>,
    stuck: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Quarantine {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), taken: Arc::default(), stuck: Arc::default() }
    }

    /// Files found bad since this process began.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Moves a file of the store aside because of `why`. Whatever else is to be done does not wait for it to succeed.
    pub fn take(&self, path: &Path, why: &dyn Display) {
        match self.try_take(path) {
            Ok(aside) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(file = %path.display(), aside = %aside.display(), %why, "a file is quarantined");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
                if stuck.len() < REMEMBERED && stuck.insert(path.to_owned()) {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(file = %path.display(), %why, %error, "a bad file cannot be quarantined");
                }
            }
        }
    }

    /// Keeps bytes that are cut off a file, beside what else was moved aside.
    pub(super) fn keep(&self, path: &Path, bytes: &[u8], why: &dyn Display) -> io::Result<()> {
        let aside = self.place(path, "tail")?;
        let mut file = super::create_new(&aside)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(file = %path.display(), aside = %aside.display(), %why, "the end of a file is quarantined");
        Ok(())
    }

    fn try_take(&self, path: &Path) -> io::Result<PathBuf> {
        fs::symlink_metadata(path)?;
        let aside = self.place(path, "")?;
        fs::rename(path, &aside)?;
        for directory in [path.parent(), aside.parent()].into_iter().flatten() {
            sync_directory(directory)?;
        }
        Ok(aside)
    }

    /// A free name with what is needed above it.
    fn place(&self, path: &Path, suffix: &str) -> io::Result<PathBuf> {
        let below = path.strip_prefix(&self.root).map_err(io::Error::other)?;
        let mut aside = self.root.join(QUARANTINE).join(below);
        if let Some(parent) = aside.parent() {
            fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(parent)?;
        }
        if !suffix.is_empty() {
            aside.as_mut_os_string().push(format!(".{suffix}"));
        }
        if fs::symlink_metadata(&aside).is_ok() {
            aside.as_mut_os_string().push(format!(".{}", ulid::Ulid::new()));
        }
        Ok(aside)
    }
}
