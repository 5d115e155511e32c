//! The remote command protocol of Kubernetes on top of SPDY streams.
//!
//! The client opens a stream for each of error, stdin, stdout, stderr and resize, and names it in the header
//! `streamtype` of its SYN_STREAM: what a stream is, is learnt in the client's direction and used in the server's.
//! As in [`crate::channel`], a stream counts only in its own direction, and stdin is never looked at.
//! Sources: `k8s.io/kubelet/pkg/cri/streaming/remotecommand/httpstream.go`, `k8s.io/client-go/tools/remotecommand`.

mod client;
mod server;
mod table;

pub use table::{MAX_STREAMS, Streams};

use client::Client;
use server::Server;
use thiserror::Error;

use crate::{
    channel::{Event, Farewell, Protocol, Source},
    spdy::SpdyError,
};

/// What a stream is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// How the command ended.
    Error,
    /// What the client types.
    Stdin,
    /// The command's output.
    Stdout,
    /// The command's error output; not with a terminal.
    Stderr,
    /// The terminal's size.
    Resize,
}

impl Kind {
    /// The kind that a `streamtype` names; the server uses no stream of another.
    #[must_use]
    pub fn parse(streamtype: &[u8]) -> Option<Self> {
        match streamtype {
            b"error" => Some(Self::Error),
            b"stdin" => Some(Self::Stdin),
            b"stdout" => Some(Self::Stdout),
            b"stderr" => Some(Self::Stderr),
            b"resize" => Some(Self::Resize),
            _ => None,
        }
    }
}

/// Why a session cannot be followed. Terminal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum StreamsError {
    /// The frames under it cannot be followed.
    #[error("malformed SPDY stream")]
    Frames(#[from] SpdyError),
    /// The client opened more streams than [`MAX_STREAMS`].
    #[error("the client opened more than {MAX_STREAMS} streams")]
    Many,
    /// The server speaks on a stream that the client may have opened where it could not be followed.
    #[error("the server speaks on stream {0}, of which the client's direction could not be read")]
    Unknown(u32),
}

/// Follows one direction of a session.
#[derive(Debug)]
pub struct Decoder {
    direction: Direction,
    failed: Option<StreamsError>,
}

#[derive(Debug)]
enum Direction {
    Client(Client),
    Server(Server),
}

impl Decoder {
    /// A decoder behind the handshake, for the version that the server chose. That of the other direction has the
    /// same `streams`.
    #[must_use]
    pub fn new(protocol: Protocol, from: Source, streams: Streams) -> Self {
        let direction = match from {
            Source::Client => Direction::Client(Client::new(streams)),
            Source::Server => Direction::Server(Server::new(protocol, streams)),
        };
        Self { direction, failed: None }
    }

    /// Shows what `bytes` say. What the client says is to be shown before it goes on.
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn feed(&mut self, bytes: &[u8], see: impl FnMut(Event<'_>)) -> Result<(), StreamsError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let fed = match &mut self.direction {
            Direction::Client(client) => client.feed(bytes, see),
            Direction::Server(server) => server.feed(bytes, see),
        };
        self.failed = fed.err();
        if fed.is_err() {
            self.lose();
        }
        fed
    }

    /// This direction goes on without being looked at. Where that is the client's, the server's cannot be followed
    /// either once it speaks on a stream that nobody has seen opened.
    pub fn lose(&self) {
        if let Direction::Client(client) = &self.direction {
            client.lose();
        }
    }

    /// The frames that end the session for a client which has been shown everything so far; none in its own
    /// direction.
    #[must_use]
    pub fn last_words(&self, farewell: &Farewell<'_>) -> Vec<u8> {
        match &self.direction {
            Direction::Client(_) => Vec::new(),
            Direction::Server(server) => server.last_words(farewell),
        }
    }
}

#[cfg(test)]
mod tests;
