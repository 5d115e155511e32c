//! One direction of a session, whatever is spoken in it and whichever transport it came by.
//!
//! A relay gives each direction what has come, and gets back how much of it goes on together ([`Direction::peek`]),
//! what it says ([`Direction::feed`]) and, where the session has to end, what may still be said
//! ([`Direction::last_words`]). The bytes themselves are never changed. Where a direction cannot be decoded any further,
//! the relay may let it go on all the same ([`Direction::stop_decoding`]): then what a command's server says is shown as
//! it stands on the wire, and of forwarded connections the bytes are counted.

use thiserror::Error;

use crate::{
    channel::{self, ChannelError, Event, Farewell, Protocol, Source},
    forward::{self, Flows, ForwardError},
    spdy,
    streams::{self, Streams, StreamsError},
    ws::{self, MAX_HELD},
};

/// What carries a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Channels in WebSocket messages.
    WebSocket,
    /// SPDY streams.
    Spdy,
}

/// What is spoken in a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Language {
    /// A remote command.
    Command(Transport, Protocol),
    /// Connections to ports of a pod.
    Forward(Carrier),
    /// Nobody knows what: bytes are counted.
    Opaque,
    /// A remote command in a protocol that is not known: what the server says is shown as it stands on the wire.
    Undecoded,
}

/// What carries forwarded connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carrier {
    /// SPDY streams, `portforward.k8s.io`.
    Spdy,
    /// SPDY streams in WebSocket messages, `SPDY/3.1+portforward.k8s.io`.
    Tunnel,
    /// Channels in WebSocket messages, `v4.channel.k8s.io`.
    Channels,
}

impl Carrier {
    /// Name of the carrier in `X-Stream-Protocol-Version` or `Sec-WebSocket-Protocol`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spdy => "portforward.k8s.io",
            Self::Tunnel => "SPDY/3.1+portforward.k8s.io",
            Self::Channels => Protocol::V4.as_str(),
        }
    }

    /// The carrier that a server has chosen over `transport`, by its name; one without a name is the first of its
    /// kind.
    #[must_use]
    pub fn parse(name: &str, transport: Transport) -> Option<Self> {
        let of_transport: &[Self] = match transport {
            Transport::Spdy => &[Self::Spdy],
            Transport::WebSocket => &[Self::Channels, Self::Tunnel],
        };
        of_transport.iter().copied().find(|carrier| name.is_empty() || carrier.as_str() == name)
    }

    /// The same by what a header has, any bytes.
    #[must_use]
    pub fn of_header(name: &[u8], transport: Transport) -> Option<Self> {
        Self::parse(std::str::from_utf8(name).ok()?, transport)
    }
}

impl Language {
    /// The name that was negotiated.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command(_, protocol) => protocol.as_str(),
            Self::Forward(carrier) => carrier.as_str(),
            Self::Opaque | Self::Undecoded => "",
        }
    }

    /// Whether an error channel says in plain text, or by nothing, how a command ended.
    #[must_use]
    pub const fn ends_in_text(self) -> bool {
        matches!(self, Self::Command(_, protocol) if !protocol.has_status())
    }
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
    /// It is no port-forward.
    #[error("this is no port-forward")]
    Forward(#[from] ForwardError),
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
    Opaque,
}

/// Follows one direction.
#[derive(Debug)]
pub struct Direction {
    from: Source,
    side: Side,
    /// What comes is no longer decoded.
    undecoded: bool,
}

#[derive(Debug)]
enum Side {
    /// A command's channels.
    Channels(ws::Units, Box<channel::Decoder>, Protocol),
    /// A command's streams.
    Streams(spdy::Units, Box<streams::Decoder>),
    /// Forwarded connections over SPDY.
    Forward(spdy::Units, Box<forward::Decoder>),
    /// The same within a WebSocket.
    Tunnel(ws::Units, Box<forward::Tunnel>),
    /// Forwarded connections over channels.
    Ports(ws::Units, Box<forward::Channels>),
    /// Bytes.
    Opaque(Flows),
    /// Nothing that could be decoded.
    Undecoded,
}

