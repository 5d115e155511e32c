//! SPDY in the messages of a WebSocket, as one stream of bytes: where one message ends means nothing to it.
//! Source: `k8s.io/apimachinery/pkg/util/portforward`, `k8s.io/client-go/tools/portforward/tunneling_connection.go`.

use super::{Decoder, Flows, ForwardError};
use crate::{
    channel::{Event, Source},
    ws::{self, MAX_PADDING, Opcode, Parser},
};

/// Follows one direction of a tunnelled session.
#[derive(Debug)]
pub struct Tunnel {
    parser: Parser,
    /// Whether the open frame belongs to a message.
    in_message: bool,
    inner: Decoder,
    /// Bytes of SPDY after which a frame of ours may follow, behind all that has gone on.
    rest: Option<u32>,
    failed: Option<ForwardError>,
}

impl Tunnel {
    /// A decoder behind the handshake. That of the other direction has the same `flows`.
    #[must_use]
    pub fn new(from: Source, flows: Flows) -> Self {
        let inner = Decoder::new(from, flows);
        Self { parser: Parser::new(from), in_message: false, inner, rest: Some(0), failed: None }
    }

    /// Shows which connections `bytes` open and end.
    ///
    /// # Errors
    /// Where the stream cannot be followed any further.
    pub fn feed(&mut self, bytes: &[u8], see: impl FnMut(Event<'_>)) -> Result<(), ForwardError> {
        let fed = match self.failed {
            Some(error) => return Err(error),
            None => self.feed_messages(bytes, see),
        };
        self.failed = fed.err();
        if fed.is_err() {
            self.lose();
        }
        fed
    }

    fn feed_messages(
        &mut self,
        mut bytes: &[u8],
        mut see: impl FnMut(Event<'_>),
    ) -> Result<(), ForwardError> {
        while let Some(event) = self.parser.next(&mut bytes)? {
            match event {
                ws::Event::Start(head) => self.in_message = !head.opcode.is_control(),
                ws::Event::Data(payload) if self.in_message => {
                    let mut fed = Ok(());
                    payload.read(|bytes| {
                        if fed.is_ok() {
                            fed = self.inner.feed(bytes, &mut see);
                        }
                    });
                    fed?;
                }
                ws::Event::Data(_) | ws::Event::End => {}
            }
        }
        Ok(())
    }

    /// Takes note that all that was shown has gone on.
    pub(crate) const fn gone_on(&mut self) {
        self.rest = self.inner.rest();
    }

    /// The connections of the session.
    pub(crate) const fn flows(&self) -> &Flows {
        self.inner.flows()
    }

    /// This direction goes on without being looked at.
    pub fn lose(&self) {
        self.inner.lose();
    }

    /// The session is over; the server's direction is the last to say so.
    pub fn finish(&mut self, see: impl FnMut(Event<'_>)) {
        self.inner.finish(see);
    }

    /// The messages that end every open connection, behind all that has gone on. Within a control frame, or too far
    /// from the end of a long one, nothing of ours can be understood: then the WebSocket ends and no more.
    #[must_use]
    pub fn last_words(&self, message: &str) -> Vec<u8> {
        let mut words = Vec::new();
        if let Some(rest) = self.rest.filter(|rest| u64::from(*rest) <= MAX_PADDING) {
            let mut frames = vec![0; rest as usize];
            frames.extend(self.inner.last_words(message));
            words.extend(ws::encode(Opcode::Binary, &frames, None));
        }
        words.extend(ws::close(1000, ""));
        words
    }
}
