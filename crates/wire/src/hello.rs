//! The first message of a TLS client, read as it comes: a whole and well-formed ClientHello, or the alert that closes
//! the connection.
//!
//! Every version from 1.0 on says its ClientHello in handshake records of version 3.x; it may be cut into any number of
//! them. A record of another kind or version before its end is refused, also where some server would pass over it (a
//! warning alert, record version 2.x or 4.x). Sources: RFC 8446 §4.1.2 (ClientHello), §5.1 (records), §6 (alerts),
//! RFC 5246 §7.4.1.2, RFC 6066 §3 (server name).

mod shape;

pub use shape::HelloShape;

use thiserror::Error;

/// Longest ClientHello with its records; one with every extension known today is far shorter.
pub const MAX_HELLO: usize = 64 << 10;

const RECORD_HEAD: usize = 5;
const MAX_RECORD: usize = 1 << 14;
const HANDSHAKE: u8 = 22;
const MAJOR: u8 = 3;
const MESSAGE_HEAD: usize = 4;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// A well-formed ClientHello.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientHello {
    /// The server name, in small letters as it came; `None` where there is none or it is no text.
    pub server_name: Option<String>,
    /// What is the same in every ClientHello of one program.
    pub shape: HelloShape,
}

/// Why what came is no ClientHello. Terminal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum HelloError {
    /// A record that carries no handshake.
    #[error("a record of type {0}, not a handshake")]
    Record(u8),
    /// A record of no version of TLS.
    #[error("a record of version {0}.x, not 3.x")]
    Version(u8),
    /// A record longer than 2^14 bytes.
    #[error("a record of {0} bytes, more than {MAX_RECORD}")]
    RecordLength(usize),
    /// A record that carries nothing.
    #[error("an empty record")]
    EmptyRecord,
    /// A handshake that begins with another message.
    #[error("a handshake message of type {0}, not a ClientHello")]
    Message(u8),
    /// A message or its records above [`MAX_HELLO`].
    #[error("a ClientHello of more than {MAX_HELLO} bytes")]
    TooLong,
    /// A message whose parts do not fill it exactly, or that has an extension twice.
    #[error("the parts of the ClientHello do not fit its length")]
    Malformed,
    /// The message is not whole; no more came in time.
    #[error("the ClientHello was not whole in time")]
    Unfinished,
}

impl HelloError {
    /// The record that says so and closes the connection: one fatal alert (RFC 8446 §6.2).
    #[must_use]
    pub const fn alert(self) -> [u8; 7] {
        const UNEXPECTED_MESSAGE: u8 = 10;
        const RECORD_OVERFLOW: u8 = 22;
        const HANDSHAKE_FAILURE: u8 = 40;
        const DECODE_ERROR: u8 = 50;
        const PROTOCOL_VERSION: u8 = 70;
        let description = match self {
            Self::Record(_) | Self::Message(_) | Self::EmptyRecord => UNEXPECTED_MESSAGE,
            Self::Version(_) => PROTOCOL_VERSION,
            Self::RecordLength(_) => RECORD_OVERFLOW,
            Self::TooLong | Self::Malformed => DECODE_ERROR,
            Self::Unfinished => HANDSHAKE_FAILURE,
        };
        [21, MAJOR, 3, 0, 2, 2, description]
    }
}

/// Reads a ClientHello out of all bytes that have come so far.
///
/// Cursors: `read <= seen.len()` bytes were looked at, of which `record` more belong to the open record; the payloads of
/// all records stand in `message`, at most [`MAX_HELLO`] bytes.
#[derive(Debug, Default)]
pub struct HelloReader {
    read: usize,
    record: usize,
    message: Vec<u8>,
}

impl HelloReader {
    /// A reader at the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The ClientHello at the beginning of `seen`, which begins with all that was given before; `None` while it or the
    /// record that it ends in is not whole.
    ///
    /// # Errors
    /// Where it can never become one.
    pub fn read(&mut self, seen: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        let seen = seen.get(..MAX_HELLO).unwrap_or(seen);
        loop {
            let rest = seen.get(self.read..).unwrap_or_default();
            if self.record == 0 && !self.next_record(rest)? {
                break;
            }
            let rest = seen.get(self.read..).unwrap_or_default();
            let payload = rest.get(..rest.len().min(self.record)).unwrap_or_default();
            if payload.is_empty() {
                break;
            }
            self.message.extend_from_slice(payload);
            self.read += payload.len();
            self.record -= payload.len();
            let whole = body(&self.message)?;
            // A server reads whole records: in an open one, the handshake would wait for what may never come.
            if let Some(body) = whole.filter(|_| self.record == 0) {
                return parse(body).map(Some).ok_or(HelloError::Malformed);
            }
        }
        if seen.len() == MAX_HELLO { Err(HelloError::TooLong) } else { Ok(None) }
    }

