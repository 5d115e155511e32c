//! The manifest: the last object of a part. What it names is all of it, and nothing can be exchanged unnoticed.
//!
//! `chain` is SHA-256 over the chain of the segment before and the digest of the segment, beginning with the digest of
//! `begin.json`: whoever keeps the last one can tell that every object is the one that was put.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::store::meta::Meta;

/// Cap on a manifest: one of a part with a segment every five seconds of ten days is below it.
pub const MAX_MANIFEST: u64 = 32 << 20;

/// All of a part.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of this form.
    pub version: u32,
    /// What is known of the part, its end among it.
    pub meta: Meta,
    /// Bytes of the recording as it was uploaded.
    pub bytes: u64,
    /// SHA-256 of them, hexadecimal.
    pub sha256: String,
    /// The last of the chain.
    pub chain: String,
    /// The segments in order.
    pub segments: Vec<Entry>,
}

/// One segment.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its object, beside the manifest.
    pub name: String,
    /// Bytes of the object.
    pub stored: u64,
    /// SHA-256 of the object, hexadecimal.
    pub sha256: String,
}

/// SHA-256 in hexadecimal digits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Bytes in hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The chain over a beginning and segments.
#[must_use]
pub fn chain<'a>(begin: &[u8], segments: impl Iterator<Item = &'a Entry>) -> String {
    segments.fold(sha256(begin), |chain, segment| {
        let mut context = Context::new(&SHA256);
        context.update(chain.as_bytes());
        context.update(segment.sha256.as_bytes());
        hex(context.finish().as_ref())
    })
}
