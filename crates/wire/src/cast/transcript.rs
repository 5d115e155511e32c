//! The bytes a session showed, out of its event lines.

use super::{Event, Stream};

/// Follows the events of a recording from its beginning.
#[derive(Debug, Default)]
pub struct Transcript {
    stream: Stream,
    raw: Option<Vec<u8>>,
}

impl Transcript {
    /// At the beginning of a recording.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The output that `event` is, exactly as it was shown.
    pub fn output(&mut self, event: Event) -> Option<(Stream, Vec<u8>)> {
        match event {
            Event::Output(text) => Some((self.stream, self.raw.take().unwrap_or_else(|| text.into_bytes()))),
            Event::Raw(bytes) => {
                self.raw = Some(bytes);
                None
            }
            Event::Stream(stream) => {
                self.stream = stream;
                None
            }
            _ => None,
        }
    }
}
