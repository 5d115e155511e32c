//! What a recording knows of output that it does not hold.

use serde::{Deserialize, Serialize};

use super::Stream;

/// The text of an `x-sum` line, as JSON.
///
/// Without a member it is about the stream from its beginning up to here: so many bytes with this hash, of which so many
/// are not in the recording. With one it is about the content of that member of an archive: twice, where it is long; the
/// first time without a hash.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sum {
    /// Name of the stream.
    pub stream: String,
    /// Path of a member, as the archive has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// What that points to, if it is a link.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub link: String,
    /// Bytes that its header announces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes that came and are not in the recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u64>,
    /// SHA-256 of the bytes that came, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

impl Sum {
    /// Nothing of a stream.
    #[must_use]
    pub fn of(stream: Stream) -> Self {
        Self { stream: stream.as_str().to_owned(), ..Self::default() }
    }
}
