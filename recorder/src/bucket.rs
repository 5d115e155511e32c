//! A bucket of object storage: what is put there is never replaced and never removed by us, so that a bucket whose
//! objects are locked serves as well as any.
//!
//! Errors say what to do about them by their [`Class`] and the server's code; what a server says beside its code and the
//! region or endpoint that it names is not repeated, because it may hold parts of a signature.

mod answer;
pub mod credentials;
mod error;
pub mod open;

pub use error::{BucketError, Class};

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::{
    Error, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, path::Path,
};

/// A bucket, and the prefix in it that is ours. Clones are the same.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// An object as a listing has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Object {
    /// Its key below the prefix.
    pub key: String,
    /// Its bytes.
    pub size: u64,
}

/// What became of a put.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "what was there before may be something else"]
pub enum Put {
    /// It is there now.
    Created,
    /// An object with this key was there before, and stands.
    Exists,
}

impl Bucket {
    /// What lies below `prefix` of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { store, prefix: Path::parse(prefix).unwrap_or_else(|_| Path::from(prefix)) }
    }

    /// Puts an object where none is.
    ///
    /// # Errors
    /// Where the bucket does not take it, or does not say that it did.
    pub async fn put(&self, key: &str, content: Bytes) -> Result<Put, BucketError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.path(key), PutPayload::from_bytes(content), options).await {
            Ok(_) => Ok(Put::Created),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Exists),
            Err(error) => Err(BucketError::new("put", key, &error)),
        }
    }

    /// An object of at most `most` bytes; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read, or is larger.
    pub async fn get(&self, key: &str, most: u64) -> Result<Option<Bytes>, BucketError> {
        let failed = |error: &Error| BucketError::new("get", key, error);
        let found = match self.store.get_opts(&self.path(key), GetOptions::default()).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        if found.meta.size > most {
            return Err(BucketError::too_large(key));
        }
        found.bytes().await.map(Some).map_err(|error| failed(&error))
    }

    /// Some bytes of an object; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn get_range(
        &self,
        key: &str,
        range: std::ops::Range<u64>,
    ) -> Result<Option<Bytes>, BucketError> {
        match self.store.get_range(&self.path(key), range).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(BucketError::new("get", key, &error)),
        }
    }

    /// Bytes of an object; `None` where there is none.
    ///
    /// # Errors
    /// Where that cannot be asked.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, BucketError> {
        match self.store.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(BucketError::new("head", key, &error)),
        }
    }

    /// At most `most` objects below a directory, in the order of their keys; behind `after` where that names one.
    ///
    /// # Errors
    /// Where the bucket cannot be listed.
    pub async fn list(
        &self,
        below: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Object>, BucketError> {
        let directory = self.path(below);
        let found = match after {
            Some(after) => self.store.list_with_offset(Some(&directory), &self.path(after)),
            None => self.store.list(Some(&directory)),
        };
        let found = found.take(most).map_ok(|meta| Object { key: self.key(&meta.location), size: meta.size });
        found.try_collect().await.map_err(|error| BucketError::new("list", below, &error))
    }

    /// Names of the directories in a directory.
    ///
    /// # Errors
    /// Where the bucket cannot be listed.
    pub async fn directories(&self, below: &str) -> Result<Vec<String>, BucketError> {
        let found = self.store.list_with_delimiter(Some(&self.path(below))).await;
        let found = found.map_err(|error| BucketError::new("list", below, &error))?;
        let names = found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned));
        Ok(names.collect())
    }

    /// What somebody else may do.
    #[cfg(test)]
    pub(crate) async fn remove_for_test(&self, key: &str) {
        self.store.delete(&self.path(key)).await.unwrap();
    }

    /// Keys are as they are: nothing of ours needs an escape.
    fn path(&self, key: &str) -> Path {
        let parts = self.prefix.as_ref().split('/').chain(key.split('/')).filter(|part| !part.is_empty());
        let raw: Vec<&str> = parts.collect();
        let raw = raw.join("/");
        Path::parse(&raw).unwrap_or_else(|_| Path::from(raw))
    }

    fn key(&self, path: &Path) -> String {
        let rest = path.as_ref().strip_prefix(self.prefix.as_ref()).unwrap_or_else(|| path.as_ref());
        rest.trim_start_matches('/').to_owned()
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
