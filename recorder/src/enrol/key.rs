//! The tunnel's private key in a file, so that a restarted recorder is still the peer that netmaps name.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use podwitness_tunnel::PrivateKey;
use thiserror::Error;

const FILE: &str = "tunnel.key";
/// A key is 44 characters and a newline.
const MAX_FILE: u64 = 64;

/// Why there is no key. No variant holds one.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// No randomness.
    #[error("cannot draw a tunnel key")]
    Draw(#[source] podwitness_tunnel::Error),
    /// The file cannot be used.
    #[error("cannot keep the tunnel key in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no key.
    #[error("{0} holds no tunnel key; remove it, and a new one is drawn")]
    Form(PathBuf),
}

/// The key in `directory`, made there where it is missing; a new one each time without a directory.
///
/// # Errors
/// Where the file cannot be read or written, or holds something else.
pub fn load_or_create(directory: Option<&Path>) -> Result<PrivateKey, KeyFileError> {
    let Some(directory) = directory else { return draw() };
    let path = directory.join(FILE);
    let failed = |source| KeyFileError::File { path: path.clone(), source };
    match File::open(&path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
            text.trim().parse().map_err(|_| KeyFileError::Form(path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = draw()?;
            keep(&path, &key).map_err(failed)?;
            Ok(key)
        }
        Err(error) => Err(failed(error)),
    }
}

fn draw() -> Result<PrivateKey, KeyFileError> {
    PrivateKey::generate().map_err(KeyFileError::Draw)
}

/// Whole or not at all: a torn key would keep the program from starting.
fn keep(path: &Path, key: &PrivateKey) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(key.to_base64().as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_kept_key_is_private_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(Some(dir.path())).unwrap().public();
        assert_eq!(load_or_create(Some(dir.path())).unwrap().public(), first);
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(load_or_create(None).unwrap().public(), first);
    }

    #[test]
    fn what_is_no_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "not a key").unwrap();
        assert!(matches!(load_or_create(Some(dir.path())), Err(KeyFileError::Form(_))));
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), "not a key");
    }
}
