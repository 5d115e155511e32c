//! What can be read from anywhere, so that an answer may begin there.

use std::io;

use axum::body::Bytes;

/// Bytes that do not change. Reading blocks.
pub(super) trait Readable: Send + 'static {
    /// Bytes in all.
    fn length(&self) -> u64;
    /// Some of the bytes from `at` on; none behind the end.
    fn read(&mut self, at: u64) -> io::Result<Bytes>;
}
