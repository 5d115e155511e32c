//! Removes marks and notes of files that are gone: a process that dies while it removes a file leaves them, and nothing else
//! looks for them. Once for each process, because a process that lives removes both.

use std::{fs, path::Path};

use super::{Shipper, part::blocking};
use crate::store::mark;

/// Directories below the root: year, month, day, cluster, namespace, pod; those of events are fewer.
const MAX_DEPTH: usize = 8;

/// Looks at the whole volume. What cannot be read or removed is left for the next process.
pub(super) async fn remove(shipper: &Shipper) {
    let root = shipper.store.root().to_owned();
    let removed = blocking(move || Ok(remove_below(&root, 0))).await.unwrap_or_default();
    if removed > 0 {
        tracing::info!(removed, "marks of files that are gone were removed");
    }
}

fn remove_below(directory: &Path, depth: usize) -> usize {
    let mut removed = 0_usize;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_dir() && depth < MAX_DEPTH {
            removed = removed.saturating_add(remove_below(&path, depth.saturating_add(1)));
        } else if kind.is_file()
            && let Some(file) = mark::subject(&path)
            && matches!(file.try_exists(), Ok(false))
            && fs::remove_file(&path).is_ok()
        {
            removed = removed.saturating_add(1);
        }
    }
    removed
}
