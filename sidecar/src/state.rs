//! What outlives a restart of the sidecar in its pod: files in a memory volume that only the sidecar mounts.
//!
//! Invariant: private files are readable by us alone, and whole or absent.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use podwitness_tunnel::PrivateKey;
use thiserror::Error;

/// File of the tunnel's private key.
const TUNNEL_KEY: &str = "tunnel.key";
/// File of the last netmap.
pub const NETMAP: &str = "netmap.json";
/// Socket on which the log level is changed.
pub const LOG_SOCKET: &str = "log.sock";

/// The state volume cannot be used. No variant holds a key.
#[derive(Debug, Error)]
pub enum StateError {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// A file cannot be written.
    #[error("cannot write {0}; is the volume podwitness-state mounted there?")]
    Write(PathBuf, #[source] io::Error),
    /// No key can be made.
    #[error("cannot make a tunnel key")]
    Key(#[source] podwitness_tunnel::Error),
}

/// The tunnel key of this pod: the one that an earlier start left, else a new one.
///
/// # Errors
/// Where the file can neither be read nor written.
pub fn tunnel_key(dir: &Path) -> Result<PrivateKey, StateError> {
    let path = dir.join(TUNNEL_KEY);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim_end().parse() {
            Ok(key) => return Ok(key),
            Err(_) => {
                tracing::warn!(path = %path.display(), "the tunnel key is damaged; a new one takes its place");
            }
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(StateError::Read(path, error)),
    }
    let key = PrivateKey::generate().map_err(StateError::Key)?;
    store(&path, key.to_base64().as_bytes()).map_err(|error| StateError::Write(path, error))?;
    Ok(key)
}

fn store(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_restart_finds_its_key_again_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let key = tunnel_key(dir.path()).unwrap().public();
        assert_eq!(tunnel_key(dir.path()).unwrap().public(), key);
        let mode = fs::metadata(dir.path().join(TUNNEL_KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(TUNNEL_KEY), "half a ke").unwrap();
        let key = tunnel_key(dir.path()).unwrap().public();
        assert_eq!(tunnel_key(dir.path()).unwrap().public(), key);
    }

    #[test]
    fn a_missing_volume_is_an_error_that_names_the_file() {
        let error = tunnel_key(Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/tunnel.key"));
    }
}
