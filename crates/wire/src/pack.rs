//! Compressed uploads: `Content-Encoding: zstd` as a sequence of independent frames (RFC 8878).
//!
//! A frame holds whole lines, at most [`FRAME`] bytes of them or one line that is longer, and declares their size; only
//! what is longer than [`MAX_FRAME`], as a header may be, goes on in the next. So both ends need a context only while
//! they make or read one frame, and a thread has one for all its uploads: a stream an upload would keep 1.3 MiB each.
//!
//! A reader asks for more than the RFC does: a frame declares its size, which is neither 0 nor above [`MAX_FRAME`], has
//! no dictionary, and is no larger than what cannot be compressed becomes. That is checked before the frame's bytes
//! are kept, and frames are read one at a time, so that no input makes a reader hold more than one frame of both kinds.
//! Where lines begin and end in a frame is nothing that a reader relies on.

mod frame;

use std::cell::RefCell;

use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

use frame::{Found, Scan};

/// What a body of frames has as its `Content-Encoding`.
pub const ENCODING: &str = "zstd";
/// Response header in which a recorder says that it reads [`ENCODING`].
pub const ACCEPT_ENCODING: &str = "podwitness-accept-encoding";
/// Lines of one frame, in bytes before compression, unless a single line is longer.
pub const FRAME: usize = 64 << 10;
/// Cap on the bytes that a frame becomes: above the longest line of an [`Encoder`](crate::cast::Encoder).
pub const MAX_FRAME: usize = 256 << 10;

/// Effort of compression. Above 1 a recording costs more CPU than the packets that it saves.
const LEVEL: i32 = 1;

/// Lines that cannot become a frame.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PackError {
    /// Longer than a reader takes, or nothing at all.
    #[error("a frame holds 1 to {MAX_FRAME} bytes, not {0}")]
    Size(usize),
    /// The library gave up.
    #[error("cannot compress: {0}")]
    Library(&'static str),
}

/// Bytes that are no frames as a reader wants them. Terminal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum UnpackError {
    /// No frame begins where one should.
    #[error("no zstd frame begins where one should")]
    Magic,
    /// The header or a block is of a kind that is not defined.
    #[error("a zstd frame is malformed")]
    Malformed,
    /// The frame needs a dictionary.
    #[error("a zstd frame needs a dictionary; there is none")]
    Dictionary,
    /// The frame does not say how large its content is.
    #[error("a zstd frame does not declare its content's size")]
    Undeclared,
    /// The frame declares nothing, or too much.
    #[error("a zstd frame declares {0} bytes; 1 to {MAX_FRAME} are taken")]
    Size(u64),
    /// The frame goes on although its content cannot need it.
    #[error("a zstd frame is larger than its content can need")]
    Bloated,
    /// The content cannot be read.
    #[error("a zstd frame cannot be read: {0}")]
    Library(&'static str),
}

/// How many bytes at the beginning of some whole lines belong into one frame.
#[must_use]
pub fn cut(lines: &[u8]) -> usize {
    let Some((within, behind)) = lines.split_at_checked(FRAME) else { return lines.len() };
    let newline = |byte: &u8| *byte == b'\n';
    match within.iter().rposition(newline) {
        Some(at) => at.saturating_add(1),
        None => {
            let line = behind.iter().position(newline).map_or(behind.len(), |at| at.saturating_add(1));
            FRAME.saturating_add(line).min(MAX_FRAME)
        }
    }
}

/// Makes one frame.
///
/// # Errors
/// Where there are no lines, or more than a frame may hold.
pub fn pack(lines: &[u8]) -> Result<Bytes, PackError> {
    if lines.is_empty() || lines.len() > MAX_FRAME {
        return Err(PackError::Size(lines.len()));
    }
    PRESS.with_borrow_mut(|press| match press {
        Some(press) => press.pack(lines),
        None => press.insert(Press::new()?).pack(lines),
    })
}

