//! Header blocks of one direction, inflated: a single zlib stream whose pieces they are.

use flate2::{Decompress, FlushDecompress, Status};

use super::{MAX_BLOCK, SpdyError};

/// The dictionary of SPDY/3 (draft 3.1 §2.6.10.1; Adler-32 `e3c6a7c2`).
pub const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");

const SCRATCH: usize = 2048;

/// The context; it takes some 48 KiB, hence it is made only when a block comes.
pub(super) struct Inflate(Decompress);

impl Inflate {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Inflates a piece of a block onto `block`.
    pub(super) fn feed(&mut self, mut piece: &[u8], block: &mut Vec<u8>) -> Result<(), SpdyError> {
        let mut scratch = [0; SCRATCH];
        loop {
            let (taken, made) = self.step(piece, &mut scratch)?;
            piece = piece.get(taken..).unwrap_or_default();
            let made = scratch.get(..made).unwrap_or_default();
            if block.len() + made.len() > MAX_BLOCK {
                return Err(SpdyError::Block);
            }
            block.extend_from_slice(made);
            if piece.is_empty() && made.len() < SCRATCH {
                return Ok(());
            }
            if taken == 0 && made.is_empty() {
                return Err(SpdyError::Inflate);
            }
        }
    }

    /// How much was taken and made.
    fn step(&mut self, piece: &[u8], scratch: &mut [u8]) -> Result<(usize, usize), SpdyError> {
        let (had, gave) = (self.0.total_in(), self.0.total_out());
        match self.0.decompress(piece, scratch, FlushDecompress::Sync) {
            Ok(Status::Ok | Status::BufError) => {}
            Ok(Status::StreamEnd) => return Err(SpdyError::Inflate),
            Err(error) if error.needs_dictionary().is_some() => {
                self.0.set_dictionary(DICTIONARY).map_err(|_| SpdyError::Inflate)?;
            }
            Err(_) => return Err(SpdyError::Inflate),
        }
        let taken = usize::try_from(self.0.total_in() - had).map_err(|_| SpdyError::Inflate)?;
        let made = usize::try_from(self.0.total_out() - gave).map_err(|_| SpdyError::Inflate)?;
        Ok((taken, made))
    }
}

impl std::fmt::Debug for Inflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inflate")
    }
}
