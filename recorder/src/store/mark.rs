//! Marks beside what is in the bucket too. Their names begin with a dot, so that readers leave them out.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{part, walk::Place};

const SHIPPED: &str = "shipped";
const NOTES: &str = "segments";

/// The file that says that a part is in the bucket, whole; it holds its directory there.
#[must_use]
pub fn path(place: &Place) -> PathBuf {
    place.directory.join(name(&place.name.cast()))
}

/// The file in which the segments of a part are noted until it is whole.
#[must_use]
pub fn notes(place: &Place) -> PathBuf {
    place.directory.join(format!(".{}.{}.{NOTES}", place.name.session(), place.name.part()))
}

/// The mark of a file.
#[must_use]
pub fn of_file(file: &Path) -> Option<PathBuf> {
    Some(file.with_file_name(name(file.file_name()?.to_str()?)))
}

fn name(file: &str) -> String {
    format!(".{file}.{SHIPPED}")
}

/// The file that a mark or a note is about, if it is one.
#[must_use]
pub fn subject(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_prefix('.')?;
    let file = match name.rsplit_once('.')? {
        (file, SHIPPED) => file.to_owned(),
        (part, NOTES) => format!("{part}.cast"),
        _ => return None,
    };
    Some(path.with_file_name(file))
}

/// Marks a part.
///
/// # Errors
/// Where the volume does not take it.
pub fn put(place: &Place, key: &str) -> io::Result<()> {
    part::put(&place.directory, &name(&place.name.cast()), key.as_bytes())
}

/// Marks any file.
///
/// # Errors
/// Where the volume does not take it.
pub fn put_file(file: &Path) -> io::Result<()> {
    let parts = file.parent().zip(file.file_name().and_then(|name| name.to_str()));
    let (directory, file) = parts.ok_or(io::ErrorKind::InvalidInput)?;
    part::put(directory, &name(file), b"")
}

/// What a part's mark holds, if it has one.
#[must_use]
pub fn read(place: &Place) -> Option<String> {
    fs::read_to_string(path(place)).ok()
}
