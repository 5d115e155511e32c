//! Header blocks of one direction, inflated: a single zlib stream whose pieces they are.
//!
//! A reader takes no more of that stream than the headers of a block need; what a frame has beyond is the beginning of
//! the next block, as it is to `moby/spdystream`, whose readers share one buffered stream. That a piece is broken is
//! said only when something behind it is needed.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Headers, SpdyError, headers::Block};

/// The dictionary of SPDY/3 (draft 3.1 §2.6.10.1; Adler-32 `e3c6a7c2`).
pub const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// Cap on the bytes that one block inflates to. None of them is kept; the cap bounds the time that a frame takes.
pub const MAX_BLOCK: usize = 4 << 20;
/// Cap on the compressed bytes behind a block. `moby/spdystream` has buffers of 4 KiB before and 32 KiB behind the
/// decompressor, and stops reading where a frame has more.
pub const MAX_CARRY: usize = 64 << 10;

const SCRATCH: usize = 2048;

/// The context; it takes some 48 KiB, hence it is made only when a block comes.
pub(super) struct Inflate {
    zlib: Decompress,
    /// The zlib stream has ended, or is broken.
    over: bool,
    /// Inflated bytes behind the last block, at most [`SCRATCH`].
    inflated: Vec<u8>,
    /// Compressed bytes behind it, at most [`MAX_CARRY`].
    carry: Vec<u8>,
    block: Block,
    /// Bytes that the open block has been inflated to.
    size: usize,
}

impl Inflate {
    pub(super) fn new() -> Self {
        Self {
            zlib: Decompress::new(true),
            over: false,
            inflated: Vec::new(),
            carry: Vec::new(),
            block: Block::default(),
            size: 0,
        }
    }

    /// Begins a block with what the last one left over.
    pub(super) fn begin(&mut self) -> Result<(), SpdyError> {
        (self.block, self.size) = (Block::default(), 0);
        let inflated = std::mem::take(&mut self.inflated);
        self.take(&inflated)?;
        let carry = std::mem::take(&mut self.carry);
        self.feed(&carry)
    }

    /// Takes a piece of the open block's frame.
    pub(super) fn feed(&mut self, mut piece: &[u8]) -> Result<(), SpdyError> {
        let mut scratch = [0; SCRATCH];
        while !self.over && !self.block.is_whole() {
            let (taken, made) = self.step(piece, &mut scratch);
            piece = piece.get(taken..).unwrap_or_default();
            self.take(scratch.get(..made).unwrap_or_default())?;
            if piece.is_empty() && made < SCRATCH {
                return Ok(());
            }
            self.over |= taken == 0 && made == 0;
        }
        if self.carry.len() + piece.len() > MAX_CARRY {
            return Err(SpdyError::Carry);
        }
        self.carry.extend_from_slice(piece);
        Ok(())
    }

    /// The headers of the block, whose frame is whole.
    pub(super) fn end(&self) -> Result<Headers, SpdyError> {
        if self.block.is_whole() { Ok(self.block.headers()) } else { Err(SpdyError::Inflate) }
    }

    /// Bytes that are kept for the next block.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.carry.capacity() + self.inflated.capacity()
    }

    /// Gives inflated bytes to the block, and keeps those behind it.
    fn take(&mut self, inflated: &[u8]) -> Result<(), SpdyError> {
        let taken = self.block.feed(inflated);
        self.size += taken;
        self.inflated.extend_from_slice(inflated.get(taken..).unwrap_or_default());
        if self.size > MAX_BLOCK { Err(SpdyError::Block) } else { Ok(()) }
    }

    /// How much was taken and made.
    fn step(&mut self, piece: &[u8], scratch: &mut [u8]) -> (usize, usize) {
        let (had, gave) = (self.zlib.total_in(), self.zlib.total_out());
        match self.zlib.decompress(piece, scratch, FlushDecompress::Sync) {
            Ok(Status::Ok | Status::BufError) => {}
            Ok(Status::StreamEnd) => self.over = true,
            Err(error) if error.needs_dictionary().is_some() => {
                self.over = self.zlib.set_dictionary(DICTIONARY).is_err();
            }
            Err(_) => self.over = true,
        }
        let since = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
        (since(self.zlib.total_in(), had), since(self.zlib.total_out(), gave))
    }
}

impl std::fmt::Debug for Inflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inflate")
    }
}
