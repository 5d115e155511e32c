//! tar archives on their way: which members they have, and which bytes belong to them.
//!
//! An [`Archive`] tells of each byte of a stream what it is, in order. It holds one header block, one extended header of
//! [`MAX_EXTENDED`] bytes and two names of [`MAX_NAME`], whatever the archive says of itself. From the first block on
//! that is no header where one has to be, the stream is no archive any more: what stands there is left to the caller, and
//! nothing behind it is looked at. So are kinds of archives that are not followed: sparse files, several volumes.
//! Sources: POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Header Block"; the GNU tar manual, "Basic Tar Format".
//!
//! What an archive says of itself is the word of whoever writes it. [`is_readable`] does not ask it.

mod extended;
mod header;
mod readable;

pub use readable::{PIECE, is_readable};

use extended::Extended;
use header::{Header, Kind};

/// Length of a block.
pub const BLOCK: usize = 512;
/// Longest extended header that is read; a longer one ends the archive.
pub const MAX_EXTENDED: usize = 16 << 10;
/// Longest name that is kept; a longer one is cut.
pub const MAX_NAME: usize = 4096;

/// One member of an archive, as its headers have it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Member {
    /// Its path, with U+FFFD in place of what is not UTF-8.
    pub name: String,
    /// What it points to, if it is a link.
    pub link: String,
    /// Bytes of its content.
    pub size: u64,
}

/// What the next bytes of a stream are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Piece<'a> {
    /// The beginning of a header, or of something else.
    Open(&'a [u8]),
    /// Headers, padding and the blocks at the end.
    Frame(&'a [u8]),
    /// A member begins.
    Begin(&'a Member),
    /// Its content.
    Content(&'a [u8]),
    /// All of its content has come.
    End,
}

/// Follows one stream.
#[derive(Debug)]
pub struct Archive {
    state: State,
    /// A block of which `filled` bytes have come.
    block: [u8; BLOCK],
    filled: usize,
    extended: Extended,
    begun: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// A header comes, or the end.
    Header,
    /// So much content of a member comes, and then so much padding.
    Content(u64, u64),
    /// So much of an extended header comes, and then so much padding.
    Extended(u64, u64),
    Padding(u64),
    /// Nothing but zeros comes.
    Ended,
    /// It is no archive.
    Foreign,
}

impl Default for Archive {
    fn default() -> Self {
        Self {
            state: State::Header,
            block: [0; BLOCK],
            filled: 0,
            extended: Extended::default(),
            begun: false,
        }
    }
}

impl Archive {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the stream began as an archive does.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether the stream is no archive, or not any more. Terminal.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.state == State::Foreign
    }

    /// Shows what `bytes` are, and gives those that belong to no archive, and all that come after them.
    pub fn feed<'a>(&mut self, mut bytes: &'a [u8], mut see: impl FnMut(Piece<'_>)) -> &'a [u8] {
        while !bytes.is_empty() && !self.is_foreign() {
            bytes = match self.state {
                State::Header | State::Ended => self.header(bytes, &mut see),
                State::Content(left, padding) => {
                    let (content, rest) = split(bytes, left);
                    see(Piece::Content(content));
                    let left = left - content.len() as u64;
                    self.state = if left > 0 { State::Content(left, padding) } else { padded(padding) };
                    if left == 0 {
                        see(Piece::End);
                    }
                    rest
                }
                State::Extended(left, padding) => {
                    let (content, rest) = split(bytes, left);
                    see(Piece::Frame(content));
                    self.extended.push(content);
                    let left = left - content.len() as u64;
                    self.state = if left > 0 { State::Extended(left, padding) } else { padded(padding) };
                    if left == 0 && self.extended.finish().is_none() {
                        self.state = State::Foreign;
                    }
                    rest
                }
                State::Padding(left) => {
                    let (zeros, rest) = split(bytes, left);
                    see(Piece::Frame(zeros));
                    self.state = padded(left - zeros.len() as u64);
                    rest
                }
                State::Foreign => bytes,
            };
        }
        bytes
    }

    /// Takes bytes where a header has to be. Only those that complete one are known to belong to it.
    fn header<'a>(&mut self, bytes: &'a [u8], see: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        let (part, rest) = split(bytes, (BLOCK - self.filled) as u64);
        if let Some(room) = self.block.get_mut(self.filled..self.filled + part.len()) {
            room.copy_from_slice(part);
        }
        self.filled += part.len();
        if self.filled < BLOCK {
            see(Piece::Open(part));
            return rest;
        }
        self.filled = 0;
        match self.next() {
            Some(member) => {
                see(Piece::Frame(part));
                if let Some(member) = member {
                    see(Piece::Begin(&member));
                    if member.size == 0 {
                        see(Piece::End);
                    }
                }
                rest
            }
            None => {
                self.state = State::Foreign;
                bytes
            }
        }
    }

    /// What the whole block begins: a member or something else; `None` where it is no header.
    #[expect(clippy::option_option, reason = "no header and a header of no member are two things")]
    fn next(&mut self) -> Option<Option<Member>> {
        if self.begun && self.block.iter().all(|byte| *byte == 0) {
            self.state = State::Ended;
            return Some(None);
        }
        let header = Header::parse(&self.block).filter(|_| self.state == State::Header)?;
        self.begun = true;
        match header.kind {
            Kind::Extended(which) => {
                self.extended.begin(which, header.size)?;
                self.state = State::Extended(header.size, padding(header.size));
                Some(None)
            }
            Kind::Member { has_content, is_link } => {
                let member = self.extended.apply(&header, has_content, is_link);
                self.state = match member.size {
                    0 => State::Header,
                    size => State::Content(size, padding(size)),
                };
                Some(Some(member))
            }
        }
    }
}

fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len()))
}

const fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

const fn padded(padding: u64) -> State {
    if padding == 0 { State::Header } else { State::Padding(padding) }
}

#[cfg(test)]
mod tests;
