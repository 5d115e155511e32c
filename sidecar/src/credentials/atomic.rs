//! Writing one generation of files the way the kubelet does (`pkg/volume/util/atomic_writer.go`): into a directory of
//! its own, to which the link `..data` is then swapped by rename; the visible names are links through `..data`.
//!
//! Invariant: whoever resolves `..data` once sees one whole generation. Files are readable by every user, because a
//! container may run as any; only containers of this pod mount the volume, and read-only.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use podwitness_runtime::clock::{Clock as _, SystemClock};

use super::source::{self, DATA, Files, is_kubelets_own};

const DATA_NEXT: &str = "..data_tmp";
const DIR_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// Makes `files` the content of `target`; does nothing where they are already.
pub(super) fn write(target: &Path, files: &Files) -> io::Result<()> {
    let is_there = |files: &Files| source::read(target).is_ok_and(|there| there == *files);
    if fs::read_link(target.join(DATA)).is_err() || !is_there(files) {
        swap(target, files)?;
    }
    link_names(target, files)?;
    remove_rest(target, files)
}

fn swap(target: &Path, files: &Files) -> io::Result<()> {
    let generation = new_generation(target)?;
    for (name, content) in files {
        let path = generation.join(name);
        make_parents(&generation, name)?;
        fs::write(&path, content)?;
        fs::set_permissions(&path, Permissions::from_mode(FILE_MODE))?;
    }
    let next = target.join(DATA_NEXT);
    remove_if_there(&next)?;
    symlink(generation.file_name().unwrap_or_default(), &next)?;
    fs::rename(next, target.join(DATA))
}

/// A directory under a name that was not there before.
fn new_generation(target: &Path) -> io::Result<PathBuf> {
    let now = SystemClock.now_unix_millis();
    for number in 0..100_u8 {
        let path = target.join(format!("..{now}.{number}"));
        match fs::create_dir(&path) {
            Ok(()) => {
                fs::set_permissions(&path, Permissions::from_mode(DIR_MODE))?;
                return Ok(path);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn make_parents(generation: &Path, name: &Path) -> io::Result<()> {
    let mut path = generation.to_owned();
    for part in name.parent().into_iter().flat_map(Path::components) {
        path.push(part);
        if !path.is_dir() {
            fs::create_dir(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(DIR_MODE))?;
        }
    }
    Ok(())
}

/// The visible names: the first part of each file's path, a link through `..data`.
fn link_names(target: &Path, files: &Files) -> io::Result<()> {
    for name in visible(files) {
        let (link, to) = (target.join(&name), Path::new(DATA).join(&name));
        if fs::read_link(&link).is_ok_and(|there| there == to) {
            continue;
        }
        remove_if_there(&link)?;
        symlink(to, link)?;
    }
    Ok(())
}

/// Names that are gone, and every generation but the present one.
fn remove_rest(target: &Path, files: &Files) -> io::Result<()> {
    let (present, visible) = (fs::read_link(target.join(DATA))?, visible(files));
    for entry in fs::read_dir(target)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let keep =
            if is_kubelets_own(&path) { name == DATA || name == present } else { visible.contains(name) };
        if !keep {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

fn visible(files: &Files) -> BTreeSet<OsString> {
    files
        .keys()
        .filter_map(|name| name.components().next())
        .map(Component::as_os_str)
        .map(Into::into)
        .collect()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
