//! What goes wrong with a bucket, by what can be done about it.

use std::error::Error as StdError;

use object_store::{
    Error,
    client::{HttpError, HttpErrorKind},
};
use thiserror::Error;

/// Codes that say that a bucket takes no more bytes. Some servers give them a status that means something else: a quota
/// is often refused like a request that is not allowed.
const FULL: [&str; 5] = [
    "InsufficientStorage",
    "InsufficientStorageSpace",
    "QuotaExceeded",
    "XMinioAdminBucketQuotaExceeded",
    "XMinioStorageFull",
];

/// What went wrong.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Class {
    /// It could not be connected to, or hung up.
    Unreachable,
    /// It did not answer in time.
    Timeout,
    /// It wants fewer requests.
    Throttled,
    /// It does not know the credentials, or does not let them do this.
    Denied,
    /// There is no such bucket.
    NoBucket,
    /// It takes no more bytes.
    Full,
    /// It failed.
    Server,
    /// It holds something else under this key.
    Conflict,
    /// There are no credentials to ask with.
    Credentials,
    /// Anything else.
    Other,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Throttled,
        Self::Denied,
        Self::NoBucket,
        Self::Full,
        Self::Server,
        Self::Conflict,
        Self::Credentials,
        Self::Other,
    ];

    /// The name in log and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::NoBucket => "no_bucket",
            Self::Full => "full",
            Self::Server => "server",
            Self::Conflict => "conflict",
            Self::Credentials => "credentials",
            Self::Other => "other",
        }
    }

    const fn hint(self) -> &'static str {
        match self {
            Self::Unreachable => "the endpoint cannot be reached",
            Self::Timeout => "the endpoint did not answer in time",
            Self::Throttled => "the endpoint asks for fewer requests",
            Self::Denied => "the credentials are not known, or may not do this",
            Self::NoBucket => "there is no such bucket",
            Self::Full => "the bucket takes no more bytes",
            Self::Server => "the endpoint failed",
            Self::Conflict => "the bucket holds something else under this key",
            Self::Credentials => "there are no credentials",
            Self::Other => "the endpoint's answer is not understood",
        }
    }
}

/// A request to a bucket that failed.
#[derive(Clone, Debug, Error)]
#[error("cannot {action} {key}: {}{}", .class.hint(), status_text(*.status))]
pub struct BucketError {
    action: &'static str,
    key: String,
    class: Class,
    status: Option<u16>,
}

impl BucketError {
    pub(super) fn new(action: &'static str, key: &str, error: &Error) -> Self {
        let status = status(error);
        Self { action, key: key.to_owned(), class: class(error, status), status }
    }

    /// An object that is larger than any of ours.
    pub(super) fn too_large(key: &str) -> Self {
        Self { action: "get", key: key.to_owned(), class: Class::Conflict, status: None }
    }

    /// The bucket holds something else than what belongs under `key`.
    #[must_use]
    pub fn conflict(key: &str) -> Self {
        Self { action: "put", key: key.to_owned(), class: Class::Conflict, status: None }
    }

    #[cfg(test)]
    pub(crate) fn test(class: Class) -> Self {
        Self { action: "put", key: "key".to_owned(), class, status: None }
    }

    /// What went wrong.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }
}

fn status_text(status: Option<u16>) -> String {
    status.map(|status| format!(" ({status})")).unwrap_or_default()
}

fn class(error: &Error, status: Option<u16>) -> Class {
    if let Some(http) = chain(error).find_map(|error| error.downcast_ref::<HttpError>()) {
        return match http.kind() {
            HttpErrorKind::Timeout => Class::Timeout,
            _ => Class::Unreachable,
        };
    }
    if chain(error).any(|error| error.is::<super::credentials::NoCredentials>()) {
        return Class::Credentials;
    }
    if code(error).is_some_and(|code| FULL.contains(&code.as_str())) {
        return Class::Full;
    }
    match (error, status) {
        (_, Some(429 | 503)) => Class::Throttled,
        (_, Some(507)) => Class::Full,
        (_, Some(500..)) => Class::Server,
        // The store asks for objects that are there, or puts them.
        (Error::NotFound { .. }, _) => Class::NoBucket,
        (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _) | (_, Some(400..=403)) => {
            Class::Denied
        }
        _ => Class::Other,
    }
}

/// The status of the last answer. The crate keeps it to itself, but for what it prints.
fn status(error: &Error) -> Option<u16> {
    chain(error).find_map(|error| {
        let text = error.to_string();
        let (_, rest) = text.split_once("status code: ")?;
        rest.get(..3)?.parse().ok()
    })
}

/// The code in the body of the last answer.
fn code(error: &Error) -> Option<String> {
    chain(error).find_map(|error| {
        let text = error.to_string();
        let (_, rest) = text.split_once("<Code>")?;
        rest.split_once("</Code>").map(|(code, _)| code.to_owned())
    })
}

fn chain(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let first: &(dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |error| (*error).source())
}
