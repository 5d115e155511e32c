//! Where a frame ends: its header and the headers of its blocks (RFC 8878 §3.1.1), each looked at once.

use zstd::zstd_safe::compress_bound;

use super::{MAX_FRAME, UnpackError};

/// `Magic_Number`, little-endian.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Magic number and `Frame_Header_Descriptor`.
const HEAD: usize = MAGIC.len() + 1;
/// Bytes of a `Block_Header`.
const BLOCK: usize = 3;
const CHECKSUM: usize = 4;

/// A frame that is coming in.
#[derive(Debug)]
pub(super) struct Scan {
    step: Step,
    /// Bytes of the frame that the next step looks at, and all before them.
    wanted: usize,
    content: usize,
    /// Bytes of a checksum behind the last block.
    checksum: usize,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Head,
    /// The size of the content takes so many bytes.
    Size(usize),
    Block,
    Whole,
}

/// What a step found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// More bytes are wanted.
    More,
    /// The frame is whole and declares so many bytes.
    Whole {
        /// Bytes that it declares.
        content: usize,
    },
}

impl Default for Scan {
    fn default() -> Self {
        Self { step: Step::Head, wanted: HEAD, content: 0, checksum: 0 }
    }
}

impl Scan {
    /// How much of the frame the next step needs.
    pub(super) const fn wanted(&self) -> usize {
        self.wanted
    }

    /// Takes the next step; `frame` has as many bytes as are wanted.
    pub(super) fn look(&mut self, frame: &[u8]) -> Result<Found, UnpackError> {
        match self.step {
            Step::Head => self.head(frame)?,
            Step::Size(bytes) => self.size(frame, bytes)?,
            Step::Block => self.block(frame)?,
            Step::Whole => return Ok(Found::Whole { content: self.content }),
        }
        Ok(Found::More)
    }

    fn head(&mut self, frame: &[u8]) -> Result<(), UnpackError> {
        let Some(&descriptor) = frame.strip_prefix(&MAGIC).and_then(<[u8]>::first) else {
            return Err(UnpackError::Magic);
        };
        let (single, reserved) = (descriptor & 0x20 != 0, descriptor & 0x08 != 0);
        if reserved {
            return Err(UnpackError::Malformed);
        }
        if descriptor & 0x03 != 0 {
            return Err(UnpackError::Dictionary);
        }
        let size: usize = match descriptor >> 6 {
            0 if single => 1,
            0 => return Err(UnpackError::Undeclared),
            flag => 1 << flag,
        };
        self.checksum = if descriptor & 0x04 == 0 { 0 } else { CHECKSUM };
        // Without `Single_Segment_flag` there is a `Window_Descriptor`, which a reader of whole frames does not need.
        self.want(size.saturating_add(usize::from(!single)));
        self.step = Step::Size(size);
        Ok(())
    }

    fn size(&mut self, frame: &[u8], bytes: usize) -> Result<(), UnpackError> {
        let declared = little_endian(last(frame, bytes));
        let declared = if bytes == 2 { declared.saturating_add(256) } else { declared };
        self.content = usize::try_from(declared)
            .ok()
            .filter(|content| (1..=MAX_FRAME).contains(content))
            .ok_or(UnpackError::Size(declared))?;
        self.want(BLOCK);
        self.step = Step::Block;
        Ok(())
    }

    fn block(&mut self, frame: &[u8]) -> Result<(), UnpackError> {
        let header = little_endian(last(frame, BLOCK));
        // `Block_Type`: raw, one byte repeated, compressed.
        let size = match (header >> 1) & 3 {
            0 | 2 => header >> 3,
            1 => 1,
            _ => return Err(UnpackError::Malformed),
        };
        self.want(usize::try_from(size).unwrap_or(usize::MAX));
        if header & 1 == 0 {
            self.want(BLOCK);
        } else {
            self.want(self.checksum);
            self.step = Step::Whole;
        }
        if self.wanted > compress_bound(self.content) { Err(UnpackError::Bloated) } else { Ok(()) }
    }

    const fn want(&mut self, more: usize) {
        self.wanted = self.wanted.saturating_add(more);
    }
}

fn last(frame: &[u8], bytes: usize) -> &[u8] {
    frame.get(frame.len().saturating_sub(bytes)..).unwrap_or_default()
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}