    /// Opens the record at the beginning of `rest`. What is wrong with its head is said by the first byte that shows it.
    fn next_record(&mut self, rest: &[u8]) -> Result<bool, HelloError> {
        if let Some(kind) = rest.first().filter(|kind| **kind != HANDSHAKE) {
            return Err(HelloError::Record(*kind));
        }
        if let Some(major) = rest.get(1).filter(|major| **major != MAJOR) {
            return Err(HelloError::Version(*major));
        }
        let Some([_, _, _, high, low]) = rest.first_chunk::<RECORD_HEAD>() else { return Ok(false) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match length {
            0 => Err(HelloError::EmptyRecord),
            1..=MAX_RECORD => {
                self.read += RECORD_HEAD;
                self.record = length;
                Ok(true)
            }
            _ => Err(HelloError::RecordLength(length)),
        }
    }
}

/// The body of the ClientHello that `message` begins with; `None` while it is not whole.
fn body(message: &[u8]) -> Result<Option<&[u8]>, HelloError> {
    if let Some(kind) = message.first().filter(|kind| **kind != CLIENT_HELLO) {
        return Err(HelloError::Message(*kind));
    }
    let Some(([_, a, b, c], rest)) = message.split_first_chunk::<MESSAGE_HEAD>() else { return Ok(None) };
    let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    if length > MAX_HELLO {
        return Err(HelloError::TooLong);
    }
    Ok(rest.get(..length))
}

/// Reads a body; `None` where its parts do not fill it.
fn parse(body: &[u8]) -> Option<ClientHello> {
    const VERSION: usize = 2;
    const RANDOM: usize = 32;
    let (version, rest) = body.split_at_checked(VERSION)?;
    let (_, rest) = rest.split_at_checked(RANDOM)?;
    let (session, rest) = counted::<1>(rest)?;
    let (suites, rest) = counted::<2>(rest)?;
    let (compressions, rest) = counted::<1>(rest)?;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compressions.is_empty() {
        return None;
    }
    let extensions = if rest.is_empty() {
        Vec::new()
    } else {
        let (extensions, rest) = counted::<2>(rest)?;
        rest.is_empty().then(|| split(extensions))??
    };
    let name = extensions.iter().find(|(kind, _)| *kind == SERVER_NAME);
    let server_name = name.map_or(Some(None), |(_, content)| host_name(content))?;
    let shape = HelloShape::of(version, suites, compressions, &extensions);
    Some(ClientHello { server_name, shape })
}

/// Each extension by its kind; `None` where one is there twice.
fn split(mut extensions: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut all: Vec<(u16, &[u8])> = Vec::new();
    while !extensions.is_empty() {
        let (kind, rest) = extensions.split_first_chunk()?;
        let (content, rest) = counted::<2>(rest)?;
        all.push((u16::from_be_bytes(*kind), content));
        extensions = rest;
    }
    let mut kinds: Vec<u16> = all.iter().map(|(kind, _)| *kind).collect();
    kinds.sort_unstable();
    let is_twice = kinds.windows(2).any(|pair| matches!(pair, [one, other] if one == other));
    (!is_twice).then_some(all)
}

/// The first host name of a list; `None` where that is no list, or names more than one.
fn host_name(content: &[u8]) -> Option<Option<String>> {
    let (mut names, rest) = counted::<2>(content)?;
    if names.is_empty() || !rest.is_empty() {
        return None;
    }
    let mut host = None;
    while let Some((kind, rest)) = names.split_first() {
        let (name, rest) = counted::<2>(rest)?;
        if *kind == HOST_NAME {
            if name.is_empty() || host.is_some() {
                return None;
            }
            host = Some(std::str::from_utf8(name).ok().map(str::to_ascii_lowercase));
        }
        names = rest;
    }
    Some(host.flatten())
}

/// Bytes behind their number, which takes `N` bytes, and what follows them.
fn counted<const N: usize>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<N>()?;
    let number = number.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
    rest.split_at_checked(number)
}

#[cfg(test)]
mod tests;
