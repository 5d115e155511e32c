//! How much of the volume everything takes that lies there, and whose it is.
//!
//! Counted as the kubelet counts an emptyDir: blocks of files and directories, not lengths (`k8s.io/kubernetes`,
//! `pkg/volume/util/fs/fs.go`, `DiskUsage`).

use std::{collections::HashMap, fs, io, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use super::{
    events::TABLE,
    shares::{KNOWN, ShareKey, forget_least},
};

/// Bytes of a block of `st_blocks`, whatever those of the file system are.
const BLOCK: u64 = 512;
/// Directories below one another that are looked into: more than the store makes.
const MAX_DEPTH: usize = 12;
/// Directories of a date.
const DATE: usize = 3;

/// Bytes by what they are.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Everything.
    pub(super) total: u64,
    /// The table of events, which is of all owners.
    pub(super) events: u64,
    /// Recordings, by namespace.
    pub(super) namespaces: HashMap<Arc<str>, u64>,
    /// The same, by pod.
    pub(super) pods: HashMap<Arc<str>, u64>,
}

impl Usage {
    /// Counts what lies below `root`. What cannot be read, or goes meanwhile, is left out. Blocks.
    ///
    /// # Errors
    /// Where the root cannot be read.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        let mut usage = Self::default();
        fs::read_dir(root)?;
        usage.directory(root, &mut Vec::new());
        Ok(usage)
    }

    /// An owner has these, too.
    pub(super) fn add(&mut self, key: &ShareKey, bytes: u64) {
        for (of, name) in [(&mut self.namespaces, key.namespace()), (&mut self.pods, key.pod())] {
            let one = of.entry(Arc::clone(name)).or_default();
            *one = one.saturating_add(bytes);
            if of.len() > KNOWN.saturating_mul(2) {
                forget_least(of, KNOWN, |bytes| *bytes);
            }
        }
    }

    /// A directory and all below it; `names` lead from the root to it.
    fn directory(&mut self, path: &Path, names: &mut Vec<String>) {
        let mut bytes = fs::symlink_metadata(path).map_or(0, |about| about.blocks().saturating_mul(BLOCK));
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            if !about.is_dir() {
                bytes = bytes.saturating_add(about.blocks().saturating_mul(BLOCK));
            } else if names.len() < MAX_DEPTH {
                names.push(entry.file_name().to_string_lossy().into_owned());
                self.directory(&entry.path(), names);
                names.pop();
            }
        }
        self.found(names, bytes);
    }

    fn found(&mut self, names: &[String], bytes: u64) {
        self.total = self.total.saturating_add(bytes);
        let number = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
        if names.first().is_some_and(|first| first == TABLE) {
            self.events = self.events.saturating_add(bytes);
        } else if let Some((date, owner)) = names.split_at_checked(DATE)
            && date.iter().all(number)
            && let Some(key) = ShareKey::below(owner)
        {
            self.add(&key, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        layout,
        meta::{Owner, Pod},
    };

    #[test]
    fn what_lies_there_is_counted_in_blocks_and_by_owner() {
        let dir = tempfile::tempdir().unwrap();
        let owner = |namespace: &str, pod: &str| {
            Owner::Pod(Pod {
                cluster: "c".into(),
                namespace: namespace.into(),
                pod: pod.into(),
                ..Pod::default()
            })
        };
        let write = |owner: &Owner, name: &str, length: usize| {
            let at =
                layout::directory(owner, 0).iter().fold(dir.path().to_owned(), |path, one| path.join(one));
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join(name), vec![1; length]).unwrap();
        };
        let (till, desk, vault) = (owner("shop", "till"), owner("shop", "desk"), owner("bank", "vault"));
        write(&till, "a.0.cast", 100_000);
        write(&till, "a.0.json", 1);
        write(&desk, "b.0.cast", 10_000);
        write(&vault, "c.0.cast", 1_000_000);
        fs::create_dir_all(dir.path().join("events/.open")).unwrap();
        fs::write(dir.path().join("events/.open/x"), vec![1; 50_000]).unwrap();
        fs::create_dir_all(dir.path().join("quarantine")).unwrap();
        fs::write(dir.path().join("quarantine/y"), vec![1; 70_000]).unwrap();

        let usage = Usage::of(dir.path()).unwrap();
        let pod = |owner: &Owner| usage.pods[ShareKey::of(owner).pod()];
        let namespace = |owner: &Owner| usage.namespaces[ShareKey::of(owner).namespace()];
        assert!(pod(&till) >= 101_000 && pod(&till) < 150_000, "{}", pod(&till));
        assert!(namespace(&till) >= pod(&till) + pod(&desk), "its directory counts, too");
        assert_eq!(namespace(&till), namespace(&desk));
        assert!(pod(&vault) >= 1_000_000 && usage.events >= 50_000 && usage.events < 100_000);
        let parts = namespace(&till) + namespace(&vault) + usage.events;
        assert!(usage.total >= parts + 70_000, "{} of {parts}", usage.total);
        assert!(Usage::of(&dir.path().join("none")).is_err());
    }
}
