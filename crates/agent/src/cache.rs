//! The last snapshot in a file, so that a restarted program knows its recorders while the control plane is away.
//!
//! Invariant: the file is whole or absent (written beside, then renamed), private (0600), and believed only for the
//! key that it was written for. What cannot be read or written is reported and otherwise ignored.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use podwitness_core::control::{MAX_LINE, Netmap};
use serde::{Deserialize, Serialize};

/// Cap on the file; a longer one is not read.
const MAX_FILE: u64 = MAX_LINE as u64 + (64 << 10);

/// What is kept.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Snapshot {
    /// Key for which it was written.
    pub(crate) public_key: String,
    /// The netmap.
    pub(crate) netmap: Netmap,
    /// The assertion, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) assertion: Option<String>,
}

/// The snapshot in `path`; `None` where there is none or it is for another key.
pub(crate) fn load(path: &Path, public_key: &str) -> io::Result<Option<Snapshot>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text)?;
    let snapshot: Snapshot = serde_json::from_slice(&text)?;
    Ok((snapshot.public_key == public_key).then_some(snapshot))
}

/// Replaces the snapshot in `path`.
pub(crate) fn store(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(snapshot)?)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn snapshot(key: &str) -> Snapshot {
        let netmap = Netmap { generation: 7, ..Netmap::default() };
        Snapshot { public_key: key.into(), netmap, assertion: Some("a.b.c".into()) }
    }

    #[test]
    fn a_snapshot_survives_for_its_own_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netmap.json");
        assert!(load(&path, "k").unwrap().is_none());
        store(&path, &snapshot("k")).unwrap();
        assert_eq!(load(&path, "k").unwrap().unwrap().netmap.generation, 7);
        assert!(load(&path, "other").unwrap().is_none());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_broken_file_is_an_error_and_no_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netmap.json");
        fs::write(&path, "{\"publicKey\":").unwrap();
        assert!(load(&path, "k").is_err());
    }
}
