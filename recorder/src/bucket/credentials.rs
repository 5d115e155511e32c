//! Credentials out of a directory, read again, so that they can be rotated while the program runs.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use object_store::{CredentialProvider, Error, aws::AwsCredential};
use thiserror::Error;
use tokio::{sync::Mutex, time::Instant};

/// How long what was read is believed.
const FRESH: Duration = Duration::from_secs(5);
/// Files of the directory, named as the variables that they stand for.
const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// A file that cannot be read.
#[derive(Debug, Error)]
#[error("the credentials cannot be read from {path}; is the Secret mounted?")]
pub struct NoCredentials {
    path: PathBuf,
    source: io::Error,
}

/// A mounted Secret.
pub struct Directory {
    path: PathBuf,
    read: Mutex<Option<(Instant, Arc<AwsCredential>)>>,
}

impl Directory {
    /// The directory at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::default() }
    }

    async fn file(&self, name: &str) -> Result<String, NoCredentials> {
        let path = self.path.join(name);
        match tokio::fs::read_to_string(&path).await {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(source) => Err(NoCredentials { path, source }),
        }
    }

    async fn load(&self) -> Result<AwsCredential, NoCredentials> {
        let (key_id, secret_key) = (self.file(KEY_ID).await?, self.file(SECRET).await?);
        let token = match self.file(TOKEN).await {
            Ok(token) => Some(token).filter(|token| !token.is_empty()),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(AwsCredential { key_id, secret_key, token })
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Directory {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>, Error> {
        let mut read = self.read.lock().await;
        if let Some((at, credential)) = read.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(credential));
        }
        let loaded = self.load().await;
        let credential = loaded
            .map(Arc::new)
            .map_err(|source| Error::Generic { store: "S3", source: Box::new(source) })?;
        *read = Some((Instant::now(), Arc::clone(&credential)));
        Ok(credential)
    }
}