/// The client's and the server's direction of a session, behind the handshake that chose its `language`.
#[must_use]
pub fn directions(language: Language) -> (Direction, Direction) {
    match language {
        Language::Command(Transport::WebSocket, protocol) => both(|from| {
            let decoder = channel::Decoder::speaking(protocol, from);
            Side::Channels(ws::Units::new(from), Box::new(decoder), protocol)
        }),
        Language::Command(Transport::Spdy, protocol) => {
            let streams = Streams::new();
            both(|from| {
                let decoder = streams::Decoder::new(protocol, from, streams.clone());
                Side::Streams(spdy::Units::new(from), Box::new(decoder))
            })
        }
        Language::Forward(carrier) => {
            let flows = Flows::new();
            both(|from| forwarding(carrier, from, flows.clone()))
        }
        Language::Opaque => {
            let flows = Flows::single();
            both(|_| Side::Opaque(flows.clone()))
        }
        Language::Undecoded => both(|_| Side::Undecoded),
    }
}

fn both(side: impl Fn(Source) -> Side) -> (Direction, Direction) {
    let direction = |from| {
        let side = side(from);
        Direction { from, undecoded: matches!(side, Side::Undecoded), side }
    };
    (direction(Source::Client), direction(Source::Server))
}

fn forwarding(carrier: Carrier, from: Source, flows: Flows) -> Side {
    match carrier {
        Carrier::Spdy => Side::Forward(spdy::Units::new(from), Box::new(forward::Decoder::new(from, flows))),
        Carrier::Tunnel => Side::Tunnel(ws::Units::new(from), Box::new(forward::Tunnel::new(from, flows))),
        Carrier::Channels => Side::Ports(ws::Units::new(from), Box::new(forward::Channels::new(from, flows))),
    }
}

impl Direction {
    /// The unit at the beginning of `bytes`; `None` while more bytes are needed. It has gone on only once it was
    /// given to [`Direction::gone_on`].
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn peek(&self, bytes: &[u8]) -> Result<Option<Unit>, SessionError> {
        if self.undecoded {
            return Ok(any_unit(bytes));
        }
        Ok(match &self.side {
            Side::Channels(units, ..) => units.peek(bytes).map_err(ChannelError::from)?.map(Unit::from),
            Side::Streams(units, decoder) => {
                let unit = units.peek(bytes).inspect_err(|_| decoder.lose());
                unit.map_err(StreamsError::from)?.map(Unit::from)
            }
            Side::Forward(units, decoder) => {
                let unit = units.peek(bytes).inspect_err(|_| decoder.lose());
                unit.map_err(ForwardError::from)?.map(Unit::from)
            }
            Side::Tunnel(units, tunnel) => {
                let unit = units.peek(bytes).inspect_err(|_| tunnel.lose());
                unit.map_err(ForwardError::from)?.map(Unit::from)
            }
            Side::Ports(units, _) => units.peek(bytes).map_err(ForwardError::from)?.map(Unit::from),
            Side::Opaque(_) | Side::Undecoded => any_unit(bytes),
        })
    }

