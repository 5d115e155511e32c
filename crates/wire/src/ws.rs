//! WebSocket frames (RFC 6455 §5), observed in one direction of a stream.
//!
//! A frame's own mask bit decides whether its payload is masked, and a length may be written longer than it has to be.
//! Beyond that the two directions differ. What the client says is understood as the most lenient server does
//! (`golang.org/x/net/websocket`: reserved bits and opcodes, fragmented or long control frames, fragments in any order,
//! the top bit of a length), so that no frame hides what comes after it; servers that are stricter
//! (`gorilla/websocket`) stop reading there. What the server says has to be as RFC 6455 wants it; anything else is an
//! error, after which its bytes are kept as they are.
//! No payload is held; lengths are bounded by RFC 6455's 63 bits only, because nothing is allocated for them.

mod encode;
mod head;
mod parser;
mod payload;
mod units;

pub use encode::{close, encode, pong};
pub use head::{Head, MAX_HEAD, Opcode};
pub use parser::{Event, Parser};
pub use payload::Payload;
pub use units::{MAX_HELD, MAX_PADDING, Unit, Units};

use thiserror::Error;

/// Why what a server says is no WebSocket stream that can be followed. Terminal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum WsError {
    /// An opcode that RFC 6455 reserves.
    #[error("reserved opcode {0:#x}")]
    Opcode(u8),
    /// Reserved bits are set, although no extension was negotiated.
    #[error("reserved bits are set: was an extension such as permessage-deflate negotiated?")]
    Reserved,
    /// A control frame is fragmented or longer than 125 bytes.
    #[error("a control frame is fragmented or longer than 125 bytes")]
    Control,
    /// A length above 2^63 - 1.
    #[error("a frame's length has its top bit set")]
    Length,
    /// A continuation without a message, or a message within a message.
    #[error("fragments are out of order")]
    Fragment,
}
