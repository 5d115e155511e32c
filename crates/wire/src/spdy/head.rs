//! The head of a frame: everything before its payload.

use super::{MAX_HELD, SpdyError};

/// Bytes of a head.
pub const HEAD: usize = 8;

/// Longest payload of a control frame: those are always held whole.
pub const MAX_CONTROL: u32 = (MAX_HELD - HEAD) as u32;

const VERSION: u16 = 3;
const FIN: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Bytes of the stream with that id.
    Data(u32),
    /// Opens a stream.
    SynStream,
    /// Accepts a stream.
    SynReply,
    /// Ends a stream at once, in both directions.
    RstStream,
    /// Settings of the connection.
    Settings,
    /// A ping or its answer.
    Ping,
    /// No further stream is accepted.
    GoAway,
    /// More headers of a stream.
    Headers,
    /// Flow control.
    WindowUpdate,
    /// A type that the draft does not define.
    Other(u16),
}

impl Kind {
    /// Whether a frame of this kind neither opens nor feeds a stream: such frames never wait.
    #[must_use]
    pub const fn never_waits(self) -> bool {
        !matches!(self, Self::Data(_) | Self::SynStream | Self::Headers)
    }

    const fn control(bits: u16) -> Self {
        match bits {
            1 => Self::SynStream,
            2 => Self::SynReply,
            3 => Self::RstStream,
            4 => Self::Settings,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::Headers,
            9 => Self::WindowUpdate,
            other => Self::Other(other),
        }
    }

    /// Bytes before the header block, or all of the payload where there is none.
    pub(super) const fn fixed(self) -> u32 {
        match self {
            Self::SynStream => 10,
            Self::RstStream | Self::GoAway | Self::WindowUpdate => 8,
            Self::SynReply | Self::Headers | Self::Settings | Self::Ping => 4,
            Self::Data(_) | Self::Other(_) => 0,
        }
    }

    /// Whether a payload may have that length. Readers stop where a frame's content ends, not where its length
    /// does: bytes behind would be a frame to one and none to another.
    const fn allows(self, len: u32) -> bool {
        match self {
            Self::RstStream | Self::GoAway | Self::WindowUpdate | Self::Ping => len == self.fixed(),
            Self::Settings => len >= self.fixed() && (len - self.fixed()).is_multiple_of(8),
            _ => len >= self.fixed(),
        }
    }
}

/// Head of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// What the frame is.
    pub kind: Kind,
    /// Its flags.
    pub flags: u8,
    /// Bytes of payload; 24 bits.
    pub len: u32,
}

impl Head {
    /// Reads the head at the beginning of `bytes`; `None` while it is not whole.
    ///
    /// # Errors
    /// Where those bytes cannot begin a frame.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, SpdyError> {
        bytes.first_chunk().map(Self::read).transpose()
    }

    pub(super) fn read(bytes: &[u8; HEAD]) -> Result<Self, SpdyError> {
        let [a, b, c, d, flags, x, y, z] = *bytes;
        let len = u32::from_be_bytes([0, x, y, z]);
        if a & 0x80 == 0 {
            let stream = stream_id(u32::from_be_bytes([a, b, c, d]))?;
            return Ok(Self { kind: Kind::Data(stream), flags, len });
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        let bits = u16::from_be_bytes([c, d]);
        let kind = Kind::control(bits);
        if len > MAX_CONTROL {
            return Err(SpdyError::Control(len));
        }
        if !kind.allows(len) {
            return Err(SpdyError::Length { kind: bits, len });
        }
        Ok(Self { kind, flags, len })
    }

    /// Bytes of head and payload together.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        HEAD + self.len as usize
    }

    /// Whether the sender says nothing more on the stream.
    #[must_use]
    pub const fn fin(&self) -> bool {
        self.flags & FIN != 0
    }
}

/// A stream's id, checked. The draft has readers ignore the top bit; ours might take two ids for one.
pub(super) const fn stream_id(id: u32) -> Result<u32, SpdyError> {
    if id == 0 || id >> 31 != 0 { Err(SpdyError::Stream(id)) } else { Ok(id) }
}
