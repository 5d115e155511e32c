//! Writing one generation of files the way the kubelet does (`pkg/volume/util/atomic_writer.go`): into a directory of
//! its own, to which the link `..data` is then swapped by rename; the visible names are links through `..data`.
//!
//! Invariant: whoever resolves `..data` once sees one whole generation. Permissions are those that admission found the
//! kubelet to give. The group is that of this process, root, unless the volume's directory hands on another (`fsGroup`:
//! the kubelet sets its set-group-ID bit). What did not change is a link to the file of the generation before, so that a
//! renewal takes no more room than what it renews.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use podwitness_core::inject::ServiceAccountDir;
use podwitness_runtime::clock::{Clock as _, SystemClock};

use super::source::{self, DATA, Files, is_kubelets_own};

const DATA_NEXT: &str = "..data_tmp";
const DIR_MODE: u32 = 0o755;
/// Lets what is made in a directory have its group (inode(7)).
const SET_GROUP_ID: u32 = 0o2000;
const PERMISSIONS: u32 = 0o7777;

/// What a volume is to hold.
pub(super) struct Content<'a> {
    /// The files.
    pub(super) files: &'a Files,
    /// Their permissions, and directories for the mounts of others.
    pub(super) dir: &'a ServiceAccountDir,
}

/// Makes `content` that of `target`; does nothing where it is already.
pub(super) fn write(target: &Path, content: &Content<'_>) -> io::Result<()> {
    let present = source::generation(target).map(|generation| target.join(generation));
    // What an attempt has left that failed takes room.
    remove_generations(target)?;
    make_mount_points(target, content)?;
    if !present.as_deref().is_some_and(|present| content.is_in(present)) {
        swap(target, present.as_deref(), content)?;
    }
    link_names(target, content)?;
    remove_generations(target)?;
    remove_names(target, content)
}

impl Content<'_> {
    fn mode(&self, name: &Path) -> u32 {
        name.to_str().and_then(|name| self.dir.modes.get(name)).copied().unwrap_or(self.dir.default_mode)
    }

    /// Whether a generation holds this and nothing else.
    fn is_in(&self, generation: &Path) -> bool {
        source::paths(generation).is_ok_and(|paths| {
            paths.len() == self.files.len()
                && self.files.iter().all(|(name, bytes)| self.is_file(&generation.join(name), name, bytes))
        })
    }

    fn is_file(&self, path: &Path, name: &Path, bytes: &[u8]) -> bool {
        fs::metadata(path).is_ok_and(|metadata| {
            metadata.permissions().mode() & PERMISSIONS == self.mode(name)
                && metadata.len() == bytes.len() as u64
        }) && source::read_file(path).is_ok_and(|there| there == bytes)
    }

    /// The names that are seen in the volume: the first part of each file's path.
    fn visible(&self) -> BTreeSet<OsString> {
        self.files.keys().filter_map(|name| first(name)).map(Into::into).collect()
    }

    /// Directories for the mounts of others, as far as no file has their name. The pod's author has named them: none is
    /// outside the volume, or part of the scheme.
    fn mount_points(&self) -> impl Iterator<Item = &Path> {
        let visible = self.visible();
        let paths = self.dir.mount_points.iter().map(Path::new);
        let paths = paths.filter(|path| path.components().all(|part| matches!(part, Component::Normal(_))));
        paths.filter(move |path| {
            first(path).is_some_and(|name| !visible.contains(name) && !is_kubelets_own(Path::new(name)))
        })
    }
}

fn first(path: &Path) -> Option<&OsStr> {
    path.components().next().map(Component::as_os_str)
}

fn swap(target: &Path, present: Option<&Path>, content: &Content<'_>) -> io::Result<()> {
    let mode = DIR_MODE | (fs::metadata(target)?.permissions().mode() & SET_GROUP_ID);
    let generation = new_generation(target, mode)?;
    if let Err(error) = fill(&generation, mode, present, content) {
        remove_if_there(&generation)?;
        return Err(error);
    }
    let next = target.join(DATA_NEXT);
    remove_if_there(&next)?;
    symlink(generation.file_name().unwrap_or_default(), &next)?;
    fs::rename(next, target.join(DATA))
}

fn fill(generation: &Path, mode: u32, present: Option<&Path>, content: &Content<'_>) -> io::Result<()> {
    for (name, bytes) in content.files {
        let path = generation.join(name);
        make_dirs(generation, name.parent(), mode)?;
        let before = present.map(|present| present.join(name));
        match before.filter(|before| content.is_file(before, name, bytes)) {
            Some(before) => fs::hard_link(before, &path)?,
            None => {
                fs::write(&path, bytes)?;
                fs::set_permissions(&path, Permissions::from_mode(content.mode(name)))?;
            }
        }
    }
    Ok(())
}

/// A directory under a name that was not there before.
fn new_generation(target: &Path, mode: u32) -> io::Result<PathBuf> {
    let now = SystemClock.now_unix_millis();
    for number in 0..100_u8 {
        let path = target.join(format!("..{now}.{number}"));
        match fs::create_dir(&path) {
            Ok(()) => {
                fs::set_permissions(&path, Permissions::from_mode(mode))?;
                return Ok(path);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Makes `dirs` below `root`, one in another.
fn make_dirs(root: &Path, dirs: Option<&Path>, mode: u32) -> io::Result<()> {
    let mut path = root.to_owned();
    for part in dirs.into_iter().flat_map(Path::components) {
        path.push(part);
        if !path.is_dir() {
            fs::create_dir(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// The kubelet does so for volumes that it writes itself, which are mounted read-only (`MakeNestedMountpoints`).
fn make_mount_points(target: &Path, content: &Content<'_>) -> io::Result<()> {
    let mode = DIR_MODE | (fs::metadata(target)?.permissions().mode() & SET_GROUP_ID);
    content.mount_points().try_for_each(|path| make_dirs(target, Some(path), mode))
}

/// The visible names: links through `..data`.
fn link_names(target: &Path, content: &Content<'_>) -> io::Result<()> {
    for name in content.visible() {
        let (link, to) = (target.join(&name), Path::new(DATA).join(&name));
        if fs::read_link(&link).is_ok_and(|there| there == to) {
            continue;
        }
        remove_if_there(&link)?;
        symlink(to, link)?;
    }
    Ok(())
}

/// Every generation but the present one.
fn remove_generations(target: &Path) -> io::Result<()> {
    let present = source::generation(target);
    for entry in fs::read_dir(target)? {
        let path = entry?.path();
        let name = path.file_name().map(Path::new);
        let keep = name == Some(Path::new(DATA)) && present.is_some() || name == present.as_deref();
        if is_kubelets_own(&path) && !keep {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Names that are gone.
fn remove_names(target: &Path, content: &Content<'_>) -> io::Result<()> {
    let mut keep = content.visible();
    keep.extend(content.mount_points().filter_map(|path| first(path)).map(OsString::from));
    for entry in fs::read_dir(target)? {
        let path = entry?.path();
        if !is_kubelets_own(&path) && !path.file_name().is_some_and(|name| keep.contains(name)) {
            remove_if_there(&path)?;
        }
    }
    Ok(())
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
