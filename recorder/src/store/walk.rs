//! Every part of a store, one directory at a time, so that a store of any size costs little memory.

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::layout::PartName;

/// Directories below a day: cluster, namespace, pod.
const MAX_DEPTH: usize = 4;

/// A part as it lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The directory.
    pub directory: PathBuf,
    /// The name.
    pub name: PartName,
}

impl Place {
    /// The recording.
    #[must_use]
    pub fn cast(&self) -> PathBuf {
        self.directory.join(self.name.cast())
    }

    /// Its metadata.
    #[must_use]
    pub fn meta(&self) -> PathBuf {
        self.directory.join(self.name.meta())
    }
}

/// Calls `visit` with every part below `root`, oldest day first, until it breaks. What cannot be read is left out.
///
/// # Errors
/// Where the root cannot be read.
pub fn walk(root: &Path, visit: &mut dyn FnMut(Place) -> ControlFlow<()>) -> io::Result<()> {
    for year in numbered(root)? {
        for month in numbered(&year).unwrap_or_default() {
            for day in numbered(&month).unwrap_or_default() {
                if below(&day, 0, visit).is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn below(path: &Path, depth: usize, visit: &mut dyn FnMut(Place) -> ControlFlow<()>) -> ControlFlow<()> {
    let Ok(entries) = fs::read_dir(path) else { return ControlFlow::Continue(()) };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let name = entry.file_name();
        if kind.is_dir() && depth < MAX_DEPTH {
            below(&entry.path(), depth.saturating_add(1), visit)?;
        } else if kind.is_file()
            && let Some(name) = name.to_str().and_then(|name| PartName::of_file(name, "cast"))
        {
            visit(Place { directory: path.to_owned(), name })?;
        }
    }
    ControlFlow::Continue(())
}

/// Directories whose names are numbers, smallest first.
fn numbered(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(path)?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
