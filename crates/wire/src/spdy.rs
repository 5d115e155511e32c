//! SPDY/3.1 frames, observed in one direction of a stream.
//!
//! The client's header blocks are inflated, all of them and in one context, because the kinds of its streams stand
//! there; the server's are passed over by their length, which saves a context for each session. A peer may announce
//! what it likes: nothing is allocated for a length.
//!
//! What the client says is understood as `moby/spdystream` does, which the API server, the kubelet, container runtimes
//! and client-go all run: it looks at no version, takes of a PING four bytes, of a RST_STREAM eight and of SETTINGS as
//! many as their number says, whatever length they state, and reads a header block on from what the one before has left
//! over. Where that library stops to read, nothing depends on what is read here. What the server says has to be as the
//! draft wants it; anything else is an error, after which its bytes are kept as they are. Sources: the SPDY draft 3.1
//! (§2.6 frames, §2.6.10 header blocks), `spdystream/spdy/read.go`.

mod encode;
mod head;
mod headers;
mod inflate;
mod parser;
mod units;

pub use encode::{data, go_away, rst_stream};
pub use head::{HEAD, Head, Kind, MAX_CONTROL};
pub use headers::{Headers, MAX_VALUE};
pub use inflate::{DICTIONARY, MAX_BLOCK, MAX_CARRY};
pub use parser::{Control, Event, Parser};
pub use units::{MAX_HELD, MAX_PADDING, Unit, Units};

use thiserror::Error;

/// Why a byte stream is no SPDY stream that can be followed. Terminal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SpdyError {
    /// A control frame of another version, from a server.
    #[error("version {0} of SPDY, not 3")]
    Version(u16),
    /// Data of stream 0, from a server.
    #[error("data of stream 0")]
    Stream,
    /// A control frame above [`MAX_CONTROL`], from a server.
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
    /// A header block that zlib refuses, or that has no end in its frame.
    #[error("a header block cannot be inflated")]
    Inflate,
    /// A header block above [`MAX_BLOCK`].
    #[error("a header block inflates to more than {MAX_BLOCK} bytes")]
    Block,
    /// More than [`MAX_CARRY`] bytes behind a header block.
    #[error("more than {MAX_CARRY} bytes stand behind a header block")]
    Carry,
}
