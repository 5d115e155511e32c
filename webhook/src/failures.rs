//! Failures of something that is tried for ever. One or two in a row are the ordinary course of things (a watch that
//! has run out, a server that is just starting); more are worth a warning.

use std::error::Error;

/// Failures in a row that are still ordinary.
const ORDINARY: u32 = 2;

/// Counts failures in a row and logs each at the level it deserves.
#[derive(Debug)]
pub(crate) struct Failures {
    what: &'static str,
    in_a_row: u32,
}

impl Failures {
    /// Of `what`, as in "cannot `what`; trying again".
    pub(crate) const fn of(what: &'static str) -> Self {
        Self { what, in_a_row: 0 }
    }

    /// It worked.
    pub(crate) fn clear(&mut self) {
        if self.in_a_row > ORDINARY {
            tracing::info!(failures = self.in_a_row, "can {} again", self.what);
        }
        self.in_a_row = 0;
    }

    /// It did not.
    pub(crate) fn note(&mut self, error: &(dyn Error + 'static)) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row > ORDINARY {
            tracing::warn!(error, failures = self.in_a_row, "cannot {}; trying again", self.what);
        } else {
            tracing::info!(error, "cannot {}; trying again", self.what);
        }
    }
}
