//! The remote command protocol of Kubernetes on top of WebSocket messages.
//!
//! The first byte of every *message* names a channel; continuation frames carry none (RFC 6455 §5.4). Which version
//! is spoken is known from the response's `Sec-WebSocket-Protocol` only. A channel counts only in its own direction:
//! a client cannot put output into a recording, nor a container a resize.
//! Source: `k8s.io/apimachinery/pkg/util/remotecommand/constants.go`, KEP-4006.

mod resize;

pub use resize::Size;

use resize::Resizes;
use thiserror::Error;

use crate::ws::{self, Parser, Payload, WsError};

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

/// Cap on the bytes of the error channel that are kept.
pub const MAX_STATUS: usize = 64 << 10;

/// A version of the protocol that can be followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// `v4.channel.k8s.io`.
    V4,
    /// `v5.channel.k8s.io`: version 4 with half-close.
    V5,
}

impl Protocol {
    /// The version of a `Sec-WebSocket-Protocol` that the server chose; `None` for any other.
    #[must_use]
    pub fn parse(subprotocol: &str) -> Option<Self> {
        [Self::V4, Self::V5].into_iter().find(|protocol| protocol.as_str() == subprotocol)
    }

    /// The subprotocol's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }
}

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
    /// All that has come on the error channel so far, at the end of a message.
    Status(&'a [u8]),
    /// The terminal's size.
    Resize(Size),
}

/// Why a session cannot be followed. Terminal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum ChannelError {
    /// The frames under it cannot be followed.
    #[error("malformed WebSocket stream")]
    Frames(#[from] WsError),
}

/// Follows one direction of a session.
#[derive(Debug)]
pub struct Decoder {
    parser: Parser,
    from: Source,
    /// Whether the open frame belongs to a message.
    in_message: bool,
    /// Whether the open frame ends it.
    fin: bool,
    /// Channel of the open message, once its first byte has come.
    channel: Option<u8>,
    resizes: Resizes,
    status: Vec<u8>,
}

impl Decoder {
    /// A decoder behind the handshake.
    #[must_use]
    pub fn new(from: Source) -> Self {
        Self {
            parser: Parser::new(),
            from,
            in_message: false,
            fin: false,
            channel: None,
            resizes: Resizes::default(),
            status: Vec::new(),
        }
    }

    /// Shows what `bytes` say.
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn feed(&mut self, mut bytes: &[u8], mut see: impl FnMut(Event<'_>)) -> Result<(), ChannelError> {
        while let Some(event) = self.parser.next(&mut bytes)? {
            match event {
                ws::Event::Start(head) => {
                    self.in_message = !head.opcode.is_control();
                    self.fin = head.fin;
                }
                ws::Event::Data(payload) if self.in_message => self.payload(payload, &mut see),
                ws::Event::End if self.in_message && self.fin => self.end_of_message(&mut see),
                ws::Event::Data(_) | ws::Event::End => {}
            }
        }
        Ok(())
    }

    fn payload(&mut self, mut payload: Payload<'_>, see: &mut impl FnMut(Event<'_>)) {
        let channel = match self.channel {
            Some(channel) => channel,
            None => {
                let Some((channel, rest)) = payload.split_first() else { return };
                self.channel = Some(channel);
                payload = rest;
                channel
            }
        };
        if payload.is_empty() {
            return;
        }
        match (self.from, channel) {
            (Source::Server, STDOUT) => see(Event::Stdout(payload)),
            (Source::Server, STDERR) => see(Event::Stderr(payload)),
            (Source::Server, ERROR) => self.keep_status(payload),
            (Source::Client, RESIZE) => {
                payload.read(|bytes| self.resizes.feed(bytes, |size| see(Event::Resize(size))));
            }
            _ => {}
        }
    }

    /// A status beyond the cap is not kept: what is left of it would not parse.
    fn keep_status(&mut self, payload: Payload<'_>) {
        payload.read(|bytes| {
            let room = MAX_STATUS.saturating_sub(self.status.len());
            self.status.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        });
    }

    fn end_of_message(&mut self, see: &mut impl FnMut(Event<'_>)) {
        if self.channel.take() == Some(ERROR) && !self.status.is_empty() {
            see(Event::Status(&self.status));
        }
    }
}

#[cfg(test)]
mod tests;
