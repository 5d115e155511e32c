//! One direction of a remote command's session, whichever transport it came by.
//!
//! A relay gives each direction what has come, and gets back how much of it goes on together ([`Direction::peek`]),
//! what it says ([`Direction::feed`]) and, where the session has to end, what may still be said
//! ([`Direction::last_words`]). The bytes themselves are never changed.

use thiserror::Error;

use crate::{
    channel::{self, ChannelError, Event, Farewell, Protocol, Source},
    spdy::{self, SpdyError},
    streams::{self, Streams, StreamsError},
    ws::{self, WsError},
};

/// What carries a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Channels in WebSocket messages.
    WebSocket,
    /// SPDY streams.
    Spdy,
}

/// Why a session cannot be followed. Terminal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SessionError {
    /// It is no remote command over WebSocket.
    #[error("this is no remote command over WebSocket")]
    WebSocket(#[from] ChannelError),
    /// It is no remote command over SPDY.
    #[error("this is no remote command over SPDY")]
    Spdy(#[from] StreamsError),
}

impl From<WsError> for SessionError {
    fn from(error: WsError) -> Self {
        Self::WebSocket(error.into())
    }
}

impl From<SpdyError> for SessionError {
    fn from(error: SpdyError) -> Self {
        Self::Spdy(error.into())
    }
}

/// Bytes that go on together.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// How many; never above [`crate::ws::MAX_HELD`].
    pub len: usize,
    /// Whether they never wait.
    pub control: bool,
    inner: Inner,
}

#[derive(Clone, Copy, Debug)]
enum Inner {
    WebSocket(ws::Unit),
    Spdy(spdy::Unit),
}

/// Follows one direction.
#[derive(Debug)]
pub struct Direction {
    protocol: Protocol,
    side: Side,
}

#[derive(Debug)]
enum Side {
    WebSocket(ws::Units, Box<channel::Decoder>),
    Spdy(spdy::Units, Box<streams::Decoder>),
}

/// The client's and the server's direction of a session, behind the handshake that chose `protocol`.
#[must_use]
pub fn directions(transport: Transport, protocol: Protocol) -> (Direction, Direction) {
    let streams = Streams::new();
    let direction = |from| Direction {
        protocol,
        side: match transport {
            Transport::WebSocket => {
                Side::WebSocket(ws::Units::new(), Box::new(channel::Decoder::speaking(protocol, from)))
            }
            Transport::Spdy => {
                let decoder = streams::Decoder::new(protocol, from, streams.clone());
                Side::Spdy(spdy::Units::new(), Box::new(decoder))
            }
        },
    };
    (direction(Source::Client), direction(Source::Server))
}

impl Direction {
    /// The unit at the beginning of `bytes`; `None` while more bytes are needed. It has gone on only once it was
    /// given to [`Direction::gone_on`].
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn peek(&self, bytes: &[u8]) -> Result<Option<Unit>, SessionError> {
        match &self.side {
            Side::WebSocket(units, _) => Ok(units.peek(bytes)?.map(Unit::from)),
            Side::Spdy(units, decoder) => {
                let unit = units.peek(bytes).inspect_err(|_| decoder.lose())?;
                Ok(unit.map(Unit::from))
            }
        }
    }

    /// Shows what `bytes` say, before they go on.
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn feed(&mut self, bytes: &[u8], see: impl FnMut(Event<'_>)) -> Result<(), SessionError> {
        match &mut self.side {
            Side::WebSocket(_, decoder) => decoder.feed(bytes, see).map_err(Into::into),
            Side::Spdy(_, decoder) => decoder.feed(bytes, see).map_err(Into::into),
        }
    }

    /// Takes note that a unit has gone on; one of the other transport changes nothing.
    pub const fn gone_on(&mut self, unit: Unit) {
        match (&mut self.side, unit.inner) {
            (Side::WebSocket(units, _), Inner::WebSocket(unit)) => units.gone_on(unit),
            (Side::Spdy(units, _), Inner::Spdy(unit)) => units.gone_on(unit),
            _ => {}
        }
    }

    /// In the server's direction, what ends the session for the client behind all that has gone on: the rest of an
    /// open frame, the farewell, and the transport's own end. `None` where too much of a frame is open to be padded.
    #[must_use]
    pub fn last_words(&self, farewell: &Farewell<'_>) -> Option<Vec<u8>> {
        let (mut words, end) = match &self.side {
            Side::WebSocket(units, _) => (units.finish()?, farewell.frames(self.protocol)),
            Side::Spdy(units, decoder) => (units.finish()?, decoder.last_words(farewell)),
        };
        words.extend(end);
        Some(words)
    }
}

impl From<ws::Unit> for Unit {
    fn from(unit: ws::Unit) -> Self {
        Self { len: unit.len, control: unit.control, inner: Inner::WebSocket(unit) }
    }
}

impl From<spdy::Unit> for Unit {
    fn from(unit: spdy::Unit) -> Self {
        Self { len: unit.len, control: unit.control, inner: Inner::Spdy(unit) }
    }
}

#[cfg(test)]
mod tests;
