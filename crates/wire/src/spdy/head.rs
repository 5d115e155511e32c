//! The head of a frame: everything before its payload.

use super::{MAX_HELD, SpdyError};
use crate::channel::Source;

/// Bytes of a head.
pub const HEAD: usize = 8;

/// Longest payload of a server's control frame: those are always held whole.
pub const MAX_CONTROL: u32 = (MAX_HELD - HEAD) as u32;

const VERSION: u16 = 3;
const FIN: u8 = 1;
/// Bytes of one of the SETTINGS.
const SETTING: u64 = 8;

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

    /// Whether a client's payload may state that length: those whose length counts are to be as long as what is read.
    const fn allows_of_client(self, len: u32) -> bool {
        match self {
            Self::RstStream | Self::Ping | Self::Settings => true,
            Self::GoAway | Self::WindowUpdate => len == self.fixed(),
            _ => len >= self.fixed(),
        }
    }

    /// Whether a server's payload may have that length. Readers stop where a frame's content ends, not where its length
    /// does: bytes behind would be a frame to one and none to another.
    const fn allows_of_server(self, len: u32) -> bool {
        match self {
            Self::RstStream | Self::Ping => len == self.fixed(),
            Self::Settings => len >= self.fixed() && (len - self.fixed()).is_multiple_of(SETTING as u32),
            _ => self.allows_of_client(len),
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
    /// Bytes of payload that it states; 24 bits.
    pub len: u32,
}

impl Head {
    /// Reads the head at the beginning of `bytes`, which come from that end; `None` while it is not whole.
    ///
    /// # Errors
    /// Where those bytes cannot begin a frame.
    pub fn parse(from: Source, bytes: &[u8]) -> Result<Option<Self>, SpdyError> {
        bytes.first_chunk().map(|bytes| Self::read(from, bytes)).transpose()
    }

    pub(super) fn read(from: Source, bytes: &[u8; HEAD]) -> Result<Self, SpdyError> {
        let [a, b, c, d, flags, x, y, z] = *bytes;
        let len = u32::from_be_bytes([0, x, y, z]);
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            return match (from, stream) {
                (Source::Server, 0) => Err(SpdyError::Stream),
                _ => Ok(Self { kind: Kind::Data(stream), flags, len }),
            };
        }
        let bits = u16::from_be_bytes([c, d]);
        let head = Self { kind: Kind::control(bits), flags, len };
        let allowed = match from {
            Source::Client => head.kind.allows_of_client(len),
            Source::Server => head.allowed_of_server(u16::from_be_bytes([a & 0x7f, b]))?,
        };
        if allowed { Ok(head) } else { Err(SpdyError::Length { kind: bits, len }) }
    }

    const fn allowed_of_server(&self, version: u16) -> Result<bool, SpdyError> {
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        if self.len > MAX_CONTROL {
            return Err(SpdyError::Control(self.len));
        }
        Ok(self.kind.allows_of_server(self.len))
    }

    /// Bytes that follow the head, of which `behind` have come; `None` while that is not known.
    #[must_use]
    pub fn body_len(&self, from: Source, behind: &[u8]) -> Option<u64> {
        match self.kind {
            _ if from == Source::Server => Some(self.len.into()),
            Kind::Settings => behind.first_chunk().map(|count| settings_len(u32::from_be_bytes(*count))),
            Kind::RstStream | Kind::Ping => Some(self.kind.fixed().into()),
            _ => Some(self.len.into()),
        }
    }

    /// Whether the sender says nothing more on the stream.
    #[must_use]
    pub const fn fin(&self) -> bool {
        self.flags & FIN != 0
    }
}

/// Bytes of SETTINGS of which there are so many.
pub(super) fn settings_len(count: u32) -> u64 {
    u64::from(Kind::Settings.fixed()) + SETTING * u64::from(count)
}
