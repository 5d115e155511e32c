//! What goes wrong with a bucket, by what can be done about it.

use object_store::{
    Error,
    client::{HttpError, HttpErrorKind},
};
use thiserror::Error;

use super::answer::{Answer, chain};

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
    /// It is in another region, or behind another endpoint.
    Elsewhere,
    /// Its clock and ours are too far apart.
    Clock,
    /// It does not know a header that every object is put with.
    Unsupported,
    /// The key that it encrypts with cannot be used.
    Encryption,
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
    pub const ALL: [Self; 14] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Throttled,
        Self::Denied,
        Self::NoBucket,
        Self::Elsewhere,
        Self::Clock,
        Self::Unsupported,
        Self::Encryption,
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
            Self::Elsewhere => "elsewhere",
            Self::Clock => "clock",
            Self::Unsupported => "unsupported",
            Self::Encryption => "encryption",
            Self::Full => "full",
            Self::Server => "server",
            Self::Conflict => "conflict",
            Self::Credentials => "credentials",
            Self::Other => "other",
        }
    }

    /// What it is, and what to change.
    const fn hint(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "the endpoint cannot be reached: check storage.s3.endpoint and the way there"
            }
            Self::Timeout => "the endpoint did not answer in time",
            Self::Throttled => "the endpoint asks for fewer requests",
            Self::Denied => {
                "the credentials may not do this: allow them s3:PutObject, s3:GetObject and s3:ListBucket"
            }
            Self::NoBucket => "there is no such bucket: make it, or correct storage.s3.bucket",
            Self::Elsewhere => {
                "the bucket is in another region or behind another endpoint: correct storage.s3.region and \
                 storage.s3.endpoint"
            }
            Self::Clock => "the clocks of node and endpoint are too far apart: correct the wrong one",
            Self::Unsupported => "the endpoint does not know a header that objects are put with",
            Self::Encryption => {
                "the bucket's encryption key cannot be used: enable it, allow the credentials \
                 kms:GenerateDataKey and kms:Decrypt, or correct storage.s3.kmsKey"
            }
            Self::Full => "the bucket takes no more bytes: raise its quota, or remove what is old",
            Self::Server => "the endpoint failed",
            Self::Conflict => "the bucket holds something else under this key",
            Self::Credentials => "there are no credentials: name a Secret in storage.s3.credentials",
            Self::Other => "the endpoint's answer is not understood",
        }
    }
}

/// A request to a bucket that failed.
#[derive(Clone, Debug, Error)]
#[error("cannot {action} {key}: {}", self.reason())]
pub struct BucketError {
    action: &'static str,
    key: String,
    class: Class,
    answer: Answer,
}

impl BucketError {
    pub(super) fn new(action: &'static str, key: &str, error: &Error) -> Self {
        let answer = Answer::of(error);
        Self { action, key: key.to_owned(), class: class(error, &answer), answer }
    }

    /// An object that is larger than any of ours.
    pub(super) fn too_large(key: &str) -> Self {
        Self::of("get", key, Class::Conflict)
    }

    /// The bucket holds something else than what belongs under `key`.
    #[must_use]
    pub fn conflict(key: &str) -> Self {
        Self::of("put", key, Class::Conflict)
    }

    #[cfg(test)]
    pub(crate) fn test(class: Class) -> Self {
        Self::of("put", "key", class)
    }

    fn of(action: &'static str, key: &str, class: Class) -> Self {
        Self { action, key: key.to_owned(), class, answer: Answer::default() }
    }

    /// What went wrong.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// What went wrong, what to change, and what the server said: status and code.
    #[must_use]
    pub fn reason(&self) -> String {
        let Answer { status, code, wanted, .. } = &self.answer;
        let code = code.as_deref();
        let hint = code.and_then(advice).unwrap_or_else(|| self.class.hint());
        let wanted = wanted.as_ref().filter(|_| self.class == Class::Elsewhere);
        let wanted = wanted.map(|wanted| format!(", {wanted}")).unwrap_or_default();
        let status = status.map(|status| status.to_string());
        let said: Vec<&str> = status.as_deref().into_iter().chain(code).collect();
        let said = if said.is_empty() { String::new() } else { format!(" ({})", said.join(" ")) };
        format!("{hint}{wanted}{said}")
    }
}

/// What to change, where a code says more than its class.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "SignatureDoesNotMatch" => {
            "the secret key is not that of the access key: correct AWS_SECRET_ACCESS_KEY"
        }
        "InvalidAccessKeyId" => "the access key is not known: correct AWS_ACCESS_KEY_ID",
        "ExpiredToken" | "InvalidToken" => "the session token is not valid any more: renew the credentials",
        "NotImplemented" => {
            "the endpoint does not know If-None-Match, which every object is put with: use a version that does"
        }
        "InvalidRequest" => {
            "the endpoint does not take the request: where the bucket has Object Lock, let nothing on the way \
             remove x-amz-checksum-sha256"
        }
        _ => return None,
    })
}

fn class(error: &Error, answer: &Answer) -> Class {
    if let Some(http) = chain(error).find_map(|error| error.downcast_ref::<HttpError>()) {
        return match http.kind() {
            HttpErrorKind::Timeout => Class::Timeout,
            _ => Class::Unreachable,
        };
    }
    if chain(error).any(|error| error.is::<super::credentials::NoCredentials>()) {
        return Class::Credentials;
    }
    if let Some(class) = answer.code.as_deref().and_then(by_code) {
        return class;
    }
    match (error, answer.status) {
        _ if answer.redirects => Class::Elsewhere,
        _ if answer.no_checksum => Class::Unsupported,
        (_, Some(429 | 503)) => Class::Throttled,
        (_, Some(501)) => Class::Unsupported,
        (_, Some(507)) => Class::Full,
        (_, Some(500..)) => Class::Server,
        // The store asks for objects that are there, or puts them.
        (Error::NotFound { .. }, _) => Class::NoBucket,
        (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _) | (_, Some(401 | 403)) => {
            Class::Denied
        }
        _ => Class::Other,
    }
}

/// The class of a code that says more than its status.
fn by_code(code: &str) -> Option<Class> {
    Some(match code {
        _ if FULL.contains(&code) => Class::Full,
        _ if code.starts_with("KMS.") => Class::Encryption,
        "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "PermanentRedirect"
        | "TemporaryRedirect" => Class::Elsewhere,
        "RequestTimeTooSkewed" => Class::Clock,
        "NotImplemented" => Class::Unsupported,
        "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AccessDenied" => {
            Class::Denied
        }
        _ => return None,
    })
}
