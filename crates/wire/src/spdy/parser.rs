//! Frames out of bytes, one event at a time.

use super::{HEAD, Head, Headers, Kind, SpdyError, head::stream_id, inflate::Inflate};
use crate::{channel::Source, ws::Payload};

/// A header block above this is not kept behind its frame.
const KEPT: usize = 1 << 10;
/// The longest fixed part of a control frame, that of a SYN_STREAM.
const MAX_FIXED: usize = 10;

/// What the next bytes of a stream are.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A frame begins.
    Start(Head),
    /// Payload of that data frame; never empty.
    Data(Payload<'a>),
    /// A control frame is whole.
    Control(Control),
    /// A data frame is whole.
    End,
}

/// What a control frame says, its header block apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Control {
    /// Opens a stream.
    SynStream {
        /// Its id.
        stream: u32,
        /// Whether its opener says nothing on it.
        fin: bool,
    },
    /// Accepts a stream.
    SynReply {
        /// Its id.
        stream: u32,
        /// Whether the accepting end says nothing on it.
        fin: bool,
    },
    /// Ends a stream in both directions.
    RstStream {
        /// Its id.
        stream: u32,
    },
    /// More headers of a stream.
    Headers {
        /// Its id.
        stream: u32,
        /// Whether the sender says nothing more on it.
        fin: bool,
    },
    /// A ping or its answer.
    Ping {
        /// Odd where the client has asked.
        id: u32,
    },
    /// No further stream is accepted.
    GoAway,
    /// Settings, flow control, or a frame of an unknown type.
    Other,
}

/// Follows the frames of one direction.
#[derive(Debug)]
pub struct Parser {
    state: State,
    blocks: Blocks,
}

#[derive(Debug)]
enum State {
    /// Between frames, or within a head of which `have` bytes have come.
    Head {
        bytes: [u8; HEAD],
        have: usize,
    },
    /// Cursor: `left` bytes of the data frame have not come.
    Data {
        left: u32,
    },
    Control(Open),
    Failed(SpdyError),
}

/// A control frame of which `have` bytes have come; those before its header block stand in `fixed`.
#[derive(Debug)]
struct Open {
    head: Head,
    fixed: [u8; MAX_FIXED],
    have: u32,
}

/// The header blocks of a direction.
#[derive(Debug)]
enum Blocks {
    /// The client's: `block` holds what the open or last frame's inflates to.
    Inflated { context: Option<Box<Inflate>>, block: Vec<u8> },
    /// The server's.
    Skipped,
}

impl State {
    const BETWEEN: Self = Self::Head { bytes: [0; HEAD], have: 0 };
}

impl Parser {
    /// A parser at the beginning of a stream.
    #[must_use]
    pub const fn new(from: Source) -> Self {
        let blocks = match from {
            Source::Client => Blocks::Inflated { context: None, block: Vec::new() },
            Source::Server => Blocks::Skipped,
        };
        Self { state: State::BETWEEN, blocks }
    }

    /// Takes the next event off `input`; `None` when `input` is used up.
    ///
    /// # Errors
    /// Where the stream cannot be followed any further; the same error then for ever.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, SpdyError> {
        let event = self.advance(input);
        if let Err(error) = event {
            self.state = State::Failed(error);
        }
        event
    }

    /// The headers of the frame that was shown last, where it comes from the client; else none.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        match &self.blocks {
            Blocks::Inflated { block, .. } => Headers::checked(block),
            Blocks::Skipped => Headers::checked(&[]),
        }
    }

    /// Bytes after which another frame may follow: the rest of an open data frame. `None` within a head or a control
    /// frame.
    #[must_use]
    pub const fn rest(&self) -> Option<u32> {
        match self.state {
            State::Head { have: 0, .. } => Some(0),
            State::Data { left } => Some(left),
            State::Head { .. } | State::Control(_) | State::Failed(_) => None,
        }
    }

    fn advance<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, SpdyError> {
        match &mut self.state {
            State::Failed(error) => Err(*error),
            State::Head { bytes, have } => {
                let Some(head) = head(bytes, have, input)? else { return Ok(None) };
                self.blocks.clear();
                self.state = match head.kind {
                    Kind::Data(_) => State::Data { left: head.len },
                    _ => State::Control(Open { head, fixed: [0; MAX_FIXED], have: 0 }),
                };
                Ok(Some(Event::Start(head)))
            }
            State::Data { left: 0 } => {
                self.state = State::BETWEEN;
                Ok(Some(Event::End))
            }
            State::Data { left } => Ok(take(left, input).map(|bytes| Event::Data(Payload::plain(bytes)))),
            State::Control(open) => {
                let Some(control) = open.feed(input, &mut self.blocks)? else { return Ok(None) };
                self.state = State::BETWEEN;
                Ok(Some(Event::Control(control)))
            }
        }
    }
}

