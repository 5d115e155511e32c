//! Connections that are forwarded to ports of a pod: which ports, and how much. What is said on them is not looked at.
//!
//! Over SPDY the client opens two streams for each connection, whose headers name the `port` and whether it is the
//! connection's `data` or tells of its `error`. kubectl carries the same SPDY in the messages of a WebSocket
//! ([`Tunnel`]); the kubelet's own WebSocket form has two channels for each port ([`Channels`]).
//! Sources: `k8s.io/kubelet/pkg/cri/streaming/portforward/{httpstream,websocket}.go`,
//! `k8s.io/apimachinery/pkg/util/portforward/constants.go`, KEP-4006.

mod channels;
mod flows;
mod tunnel;

pub use channels::Channels;
pub use flows::{Flows, MAX_FLOWS};
pub use tunnel::Tunnel;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    channel::{Event, Source},
    spdy::{self, Control, Parser, SpdyError, data, go_away, rst_stream},
    ws::WsError,
};

/// REFUSED_STREAM of the draft's §2.6.3.
const REFUSED: u32 = 3;

/// A connection within a session.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Flow {
    /// What tells it from the others: the id of its stream, or the number of its channel.
    pub id: u32,
    /// Port of the pod; `None` where nobody knows what a session leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What it has moved, once it is over.
    #[serde(flatten)]
    pub moved: Option<Moved>,
}

/// Bytes that a connection has moved.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Moved {
    /// From the client.
    pub sent: u64,
    /// To the client.
    pub received: u64,
}

