//! The head of a frame: everything before its payload.

use super::WsError;
use crate::channel::Source;

/// Longest head: two bytes, a 64-bit length and a mask.
pub const MAX_HEAD: usize = 14;

/// Longest payload of a control frame.
pub(super) const MAX_CONTROL: u64 = 125;
/// Longest payload of any frame; a client's length is cut to its bits.
const MAX_LEN: u64 = i64::MAX.cast_unsigned();

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opcode {
    /// Goes on with the message begun before.
    Continuation,
    /// Begins a message of text.
    Text,
    /// Begins a message of bytes.
    Binary,
    /// Asks for the end.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
    /// Reserved. To the most lenient server it is data like any other.
    Reserved(u8),
}

impl Opcode {
    /// Whether frames of this kind may stand between the fragments of a message.
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    pub(super) const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
            Self::Reserved(bits) => bits,
        }
    }

    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            other => Self::Reserved(other),
        }
    }
}

/// Head of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// Bytes of payload.
    pub len: u64,
    /// The key, where the payload is masked.
    pub mask: Option<[u8; 4]>,
    /// Bytes of the head itself.
    pub size: usize,
}

impl Head {
    /// Reads the head at the beginning of `bytes`, which come from that end; `None` while it is not whole.
    ///
    /// # Errors
    /// Where those bytes cannot begin a frame of a server.
    pub fn parse(from: Source, bytes: &[u8]) -> Result<Option<Self>, WsError> {
        let Some((&[first, second], rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let opcode = Opcode::from_bits(first & 0x0f);
        if from == Source::Server {
            check(first, opcode)?;
        }
        let Some((len, rest)) = length(second & 0x7f, rest) else { return Ok(None) };
        let Some((mask, rest)) = mask(second & 0x80 != 0, rest) else { return Ok(None) };
        let head = Self { fin: first & 0x80 != 0, opcode, len, mask, size: bytes.len() - rest.len() };
        match from {
            Source::Client => Ok(Some(Self { len: head.len & MAX_LEN, ..head })),
            Source::Server => head.check().map(Some),
        }
    }

    /// Bytes of head and payload together.
    #[must_use]
    pub const fn frame_len(&self) -> u64 {
        self.len.saturating_add(self.size as u64)
    }

    fn check(self) -> Result<Self, WsError> {
        if self.len > MAX_LEN {
            return Err(WsError::Length);
        }
        if self.opcode.is_control() && (!self.fin || self.len > MAX_CONTROL) {
            return Err(WsError::Control);
        }
        Ok(self)
    }
}

/// What a server's first byte may not say.
const fn check(first: u8, opcode: Opcode) -> Result<(), WsError> {
    match opcode {
        _ if first & 0x70 != 0 => Err(WsError::Reserved),
        Opcode::Reserved(bits) => Err(WsError::Opcode(bits)),
        _ => Ok(()),
    }
}

fn length(short: u8, rest: &[u8]) -> Option<(u64, &[u8])> {
    match short {
        126 => rest.split_first_chunk().map(|(bytes, rest)| (u64::from(u16::from_be_bytes(*bytes)), rest)),
        127 => rest.split_first_chunk().map(|(bytes, rest)| (u64::from_be_bytes(*bytes), rest)),
        short => Some((u64::from(short), rest)),
    }
}

fn mask(masked: bool, rest: &[u8]) -> Option<(Option<[u8; 4]>, &[u8])> {
    if !masked {
        return Some((None, rest));
    }
    rest.split_first_chunk().map(|(key, rest)| (Some(*key), rest))
}

/// The rule that ties fragments together: in which state a message is after each frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fragments {
    open: bool,
}

impl Fragments {
    /// Takes note of a frame.
    pub(super) fn note(&mut self, from: Source, head: &Head) -> Result<(), WsError> {
        if head.opcode.is_control() {
            return Ok(());
        }
        if from == Source::Server && (head.opcode == Opcode::Continuation) != self.open {
            return Err(WsError::Fragment);
        }
        self.open = !head.fin;
        Ok(())
    }

    /// Whether a message is begun and not ended.
    pub(super) const fn open(self) -> bool {
        self.open
    }
}
