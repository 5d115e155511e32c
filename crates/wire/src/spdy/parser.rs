//! Frames out of bytes, one event at a time.

use super::{HEAD, Head, Headers, Kind, SpdyError, head::settings_len, inflate::Inflate};
use crate::{channel::Source, ws::Payload};

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
    from: Source,
    state: State,
    blocks: Blocks,
    /// Of the control frame that was shown last.
    headers: Headers,
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

/// A control frame of which `have` of `len` bytes have come; those before its header block stand in `fixed`.
#[derive(Debug)]
struct Open {
    from: Source,
    head: Head,
    fixed: [u8; MAX_FIXED],
    have: u64,
    len: u64,
}

/// The header blocks of a direction.
#[derive(Debug)]
enum Blocks {
    /// The client's.
    Inflated(Option<Box<Inflate>>),
    /// The server's.
    Skipped,
}

impl State {
    const BETWEEN: Self = Self::Head { bytes: [0; HEAD], have: 0 };
}

impl Parser {
    /// A parser at the beginning of a stream.
    #[must_use]
    pub fn new(from: Source) -> Self {
        let blocks = match from {
            Source::Client => Blocks::Inflated(None),
            Source::Server => Blocks::Skipped,
        };
        Self { from, state: State::BETWEEN, blocks, headers: Headers::default() }
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
    pub const fn headers(&self) -> &Headers {
        &self.headers
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
                let Some(head) = head(self.from, bytes, have, input)? else { return Ok(None) };
                self.headers = Headers::default();
                self.state = match head.kind {
                    Kind::Data(_) => State::Data { left: head.len },
                    _ => State::Control(Open::new(self.from, head)),
                };
                Ok(Some(Event::Start(head)))
            }
            State::Data { left: 0 } => {
                self.state = State::BETWEEN;
                Ok(Some(Event::End))
            }
            State::Data { left } => Ok(take(left, input).map(|bytes| Event::Data(Payload::plain(bytes)))),
            State::Control(open) => {
                if !open.feed(input, &mut self.blocks)? {
                    return Ok(None);
                }
                let control = open.control()?;
                if open.head.has_block() {
                    self.headers = self.blocks.end()?;
                }
                self.state = State::BETWEEN;
                Ok(Some(Event::Control(control)))
            }
        }
    }
}

impl Open {
    fn new(from: Source, head: Head) -> Self {
        // SETTINGS of a client are as long as their first bytes say.
        let len = head.body_len(from, &[]).unwrap_or_else(|| head.kind.fixed().into());
        Self { from, head, fixed: [0; MAX_FIXED], have: 0, len }
    }

    /// Takes what belongs to the frame, and tells whether it is whole.
    fn feed(&mut self, input: &mut &[u8], blocks: &mut Blocks) -> Result<bool, SpdyError> {
        self.feed_fixed(input, blocks)?;
        let mut left = self.len - self.have;
        if let Some(bytes) = take(&mut left, input) {
            if self.head.has_block() {
                blocks.feed(bytes)?;
            }
            self.have = self.len - left;
        }
        Ok(left == 0)
    }

    fn feed_fixed(&mut self, input: &mut &[u8], blocks: &mut Blocks) -> Result<(), SpdyError> {
        let fixed = self.len.min(self.head.kind.fixed().into());
        let mut left = fixed.saturating_sub(self.have);
        let Some(bytes) = take(&mut left, input) else { return Ok(()) };
        for (slot, byte) in
            self.fixed.iter_mut().skip(usize::try_from(self.have).unwrap_or(MAX_FIXED)).zip(bytes)
        {
            *slot = *byte;
        }
        self.have = fixed - left;
        if left > 0 {
            return Ok(());
        }
        match self.head.kind {
            Kind::Settings if self.from == Source::Client => self.len = settings_len(self.number()),
            _ if self.head.has_block() => blocks.begin()?,
            _ => {}
        }
        Ok(())
    }

    const fn number(&self) -> u32 {
        let [a, b, c, d, ..] = self.fixed;
        u32::from_be_bytes([a, b, c, d])
    }

    fn control(&self) -> Result<Control, SpdyError> {
        let (number, fin) = (self.number(), self.head.fin());
        Ok(match self.head.kind {
            Kind::SynStream => Control::SynStream { stream: number, fin },
            Kind::SynReply => Control::SynReply { stream: number, fin },
            Kind::Headers => Control::Headers { stream: number, fin },
            Kind::RstStream => Control::RstStream { stream: number },
            Kind::Ping => Control::Ping { id: number },
            Kind::GoAway => Control::GoAway,
            Kind::Settings if settings_len(number) != self.len => {
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
    fn begin(&mut self) -> Result<(), SpdyError> {
        match self {
            Self::Skipped => Ok(()),
            Self::Inflated(context) => context.get_or_insert_with(|| Box::new(Inflate::new())).begin(),
        }
    }

    fn feed(&mut self, piece: &[u8]) -> Result<(), SpdyError> {
        match self {
            Self::Skipped | Self::Inflated(None) => Ok(()),
            Self::Inflated(Some(context)) => context.feed(piece),
        }
    }

    fn end(&self) -> Result<Headers, SpdyError> {
        match self {
            Self::Skipped | Self::Inflated(None) => Ok(Headers::default()),
            Self::Inflated(Some(context)) => context.end(),
        }
    }
}

/// Moves bytes into the head until it is whole.
fn head(
    from: Source,
    bytes: &mut [u8; HEAD],
    have: &mut usize,
    input: &mut &[u8],
) -> Result<Option<Head>, SpdyError> {
    if let (0, Some((whole, rest))) = (*have, input.split_first_chunk()) {
        *input = rest;
        return Head::read(from, whole).map(Some);
    }
    while let (Some((byte, rest)), Some(slot)) = (input.split_first(), bytes.get_mut(*have)) {
        *slot = *byte;
        *have += 1;
        *input = rest;
    }
    if *have < HEAD { Ok(None) } else { Head::read(from, bytes).map(Some) }
}

/// Takes what there is of `left` bytes; `None` where there is nothing to take.
fn take<'a, N: Copy + Into<u64> + TryFrom<u64>>(left: &mut N, input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let wanted: u64 = (*left).into();
    let len = usize::try_from(wanted).unwrap_or(usize::MAX).min(input.len());
    let (bytes, rest) = input.split_at(len);
    *input = rest;
    *left = N::try_from(wanted - len as u64).unwrap_or(*left);
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests;
