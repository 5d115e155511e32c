//! Volumes of recorders and buckets: a directory, or a small file system of its own that a test can fill.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tempfile::TempDir;

/// Gone with what is on it when this is dropped.
pub struct Volume {
    dir: TempDir,
    small: bool,
}

impl Volume {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), small: false }
    }

    /// One of so many megabytes in memory. Needs root.
    pub fn small(megabytes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(mount.unwrap().success(), "nothing can be mounted here");
        Self { dir, small: true }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let stat = statvfs(self.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Somebody else takes what is free but for so many bytes.
    pub fn leave(&self, bytes: u64) {
        let file = File::create(self.theirs()).unwrap();
        let (mut taken, mut step) = (0, self.free().saturating_sub(bytes));
        // Others may write meanwhile: what is not there in one piece is taken in smaller ones.
        while step >= 4096 {
            if self.free() >= bytes + step && fallocate(&file, FallocateFlags::empty(), taken, step).is_ok() {
                taken += step;
            } else {
                step /= 2;
            }
        }
    }

    /// And gives it back.
    pub fn give_back(&self) {
        std::fs::remove_file(self.theirs()).unwrap();
    }

    fn theirs(&self) -> PathBuf {
        self.path().join("theirs")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.small {
            // Whatever still holds a file there loses nothing that a test looks at any more.
            let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).status();
        }
    }
}
