//! Cuts a byte stream into lines, with a cap on what is held for one that is not complete yet.

use bytes::{Bytes, BytesMut};

use crate::AgentError;

/// Bytes of a line whose end has not come.
#[derive(Debug)]
pub(crate) struct Lines {
    held: BytesMut,
    searched: usize,
    cap: usize,
}

impl Lines {
    /// Lines of at most `cap` bytes.
    pub(crate) fn new(cap: usize) -> Self {
        Self { held: BytesMut::new(), searched: 0, cap }
    }

    /// Takes bytes in; [`Self::next_line`] gives the lines that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next complete line without its end, empty ones left out.
    pub(crate) fn next_line(&mut self) -> Result<Option<Bytes>, AgentError> {
        loop {
            let fresh = self.held.get(self.searched..).unwrap_or_default();
            let Some(end) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.held.len();
                return self.within_cap(self.held.len()).map(|()| None);
            };
            let end = self.searched.saturating_add(end);
            self.within_cap(end)?;
            let mut line = self.held.split_to(end.saturating_add(1)).freeze();
            line.truncate(end);
            self.searched = 0;
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }

    const fn within_cap(&self, length: usize) -> Result<(), AgentError> {
        if length > self.cap { Err(AgentError::TooLong(self.cap)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<Bytes> {
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_are_split() {
        let text = b"one\n\ntwo\nthree\n";
        for cut in 0..text.len() {
            let mut lines = Lines::new(16);
            lines.feed(&text[..cut]);
            let mut got = all(&mut lines);
            lines.feed(&text[cut..]);
            got.extend(all(&mut lines));
            assert_eq!(got, ["one", "two", "three"]);
        }
    }

    #[test]
    fn a_line_above_the_cap_is_an_error_before_its_end_came() {
        let mut lines = Lines::new(4);
        lines.feed(b"1234");
        assert_eq!(lines.next_line().unwrap(), None);
        lines.feed(b"5");
        assert!(matches!(lines.next_line(), Err(AgentError::TooLong(4))));
    }
}
