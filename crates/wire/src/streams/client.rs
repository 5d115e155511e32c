//! The client's direction: streams are opened, and the terminal's size is stated.

use super::{Kind, Streams, StreamsError};
use crate::{
    channel::{Event, Resizes, Source},
    spdy::{self, Control, Parser},
};

/// What is known of a client.
#[derive(Debug)]
pub(super) struct Client {
    parser: Parser,
    streams: Streams,
    /// The lowest id that the server takes for its next stream.
    next: u32,
    /// Its last resize stream: the server reads no other.
    resizes: Option<(u32, Resizes)>,
    /// Whether the open data frame belongs to that one.
    resizing: bool,
}

impl Client {
    pub(super) fn new(streams: Streams) -> Self {
        let parser = Parser::new(Source::Client);
        Self { parser, streams, next: 1, resizes: None, resizing: false }
    }

    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut see: impl FnMut(Event<'_>),
    ) -> Result<(), StreamsError> {
        while let Some(event) = self.parser.next(&mut bytes)? {
            match (event, &mut self.resizes) {
                (spdy::Event::Start(head), Some((id, _))) => {
                    self.resizing = head.kind == spdy::Kind::Data(*id);
                }
                (spdy::Event::Data(payload), Some((_, resizes))) if self.resizing => {
                    payload.read(|bytes| resizes.feed(bytes, |size| see(Event::Resize(size))));
                }
                (spdy::Event::Control(Control::SynStream { stream, .. }), _) => self.open(stream)?,
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn lose(&self) {
        self.streams.lose();
    }

    /// Opens what the server opens: a stream of 31 bits whose id is two above the last one's or more, odd or even
    /// (`moby/spdystream`, `validateStreamId`). Another is refused there and opens nothing; should some server take it
    /// all the same, it speaks on a stream that is not here.
    fn open(&mut self, id: u32) -> Result<(), StreamsError> {
        if id < self.next || id >> 31 != 0 {
            self.streams.lose();
            return Ok(());
        }
        self.next = id.saturating_add(2);
        let Some(kind) = self.parser.headers().stream_type().and_then(Kind::parse) else { return Ok(()) };
        if kind == Kind::Resize {
            self.resizes = Some((id, Resizes::default()));
        }
        self.streams.open(id, kind)
    }
}
