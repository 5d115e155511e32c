//! One file of a recording while it is written.

use std::{
    fs::{self, File},
    io::{self, IoSlice, Write as _},
    path::{Path, PathBuf},
};

use super::{
    StoreError, create_new,
    layout::PartName,
    live::Held,
    meta::{End, Meta},
    shares::ShareKey,
    sync_directory,
    walk::Place,
};

/// A part that is being written. Without [`Part::finish`] its metadata has no end.
#[derive(Debug)]
pub struct Part {
    file: File,
    written: u64,
    directory: PathBuf,
    meta_name: String,
    meta: Meta,
    share: ShareKey,
    cast: PathBuf,
    /// Whose drop says that nobody writes it any more: after its end is in place.
    _writing: Option<Held>,
}

impl Part {
    pub(super) fn new(
        file: File,
        directory: PathBuf,
        name: &PartName,
        meta: Meta,
        writing: Option<Held>,
    ) -> Self {
        let cast = directory.join(name.cast());
        let share = ShareKey::of(&meta.owner);
        Self { file, written: 0, cast, directory, meta_name: name.meta(), meta, share, _writing: writing }
    }

    /// What is known of it.
    #[must_use]
    pub const fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Whose share of the volume it is of.
    #[must_use]
    pub const fn share(&self) -> &ShareKey {
        &self.share
    }

    /// The file of the recording.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.cast
    }

    /// Bytes that are durable.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Appends pieces; they are durable when this returns. After an error the file is as it was before, as far as the
    /// operating system lets it.
    ///
    /// # Errors
    /// Where the bytes cannot be written whole.
    pub fn append<P: AsRef<[u8]>>(&mut self, pieces: &[P]) -> Result<(), StoreError> {
        let appended = write_all(&mut self.file, pieces).and_then(|()| self.file.sync_data());
        if let Err(source) = appended {
            // A torn line would stand before whatever a reader finds next; failing here adds nothing to the report.
            let _ = self.file.set_len(self.written);
            return Err(StoreError::Io { action: "written", source });
        }
        let len: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        self.written = self.written.saturating_add(len as u64);
        Ok(())
    }

    /// Removes both files, of which one may not be there yet. Where that fails, recovery does it.
    pub(super) fn remove(self) {
        for path in [&self.cast, &self.directory.join(&self.meta_name)] {
            if let Err(error) = fs::remove_file(path) {
                tracing::debug!(%error, path = %path.display(), "an empty part is left");
            }
        }
    }

    /// Records how it ended.
    ///
    /// # Errors
    /// Where the metadata cannot be written; the recording itself is unharmed.
    pub fn finish(mut self, end: End) -> Result<(), StoreError> {
        self.meta.end = Some(End { bytes: self.written, ..end });
        self.publish()
    }

    /// Puts the metadata in place, whole, and makes the names durable.
    pub(super) fn publish(&self) -> Result<(), StoreError> {
        self.try_publish().map_err(|source| StoreError::Io { action: "described", source })
    }

    fn try_publish(&self) -> io::Result<()> {
        put(&self.directory, &self.meta_name, &serde_json::to_vec(&self.meta)?)
    }
}

/// Records how a part ended that another process left.
///
/// # Errors
/// Where the metadata cannot be written.
pub fn complete(place: &Place, meta: &Meta) -> io::Result<()> {
    put(&place.directory, &place.name.meta(), &serde_json::to_vec(meta)?)
}

/// Writes pieces one behind the other, many of them at once.
fn write_all<P: AsRef<[u8]>>(file: &mut File, pieces: &[P]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece.as_ref())).collect();
    let mut left = &mut slices[..];
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts a file in place, whole, and makes its name durable.
pub(super) fn put(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let beside = directory.join(format!(".{name}.new"));
    // Left by a crash between its creation and its renaming; nobody else writes this part.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create_new(&beside)?;
    let placed = file.write_all(content).and_then(|()| file.sync_data());
    let placed = placed.and_then(|()| fs::rename(&beside, directory.join(name)));
    if placed.is_err() {
        // Whoever is refused may never write this again; failing here adds nothing to the report.
        let _ = fs::remove_file(&beside);
    }
    placed?;
    sync_directory(directory)
}