/// Why connections cannot be followed. Terminal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum ForwardError {
    /// The frames under them cannot be followed.
    #[error("malformed SPDY stream")]
    Frames(#[from] SpdyError),
    /// The messages under those cannot be followed.
    #[error("malformed WebSocket stream")]
    Messages(#[from] WsError),
    /// More streams are open than [`MAX_FLOWS`].
    #[error("more than {MAX_FLOWS} streams are open")]
    Many,
    /// The server speaks on a stream that the client may have opened where it could not be followed.
    #[error("the server speaks on stream {0}, of which the client's direction could not be read")]
    Unknown(u32),
}

/// Follows one direction of a session over SPDY.
#[derive(Debug)]
pub struct Decoder {
    from: Source,
    parser: Parser,
    flows: Flows,
    /// The lowest id that the server takes for the client's next stream.
    next: u32,
    /// The open data frame, where it belongs to a stream that is known.
    frame: Option<Frame>,
    failed: Option<ForwardError>,
}

/// As much of a data frame as has come.
#[derive(Clone, Copy, Debug)]
struct Frame {
    stream: u32,
    bytes: u64,
    fin: bool,
}

impl Decoder {
    /// A decoder behind the handshake. That of the other direction has the same `flows`.
    #[must_use]
    pub fn new(from: Source, flows: Flows) -> Self {
        Self { from, parser: Parser::new(from), flows, next: 1, frame: None, failed: None }
    }

    /// Shows which connections `bytes` open and end. What the client says is to be shown before it goes on.
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn feed(&mut self, bytes: &[u8], see: impl FnMut(Event<'_>)) -> Result<(), ForwardError> {
        let fed = match self.failed {
            Some(error) => return Err(error),
            None => self.feed_frames(bytes, see),
        };
        self.failed = fed.err();
        if fed.is_err() {
            self.lose();
        }
        fed
    }

    /// This direction goes on without being looked at.
    pub fn lose(&self) {
        if self.from == Source::Client {
            self.flows.lose();
        }
    }

    /// The session is over; the server's direction is the last to say so, and shows what is still open.
    pub fn finish(&mut self, see: impl FnMut(Event<'_>)) {
        if let Some(frame) = self.frame.take() {
            self.flows.add(frame.stream, self.from, frame.bytes);
        }
        if self.from == Source::Server {
            self.flows.finish(see);
        }
    }

    /// The connections of the session.
    pub(crate) const fn flows(&self) -> &Flows {
        &self.flows
    }

    /// Bytes after which a frame of ours may follow; `None` within a control frame.
    pub(crate) const fn rest(&self) -> Option<u32> {
        self.parser.rest()
    }

    /// The frames that end every open connection with a message. A stream that was not accepted is refused: what
    /// comes on it would be thrown away.
    #[must_use]
    pub fn last_words(&self, message: &str) -> Vec<u8> {
        let mut words = Vec::new();
        let mut last = 0;
        self.flows.each_open(|id, stream| {
            last = id;
            words.extend(if !stream.accepted {
                rst_stream(id, REFUSED)
            } else if stream.is_data {
                data(id, &[], true)
            } else {
                data(id, message.as_bytes(), true)
            });
        });
        words.extend(go_away(last, 0));
        words
    }

    fn feed_frames(&mut self, mut bytes: &[u8], mut see: impl FnMut(Event<'_>)) -> Result<(), ForwardError> {
        while let Some(event) = self.parser.next(&mut bytes)? {
            match event {
                spdy::Event::Start(head) => self.start(head)?,
                spdy::Event::Data(payload) => {
                    if let Some(frame) = &mut self.frame {
                        frame.bytes += payload.len() as u64;
                    }
                }
                spdy::Event::End => self.end_of_frame(&mut see),
                spdy::Event::Control(control) => self.control(control, &mut see)?,
            }
        }
        Ok(())
    }

    fn start(&mut self, head: spdy::Head) -> Result<(), ForwardError> {
        let spdy::Kind::Data(stream) = head.kind else { return Ok(()) };
        let known = self.flows.knows(stream);
        if !known && self.from == Source::Server && self.flows.may_lack_one() {
            return Err(ForwardError::Unknown(stream));
        }
        self.frame = known.then_some(Frame { stream, bytes: 0, fin: head.fin() });
        Ok(())
    }

    fn end_of_frame(&mut self, see: &mut impl FnMut(Event<'_>)) {
        let Some(Frame { stream, bytes, fin }) = self.frame.take() else { return };
        self.flows.add(stream, self.from, bytes);
        if fin {
            self.flows.end(stream, self.from, see);
        }
    }

    fn control(&mut self, control: Control, see: &mut impl FnMut(Event<'_>)) -> Result<(), ForwardError> {
        match control {
            Control::SynStream { stream, fin } if self.from == Source::Client => {
                self.open(stream, see)?;
                self.end_if(fin, stream, see);
            }
            Control::SynReply { stream, fin } => {
                self.flows.accept(stream);
                self.end_if(fin, stream, see);
            }
            Control::Headers { stream, fin } => self.end_if(fin, stream, see),
            Control::RstStream { stream } => self.flows.reset(stream, see),
            Control::SynStream { .. } | Control::Ping { .. } | Control::GoAway | Control::Other => {}
        }
        Ok(())
    }

    fn end_if(&self, fin: bool, stream: u32, see: &mut impl FnMut(Event<'_>)) {
        if fin {
            self.flows.end(stream, self.from, see);
        }
    }

    /// Opens what the server opens, see [`crate::streams`]. A stream that is neither data nor error, or has no port,
    /// is refused by every server.
    fn open(&mut self, id: u32, see: &mut impl FnMut(Event<'_>)) -> Result<(), ForwardError> {
        if id < self.next || id >> 31 != 0 {
            self.flows.lose();
            return Ok(());
        }
        self.next = id.saturating_add(2);
        let headers = self.parser.headers();
        let is_data = match headers.stream_type() {
            Some(b"data") => true,
            Some(b"error") => false,
            _ => return Ok(()),
        };
        let port = match headers.port() {
            Some((port, false)) => std::str::from_utf8(port).ok().and_then(|port| port.parse().ok()),
            // A port may have more zeros before it than are kept.
            Some((_, true)) => {
                self.flows.lose();
                None
            }
            None => None,
        };
        if port.is_some() {
            self.flows.open(id, is_data, port, see)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
