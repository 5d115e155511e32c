//! Reading one generation of a directory that the kubelet writes.
//!
//! Its visible names are links through `..data`, whose target it swaps by rename (`pkg/volume/util/atomic_writer.go`).
//! Resolving that link once and reading below the result gives one generation; should the kubelet remove it
//! meanwhile, the next one is read. A directory without `..data` is read as it is.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

/// Name of the link to the present generation.
pub(super) const DATA: &str = "..data";

/// Caps: files of a volume, bytes of a file and of a volume, directories in one another. What a volume projects (a
/// ConfigMap, a Secret, a trust bundle) ends at 1 MiB each, and its keys are as many as the API server stores.
const MAX_FILES: usize = 4096;
const MAX_BYTES: u64 = 2 << 20;
const MAX_VOLUME: u64 = 16 << 20;
const MAX_DEPTH: usize = 8;
/// Generations that may vanish while we read.
const ATTEMPTS: usize = 5;

/// Contents by path within the volume.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Name of the present generation; `None` for a directory that is not written by the scheme.
pub(super) fn generation(dir: &Path) -> Option<PathBuf> {
    fs::read_link(dir.join(DATA)).ok()
}

/// Reads one generation. A directory without any file is taken for one that nobody has written yet, unless it is
/// written by the scheme.
pub(super) fn read(dir: &Path) -> io::Result<Files> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let generation = generation(dir);
        let root = generation.as_ref().map_or_else(|| dir.to_owned(), |generation| dir.join(generation));
        match read_all(&root) {
            Err(error) if error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => {}
            Ok(files) if files.is_empty() && generation.is_none() => return Err(ErrorKind::NotFound.into()),
            outcome => return outcome,
        }
    }
}

/// Paths of the files below `root`, relative to it.
pub(super) fn paths(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    find(&mut paths, root, root, 0)?;
    Ok(paths)
}

/// Reads one file within the cap.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(too_much("a file above 2 MiB"));
    }
    Ok(content)
}

fn read_all(root: &Path) -> io::Result<Files> {
    let (mut files, mut bytes) = (Files::new(), 0_u64);
    for path in paths(root)? {
        let content = read_file(&root.join(&path))?;
        bytes = bytes.saturating_add(content.len() as u64);
        if bytes > MAX_VOLUME {
            return Err(too_much("more than 16 MiB"));
        }
        files.insert(path, content);
    }
    Ok(files)
}

fn find(paths: &mut Vec<PathBuf>, root: &Path, dir: &Path, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(too_much("more than 8 directories in one another"));
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if is_kubelets_own(&path) {
            continue;
        }
        if fs::metadata(&path)?.is_dir() {
            find(paths, root, &path, depth.saturating_add(1))?;
            continue;
        }
        if paths.len() >= MAX_FILES {
            return Err(too_much("more than 4096 files"));
        }
        paths.push(path.strip_prefix(root).map_err(io::Error::other)?.to_owned());
    }
    Ok(())
}

/// Whether a name is part of the scheme and no file of the volume.
pub(super) fn is_kubelets_own(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
}

fn too_much(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, what)
}
