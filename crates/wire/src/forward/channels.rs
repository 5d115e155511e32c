//! The kubelet's own port-forward over WebSocket: for the n-th port, data on channel 2n and errors on channel 2n + 1.
//! The server begins each of them with the port, two bytes in little endian.

use std::collections::BTreeMap;

use super::{Flows, ForwardError};
use crate::{
    channel::{Event, Source},
    ws::{self, Opcode, Parser, Payload},
};

/// Follows one direction of a session.
#[derive(Debug)]
pub struct Channels {
    from: Source,
    parser: Parser,
    /// Whether the open frame belongs to a message, and whether it ends it; each of a client does.
    in_message: bool,
    ends: bool,
    /// Channel of the open message, once its first byte has come.
    channel: Option<u8>,
    flows: Flows,
    /// How much of its port the server has said on each channel; at most 256 entries.
    ports: BTreeMap<u8, Port>,
    failed: Option<ForwardError>,
}

/// As much of a port as has come.
#[derive(Clone, Copy, Debug, Default)]
enum Port {
    #[default]
    Nothing,
    Half(u8),
    Whole,
}

impl Channels {
    /// A decoder behind the handshake. That of the other direction has the same `flows`.
    #[must_use]
    pub fn new(from: Source, flows: Flows) -> Self {
        let (in_message, ends, channel) = (false, false, None);
        Self {
            from,
            parser: Parser::new(from),
            in_message,
            ends,
            channel,
            flows,
            ports: BTreeMap::new(),
            failed: None,
        }
    }

    /// Shows which ports are forwarded.
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn feed(&mut self, bytes: &[u8], see: impl FnMut(Event<'_>)) -> Result<(), ForwardError> {
        let fed = match self.failed {
            Some(error) => return Err(error),
            None => self.feed_messages(bytes, see),
        };
        self.failed = fed.err();
        fed
    }

    /// The connections of the session.
    pub(crate) const fn flows(&self) -> &Flows {
        &self.flows
    }

    /// The session is over; the server's direction is the last to say so.
    pub fn finish(&mut self, see: impl FnMut(Event<'_>)) {
        if self.from == Source::Server {
            self.flows.finish(see);
        }
    }

    /// The messages that tell what became of every port.
    #[must_use]
    pub fn last_words(&self, message: &str) -> Vec<u8> {
        let mut words = Vec::new();
        self.flows.each_open(|channel, _| {
            let error = u8::try_from(channel).unwrap_or(u8::MAX) | 1;
            words.extend(ws::encode(Opcode::Binary, &[&[error], message.as_bytes()].concat(), None));
        });
        words.extend(ws::close(1000, ""));
        words
    }

    fn feed_messages(
        &mut self,
        mut bytes: &[u8],
        mut see: impl FnMut(Event<'_>),
    ) -> Result<(), ForwardError> {
        while let Some(event) = self.parser.next(&mut bytes)? {
            match event {
                ws::Event::Start(head) => {
                    self.in_message = !head.opcode.is_control();
                    self.ends = head.fin || self.from == Source::Client;
                }
                ws::Event::Data(payload) if self.in_message => self.payload(payload, &mut see)?,
                ws::Event::End if self.in_message && self.ends => self.channel = None,
                ws::Event::Data(_) | ws::Event::End => {}
            }
        }
        Ok(())
    }

    fn payload(
        &mut self,
        mut payload: Payload<'_>,
        see: &mut impl FnMut(Event<'_>),
    ) -> Result<(), ForwardError> {
        let channel = match self.channel {
            Some(channel) => channel,
            None => {
                let Some((first, rest)) = payload.split_first() else { return Ok(()) };
                payload = rest;
                *self.channel.insert(first)
            }
        };
        if !channel.is_multiple_of(2) {
            return Ok(());
        }
        self.flows.ensure(channel.into())?;
        if self.from == Source::Server {
            payload = self.without_port(channel, payload, see);
        }
        self.flows.add(channel.into(), self.from, payload.len() as u64);
        Ok(())
    }

    /// Takes the port off the beginning of what the server says on a channel.
    fn without_port<'a>(
        &mut self,
        channel: u8,
        mut payload: Payload<'a>,
        see: &mut impl FnMut(Event<'_>),
    ) -> Payload<'a> {
        let port = self.ports.entry(channel).or_default();
        while !matches!(port, Port::Whole)
            && let Some((byte, rest)) = payload.split_first()
        {
            payload = rest;
            *port = match *port {
                Port::Nothing => Port::Half(byte),
                Port::Half(low) => {
                    self.flows.name(channel.into(), u16::from_le_bytes([low, byte]), see);
                    Port::Whole
                }
                Port::Whole => Port::Whole,
            };
        }
        payload
    }
}
