//! The remote command protocol of Kubernetes on top of WebSocket messages.
//!
//! The first byte of every *message* names a channel; continuation frames carry none (RFC 6455 §5.4), except a client's,
//! of which API server and kubelet take each for a message (`k8s.io/apimachinery/pkg/util/httpstream/wsstream`). Which
//! version is spoken is known from the response's `Sec-WebSocket-Protocol` only. A channel counts only in its own direction:
//! a client cannot put output into a recording, nor a container a resize. [`crate::streams`] is the same on SPDY.
//! Source: `k8s.io/apimachinery/pkg/util/remotecommand/constants.go`, KEP-4006.

mod base64;
mod channels;
mod decoder;
mod farewell;
mod protocol;
mod resize;
mod status;

pub use decoder::Decoder;
pub use farewell::Farewell;
pub use protocol::Protocol;
pub(crate) use resize::Resizes;
pub use resize::Size;
pub use status::MAX_STATUS;
pub(crate) use status::StatusBytes;

use thiserror::Error;

use crate::{
    forward::Flow,
    ws::{Payload, WsError},
};

/// Channel of what the client types; never looked at.
pub const STDIN: u8 = 0;
/// Channel of the command's output.
pub const STDOUT: u8 = 1;
/// Channel of the command's error output; unused with a terminal.
pub const STDERR: u8 = 2;
/// Channel of the `metav1.Status` with which a session ends.
pub const ERROR: u8 = 3;
/// Channel of the terminal's size.
pub const RESIZE: u8 = 4;
/// In version 5: the channel named by the next byte ends.
pub const CLOSE: u8 = 255;

/// Which end of the session the bytes come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The user's client.
    Client,
    /// The API server.
    Server,
}

/// What a session says.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Output; never empty.
    Stdout(Payload<'a>),
    /// Error output; never empty.
    Stderr(Payload<'a>),
    /// All that has come on the error channel so far, at the end of a message; empty where the session ends and
    /// nothing came, which in versions of plain text means success.
    Status(&'a [u8]),
    /// The terminal's size.
    Resize(Size),
    /// A connection begins or is over.
    Flow(Flow),
    /// What the server says where it cannot be decoded, as it stands on the wire; never empty.
    Undecoded(&'a [u8]),
}

/// Why a session cannot be followed. Terminal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum ChannelError {
    /// The frames under it cannot be followed.
    #[error("malformed WebSocket stream")]
    Frames(#[from] WsError),
    /// A message of the server in a base64 version is none.
    #[error("a message of the server is no base64")]
    Base64,
}

#[cfg(test)]
mod tests;