    /// Shows what `bytes` say, before they go on.
    ///
    /// # Errors
    /// Where the stream cannot be followed any further; never again after [`Direction::stop_decoding`].
    pub fn feed(&mut self, bytes: &[u8], see: impl FnMut(Event<'_>)) -> Result<(), SessionError> {
        if self.undecoded {
            self.feed_undecoded(bytes, see);
            return Ok(());
        }
        match &mut self.side {
            Side::Channels(_, decoder, _) => decoder.feed(bytes, see)?,
            Side::Streams(_, decoder) => decoder.feed(bytes, see)?,
            Side::Forward(_, decoder) => decoder.feed(bytes, see)?,
            Side::Tunnel(_, tunnel) => tunnel.feed(bytes, see)?,
            Side::Ports(_, channels) => channels.feed(bytes, see)?,
            Side::Opaque(flows) => flows.add(0, self.from, bytes.len() as u64),
            Side::Undecoded => {}
        }
        Ok(())
    }

    /// The stream cannot be followed, and goes on all the same. Bytes of a unit that was decoded in part are shown again
    /// as they stand on the wire.
    pub const fn stop_decoding(&mut self) {
        self.undecoded = true;
    }

    /// Whether what comes is no longer decoded.
    #[must_use]
    pub const fn is_undecoded(&self) -> bool {
        self.undecoded
    }

    /// Whether what comes is shown as it stands on the wire.
    #[must_use]
    pub const fn shows_undecoded(&self) -> bool {
        self.undecoded
            && matches!(self.from, Source::Server)
            && matches!(self.side, Side::Channels(..) | Side::Streams(..) | Side::Undecoded)
    }

    fn feed_undecoded(&self, bytes: &[u8], mut see: impl FnMut(Event<'_>)) {
        let flows = match &self.side {
            Side::Forward(_, decoder) => decoder.flows(),
            Side::Tunnel(_, tunnel) => tunnel.flows(),
            Side::Ports(_, channels) => channels.flows(),
            Side::Opaque(flows) => flows,
            Side::Channels(..) | Side::Streams(..) | Side::Undecoded => {
                // What a client types is never shown.
                if self.from == Source::Server && !bytes.is_empty() {
                    see(Event::Undecoded(bytes));
                }
                return;
            }
        };
        flows.add_undecoded(self.from, bytes.len() as u64);
    }

    /// Takes note that a unit has gone on; one of another kind of session changes nothing.
    pub const fn gone_on(&mut self, unit: Unit) {
        match (&mut self.side, unit.inner) {
            (Side::Channels(units, ..) | Side::Ports(units, _), Inner::WebSocket(unit)) => {
                units.gone_on(unit);
            }
            (Side::Streams(units, _) | Side::Forward(units, _), Inner::Spdy(unit)) => units.gone_on(unit),
            (Side::Tunnel(units, tunnel), Inner::WebSocket(unit)) => {
                units.gone_on(unit);
                tunnel.gone_on();
            }
            _ => {}
        }
    }

    /// In the client's direction, the pong that answers `bytes`, a whole unit, where that is the ping of a WebSocket.
    #[must_use]
    pub fn pong(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.frames().filter(|_| self.from == Source::Client)?;
        ws::pong(bytes)
    }

    /// In the server's direction, whether a control frame of a WebSocket may follow what has gone on.
    #[must_use]
    pub fn takes_control_frame(&self) -> bool {
        self.from == Source::Server && self.frames().is_some_and(ws::Units::is_between_frames)
    }

    /// The frames of a WebSocket that is followed.
    fn frames(&self) -> Option<&ws::Units> {
        match &self.side {
            _ if self.undecoded => None,
            Side::Channels(units, ..) | Side::Tunnel(units, _) | Side::Ports(units, _) => Some(units),
            Side::Streams(..) | Side::Forward(..) | Side::Opaque(_) | Side::Undecoded => None,
        }
    }

    /// The session is over: shows what was open until then. The server's direction is the last to be told.
    pub fn finish(&mut self, see: impl FnMut(Event<'_>)) {
        match &mut self.side {
            Side::Forward(_, decoder) => decoder.finish(see),
            Side::Tunnel(_, tunnel) => tunnel.finish(see),
            Side::Ports(_, channels) => channels.finish(see),
            Side::Opaque(flows) if self.from == Source::Server => flows.finish(see),
            Side::Channels(..) | Side::Streams(..) | Side::Opaque(_) | Side::Undecoded => {}
        }
    }

    /// In the server's direction, what ends the session for the client behind all that has gone on: the rest of an
    /// open frame, the farewell, and the transport's own end. `None` where too much of a frame is open to be padded,
    /// and where it is not known what would be understood.
    #[must_use]
    pub fn last_words(&self, farewell: &Farewell<'_>) -> Option<Vec<u8>> {
        if self.undecoded {
            return None;
        }
        let (mut words, end) = match &self.side {
            Side::Channels(units, _, protocol) => (units.finish()?, farewell.frames(*protocol)),
            Side::Streams(units, decoder) => (units.finish()?, decoder.last_words(farewell)),
            Side::Forward(units, decoder) => (units.finish()?, decoder.last_words(farewell.message)),
            Side::Tunnel(units, tunnel) => (units.finish()?, tunnel.last_words(farewell.message)),
            Side::Ports(units, channels) => (units.finish()?, channels.last_words(farewell.message)),
            Side::Opaque(_) | Side::Undecoded => return None,
        };
        words.extend(end);
        Some(words)
    }
}

/// A unit of any bytes.
fn any_unit(bytes: &[u8]) -> Option<Unit> {
    let len = bytes.len().min(MAX_HELD);
    (len > 0).then_some(Unit { len, control: false, inner: Inner::Opaque })
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