thread_local! {
    // A frame is made and read without waiting: a thread never needs two of either.
    static PRESS: RefCell<Option<Press>> = const { RefCell::new(None) };
    static READER: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// A context and the buffer that it writes to.
struct Press {
    context: CCtx<'static>,
    out: Vec<u8>,
}

impl Press {
    fn new() -> Result<Self, PackError> {
        let mut context = CCtx::try_create().ok_or(PackError::Library("out of memory"))?;
        context.set_parameter(CParameter::CompressionLevel(LEVEL)).map_err(failed)?;
        Ok(Self { context, out: Vec::new() })
    }

    fn pack(&mut self, lines: &[u8]) -> Result<Bytes, PackError> {
        let mut rare = Vec::new();
        let out = if lines.len() <= FRAME { &mut self.out } else { &mut rare };
        out.clear();
        out.reserve(compress_bound(lines.len()));
        self.context.compress2(out, lines).map_err(failed)?;
        Ok(Bytes::copy_from_slice(out))
    }
}

fn failed(code: usize) -> PackError {
    PackError::Library(get_error_name(code))
}

/// Reads the frames of one upload.
#[derive(Debug, Default)]
pub struct Unpacker {
    /// The frame that is coming in, from its first byte on.
    held: BytesMut,
    scan: Scan,
    /// Size of the content of a frame that is whole and was not read.
    whole: Option<usize>,
    failed: Option<UnpackError>,
}

impl Unpacker {
    /// A reader at the beginning of an upload.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes from `bytes` what belongs to the frame that is coming in, and gives its content once it is whole. `None`
    /// where `bytes` are used up first.
    ///
    /// # Errors
    /// Where the bytes are no frame that is taken.
    pub fn unpack(&mut self, bytes: &mut Bytes) -> Result<Option<Bytes>, UnpackError> {
        match self.fill(bytes)? {
            Some(_) => self.content(),
            None => Ok(None),
        }
    }

    /// Takes from `bytes` what belongs to the frame that is coming in, and says how many bytes its content has once it
    /// is whole, so that a reader can make room first. `None` where `bytes` are used up before.
    ///
    /// # Errors
    /// Where the bytes are no frame that is taken.
    pub fn fill(&mut self, bytes: &mut Bytes) -> Result<Option<usize>, UnpackError> {
        self.checked(|reader| reader.try_fill(bytes))
    }

    /// The content of the frame that is whole; `None` where none is. The next frame may come after it.
    ///
    /// # Errors
    /// Where the frame cannot be read.
    pub fn content(&mut self) -> Result<Option<Bytes>, UnpackError> {
        self.checked(|reader| {
            let Some(content) = reader.whole else { return Ok(None) };
            let content = read(&reader.held, content)?;
            // An idle upload keeps no buffer.
            *reader = Self::default();
            Ok(Some(content))
        })
    }

    /// Errors are for ever.
    fn checked<T>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, UnpackError>,
    ) -> Result<T, UnpackError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = step(self);
        self.failed = result.as_ref().err().copied();
        result
    }

    /// Whether the upload may end here.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes of memory that it holds: those of a frame that is not whole.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.capacity()
    }

    fn try_fill(&mut self, bytes: &mut Bytes) -> Result<Option<usize>, UnpackError> {
        while self.whole.is_none() {
            let missing = self.scan.wanted().saturating_sub(self.held.len());
            let taken = bytes.split_to(missing.min(bytes.remaining()));
            self.held.extend_from_slice(&taken);
            if taken.len() < missing {
                return Ok(None);
            }
            if let Found::Whole { content } = self.scan.look(&self.held)? {
                self.whole = Some(content);
            }
        }
        Ok(self.whole)
    }
}

/// The content of a whole frame.
fn read(frame: &[u8], content: usize) -> Result<Bytes, UnpackError> {
    READER.with_borrow_mut(|reader| {
        let reader = match reader {
            Some(reader) => reader,
            None => reader.insert(DCtx::try_create().ok_or(UnpackError::Library("out of memory"))?),
        };
        let mut out = Vec::with_capacity(content);
        let read = reader.decompress(&mut out, frame);
        match read.map_err(|code| UnpackError::Library(get_error_name(code)))? {
            len if len == content => Ok(out.into()),
            _ => Err(UnpackError::Malformed),
        }
    })
}

#[cfg(test)]
mod tests;
