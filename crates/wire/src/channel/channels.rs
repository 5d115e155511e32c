//! What is said on the channels of one direction, once the payloads of messages are plain bytes.

use super::{CLOSE, ERROR, Event, RESIZE, Resizes, STDERR, STDOUT, Source, StatusBytes};
use crate::ws::Payload;

/// The channels of one direction.
#[derive(Debug)]
pub(super) struct Channels {
    from: Source,
    resizes: Resizes,
    status: StatusBytes,
    half_close: HalfClose,
}

/// A message that ends a channel, as far as it has come: it names one, in exactly one byte.
#[derive(Debug, Default)]
struct HalfClose {
    bytes: usize,
    last: u8,
}

impl Channels {
    pub(super) fn new(from: Source) -> Self {
        let (resizes, status) = (Resizes::default(), StatusBytes::default());
        Self { from, resizes, status, half_close: HalfClose::default() }
    }

    /// Whether anything is read on that channel. Nobody may look at what passes on the others.
    pub(super) const fn matters(&self, channel: u8) -> bool {
        match self.from {
            Source::Client => matches!(channel, RESIZE | CLOSE),
            Source::Server => matches!(channel, STDOUT | STDERR | ERROR),
        }
    }

    /// Payload of a message on that channel.
    pub(super) fn payload(&mut self, channel: u8, payload: Payload<'_>, see: &mut impl FnMut(Event<'_>)) {
        if payload.is_empty() {
            return;
        }
        match (self.from, channel) {
            (Source::Server, STDOUT) => see(Event::Stdout(payload)),
            (Source::Server, STDERR) => see(Event::Stderr(payload)),
            (Source::Server, ERROR) => self.status.keep(payload),
            (Source::Client, RESIZE) => {
                payload.read(|bytes| self.resizes.feed(bytes, |size| see(Event::Resize(size))));
            }
            (Source::Client, CLOSE) => self.half_close.feed(payload),
            _ => {}
        }
    }

    /// The message on that channel is whole.
    pub(super) fn end_of_message(&mut self, channel: u8, see: &mut impl FnMut(Event<'_>)) {
        match (self.from, channel) {
            (Source::Server, ERROR) => self.status.show(see),
            (Source::Client, CLOSE) if self.half_close.end() == Some(RESIZE) => self.resizes.stop(),
            _ => {}
        }
    }

    /// The server says that it is over.
    pub(super) fn end(&mut self, see: &mut impl FnMut(Event<'_>)) {
        self.status.end(see);
    }
}

impl HalfClose {
    fn feed(&mut self, payload: Payload<'_>) {
        self.bytes = self.bytes.saturating_add(payload.len());
        payload.read(|bytes| self.last = bytes.last().copied().unwrap_or(self.last));
    }

    /// The channel that ends.
    fn end(&mut self) -> Option<u8> {
        let Self { bytes, last } = std::mem::take(self);
        (bytes == 1).then_some(last)
    }
}