impl Open {
    /// What the frame says, once it is whole.
    fn feed(&mut self, input: &mut &[u8], blocks: &mut Blocks) -> Result<Option<Control>, SpdyError> {
        self.feed_fixed(input);
        let mut left = self.head.len - self.have;
        if let Some(bytes) = take(&mut left, input) {
            if self.head.has_block() {
                blocks.feed(bytes)?;
            }
            self.have = self.head.len - left;
        }
        if left > 0 {
            return Ok(None);
        }
        if self.head.has_block() {
            blocks.check()?;
        }
        self.control().map(Some)
    }

    fn feed_fixed(&mut self, input: &mut &[u8]) {
        let mut left = self.head.kind.fixed().saturating_sub(self.have);
        let Some(bytes) = take(&mut left, input) else { return };
        for (slot, byte) in self.fixed.iter_mut().skip(self.have as usize).zip(bytes) {
            *slot = *byte;
        }
        self.have = self.head.kind.fixed() - left;
    }

    fn control(&self) -> Result<Control, SpdyError> {
        let [a, b, c, d, ..] = self.fixed;
        let (number, fin) = (u32::from_be_bytes([a, b, c, d]), self.head.fin());
        Ok(match self.head.kind {
            Kind::SynStream => Control::SynStream { stream: stream_id(number)?, fin },
            Kind::SynReply => Control::SynReply { stream: stream_id(number)?, fin },
            Kind::Headers => Control::Headers { stream: stream_id(number)?, fin },
            Kind::RstStream => Control::RstStream { stream: stream_id(number)? },
            Kind::Ping => Control::Ping { id: number },
            Kind::GoAway => Control::GoAway,
            Kind::Settings if u64::from(number) * 8 + 4 != u64::from(self.head.len) => {
                return Err(SpdyError::Length { kind: 4, len: self.head.len });
            }
            Kind::Settings | Kind::WindowUpdate | Kind::Data(_) | Kind::Other(_) => Control::Other,
        })
    }
}

impl Head {
    const fn has_block(&self) -> bool {
        matches!(self.kind, Kind::SynStream | Kind::SynReply | Kind::Headers)
    }
}

impl Blocks {
    fn feed(&mut self, piece: &[u8]) -> Result<(), SpdyError> {
        match self {
            Self::Skipped => Ok(()),
            Self::Inflated { context, block } => {
                context.get_or_insert_with(|| Box::new(Inflate::new())).feed(piece, block)
            }
        }
    }

    fn check(&self) -> Result<(), SpdyError> {
        match self {
            Self::Skipped => Ok(()),
            Self::Inflated { block, .. } => Headers::check(block).map(drop),
        }
    }

    fn clear(&mut self) {
        if let Self::Inflated { block, .. } = self {
            block.clear();
            block.shrink_to(KEPT);
        }
    }
}

/// Moves bytes into the head until it is whole.
fn head(bytes: &mut [u8; HEAD], have: &mut usize, input: &mut &[u8]) -> Result<Option<Head>, SpdyError> {
    if let (0, Some((whole, rest))) = (*have, input.split_first_chunk()) {
        *input = rest;
        return Head::read(whole).map(Some);
    }
    while let (Some((byte, rest)), Some(slot)) = (input.split_first(), bytes.get_mut(*have)) {
        *slot = *byte;
        *have += 1;
        *input = rest;
    }
    if *have < HEAD { Ok(None) } else { Head::read(bytes).map(Some) }
}

/// Takes what there is of `left` bytes; `None` where there is nothing to take.
fn take<'a>(left: &mut u32, input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (bytes, rest) = input.split_at(input.len().min(*left as usize));
    *input = rest;
    *left -= u32::try_from(bytes.len()).unwrap_or(*left);
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests;
