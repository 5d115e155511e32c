//! Recordings: asciicast v2, a header line and event lines, with additive codes of ours.
//!
//! The header and the codes `"o"` and `"r"` are what recorders of other makers know. Everything else begins with
//! `x-`, so that it can be left out where the other side has not announced that it knows us ([`line::is_additive`]).
//! What players get is another form of it ([`Playable`]). Sources: asciicast v2; the reference client's header.

mod encoder;
mod escape;
mod header;
pub mod line;
mod playable;
mod sum;
mod transcript;

pub use encoder::{Encoder, MAX_LINE, MAX_PIECE};
pub use header::{Header, HeaderError, Kubernetes, MAX_HEADER, Part, Podwitness};
pub use line::{Event, Line, LineError};
pub use playable::{MAX_PLAYABLE_SIDE, Playable};
pub use sum::Sum;
pub use transcript::Transcript;

/// Reason of a gap: what waited for a recorder is not what had been put there.
const TAMPERED: &str = "tampered";

/// Which stream of a command some output is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stream {
    /// Standard output; what every recording begins with.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Name in an `x-stream` line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

#[cfg(test)]
mod tests;
