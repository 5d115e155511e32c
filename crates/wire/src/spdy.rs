//! SPDY/3.1 frames, observed in one direction of a stream.
//!
//! The client's header blocks are inflated, all of them and in one context, because the kinds of its streams stand
//! there; the server's are passed over by their length, which saves a context for each session. A peer may announce
//! what it likes: nothing is allocated for a length, only for what has come, up to a cap.
//! What two readers could understand differently is an error: another version, a control frame longer than what it
//! says, header blocks with bytes left over. Sources: the SPDY draft 3.1 (§2.6 frames, §2.6.10 header blocks) and
//! `moby/spdystream`, which the API server, the kubelet, container runtimes and client-go all run.

mod encode;
mod head;
mod headers;
mod inflate;
mod parser;
mod units;

pub use encode::{data, go_away, rst_stream};
pub use head::{HEAD, Head, Kind, MAX_CONTROL};
pub use headers::{Headers, MAX_BLOCK, MAX_HEADERS};
pub use inflate::DICTIONARY;
pub use parser::{Control, Event, Parser};
pub use units::{MAX_HELD, MAX_PADDING, Unit, Units};

use thiserror::Error;

/// Why a byte stream is no SPDY stream that can be followed. Terminal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SpdyError {
    /// A control frame of another version.
    #[error("version {0} of SPDY, not 3")]
    Version(u16),
    /// A stream id of zero or above 31 bits.
    #[error("stream id {0:#x} is zero or has its top bit set")]
    Stream(u32),
    /// A control frame above [`MAX_CONTROL`].
    #[error("a control frame of {0} bytes, more than {MAX_CONTROL}")]
    Control(u32),
    /// A control frame whose length does not fit its kind.
    #[error("a control frame of type {kind} with {len} bytes")]
    Length {
        /// Its type.
        kind: u16,
        /// Its length.
        len: u32,
    },
    /// A header block that zlib refuses.
    #[error("a header block cannot be inflated")]
    Inflate,
    /// A header block above [`MAX_BLOCK`].
    #[error("a header block inflates to more than {MAX_BLOCK} bytes")]
    Block,
    /// Headers above [`MAX_HEADERS`], or ones that do not fill their block exactly.
    #[error("a header block holds no list of at most {MAX_HEADERS} headers")]
    Headers,
}
