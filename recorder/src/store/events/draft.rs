//! An event as it will be stored, but for its id, which is known when it is written.

/// One line, without its newline, and the place where its id goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Draft {
    text: Vec<u8>,
    id: usize,
}

impl Draft {
    /// `text` with a JSON string missing at `id`, an index into it.
    #[must_use]
    pub fn new(text: Vec<u8>, id: usize) -> Self {
        let id = id.min(text.len());
        Self { text, id }
    }

    /// Bytes without the id.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Appends the line with `id`, which needs no escape in JSON.
    pub(super) fn write(&self, id: &str, out: &mut Vec<u8>) {
        let (before, behind) = self.text.split_at_checked(self.id).unwrap_or((&self.text, &[]));
        out.reserve(self.text.len().saturating_add(id.len()).saturating_add(3));
        out.extend_from_slice(before);
        out.push(b'"');
        out.extend_from_slice(id.as_bytes());
        out.push(b'"');
        out.extend_from_slice(behind);
        out.push(b'\n');
    }
}
