//! Messages out of frames, and channels out of messages.

use super::{CLOSE, ChannelError, Event, Protocol, Source, base64, base64::Base64, channels::Channels};
use crate::ws::{self, Opcode, Parser, Payload};

/// Follows one direction of a session.
#[derive(Debug)]
pub struct Decoder {
    parser: Parser,
    from: Source,
    protocol: Protocol,
    /// Whether the open frame belongs to a message.
    in_message: bool,
    /// Whether the open frame ends it. To the API server and the kubelet each frame of a client is a message.
    ends: bool,
    /// Channel of the open message, once its first byte has come.
    channel: Option<u8>,
    base64: Base64,
    channels: Channels,
    failed: Option<ChannelError>,
}

impl Decoder {
    /// A decoder behind the handshake, of the version that the server chose.
    #[must_use]
    pub fn speaking(protocol: Protocol, from: Source) -> Self {
        Self {
            parser: Parser::new(from),
            from,
            protocol,
            in_message: false,
            ends: false,
            channel: None,
            base64: Base64::default(),
            channels: Channels::new(from),
            failed: None,
        }
    }

    /// Shows what `bytes` say.
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn feed(&mut self, bytes: &[u8], mut see: impl FnMut(Event<'_>)) -> Result<(), ChannelError> {
        let fed = match self.failed {
            Some(error) => Err(error),
            None => self.feed_frames(bytes, &mut see),
        };
        self.failed = fed.err();
        fed
    }

    fn feed_frames(&mut self, mut bytes: &[u8], see: &mut impl FnMut(Event<'_>)) -> Result<(), ChannelError> {
        while let Some(event) = self.parser.next(&mut bytes)? {
            match event {
                ws::Event::Start(head) => self.start(head, see),
                ws::Event::Data(payload) if self.in_message => self.payload(payload, see)?,
                ws::Event::End if self.in_message && self.ends => self.end_of_message(see)?,
                ws::Event::Data(_) | ws::Event::End => {}
            }
        }
        Ok(())
    }

    /// In versions of plain text a server that closes without a word on the error channel tells of success.
    fn start(&mut self, head: ws::Head, see: &mut impl FnMut(Event<'_>)) {
        self.in_message = !head.opcode.is_control();
        self.ends = head.fin || self.from == Source::Client;
        if head.opcode == Opcode::Close && self.from == Source::Server && !self.protocol.has_status() {
            self.channels.end(see);
        }
    }

    fn payload(
        &mut self,
        mut payload: Payload<'_>,
        see: &mut impl FnMut(Event<'_>),
    ) -> Result<(), ChannelError> {
        let channel = match self.channel {
            Some(channel) => channel,
            None => {
                let Some((first, rest)) = payload.split_first() else { return Ok(()) };
                payload = rest;
                *self.channel.insert(self.named(first))
            }
        };
        if !self.matters(channel) {
            return Ok(());
        }
        if !self.protocol.is_base64() {
            self.channels.payload(channel, payload, see);
            return Ok(());
        }
        let Self { base64, channels, .. } = self;
        let decoded = base64.feed(payload, |payload| channels.payload(channel, payload, see));
        self.judge(decoded)
    }

    fn end_of_message(&mut self, see: &mut impl FnMut(Event<'_>)) -> Result<(), ChannelError> {
        let Some(channel) = self.channel.take() else { return Ok(()) };
        if self.protocol.is_base64() {
            let ended = self.base64.end();
            self.judge(ended)?;
        }
        self.channels.end_of_message(channel, see);
        Ok(())
    }

    /// The channel that the first byte of a message names.
    const fn named(&self, first: u8) -> u8 {
        if self.protocol.is_base64() { base64::channel(first) } else { first }
    }

    const fn matters(&self, channel: u8) -> bool {
        self.channels.matters(channel) && (channel != CLOSE || matches!(self.protocol, Protocol::V5))
    }

    /// The server throws away what it cannot decode; what it says itself must be sound.
    const fn judge(&self, decoded: Result<(), ChannelError>) -> Result<(), ChannelError> {
        match self.from {
            Source::Client => Ok(()),
            Source::Server => decoded,
        }
    }
}
