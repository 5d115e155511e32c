//! Acknowledgements: the JSON frames in the body of a recorder's response.
//!
//! `{"ack":N}` counts the bytes of the request body that have arrived, `{}` is the same with N = 0, and
//! `{"error":"text"}` is the last frame of an upload that failed. Unknown keys are ignored.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::objects::Objects;

/// Cap on one frame.
pub const MAX_FRAME: usize = 4 << 10;

/// One frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ack {
    /// So many bytes of the request body are safe, at the level that the recorder announces.
    Received(u64),
    /// The upload failed.
    Failed(String),
}

/// The response is no stream of acknowledgements. Terminal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the recorder's response is no stream of acknowledgements")]
pub struct AckError;

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Frame {
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Ack {
    /// The frame with its newline.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let frame = match self {
            Self::Received(bytes) => Frame { ack: Some(*bytes), error: None },
            Self::Failed(text) => Frame { ack: None, error: Some(text.clone()) },
        };
        let mut line = serde_json::to_vec(&frame).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Reads the frames of one response.
#[derive(Debug)]
pub struct Reader {
    objects: Objects,
    failed: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self { objects: Objects::new(MAX_FRAME), failed: false }
    }
}

impl Reader {
    /// A reader at the beginning of a response.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows every frame that `bytes` complete.
    ///
    /// # Errors
    /// Where the bytes are no such frames.
    pub fn feed(&mut self, bytes: &[u8], mut see: impl FnMut(Ack)) -> Result<(), AckError> {
        let failed = &mut self.failed;
        let fed = self.objects.feed(bytes, |object| match serde_json::from_slice::<Frame>(object) {
            _ if *failed => {}
            Ok(Frame { error: Some(text), .. }) if !text.is_empty() => see(Ack::Failed(text)),
            Ok(frame) => see(Ack::Received(frame.ack.unwrap_or(0))),
            Err(_) => *failed = true,
        });
        self.failed |= fed.is_err();
        if self.failed { Err(AckError) } else { Ok(()) }
    }

    /// Whether the response may end here.
    #[must_use]
    pub const fn at_rest(&self) -> bool {
        self.objects.at_rest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> Result<Vec<Ack>, AckError> {
        let (mut reader, mut seen) = (Reader::new(), vec![]);
        for piece in pieces {
            reader.feed(piece.as_bytes(), |ack| seen.push(ack))?;
        }
        Ok(seen)
    }

    #[test]
    fn frames_are_read_however_they_come() {
        let acks =
            read(&["{\"ack\":5}\n{", "}{\"ack\":7,\"later\":true}", "\n{\"error\":\"disk full\"}"]).unwrap();
        assert_eq!(
            acks,
            [Ack::Received(5), Ack::Received(0), Ack::Received(7), Ack::Failed("disk full".into())]
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for ack in [Ack::Received(0), Ack::Received(u64::MAX), Ack::Failed("a \"b\"\n}".into())] {
            assert_eq!(read(&[std::str::from_utf8(&ack.to_line()).unwrap()]).unwrap(), [ack]);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("{{\"error\":\"{}\"}}", "x".repeat(MAX_FRAME));
        for text in ["no", "{\"ack\":-1}", "{\"ack\":\"1\"}", "[]", &long] {
            assert_eq!(read(&[text]), Err(AckError), "{text:.20}");
        }
    }

    #[test]
    fn nothing_counts_after_what_is_no_frame() {
        let (mut reader, mut seen) = (Reader::new(), vec![]);
        assert_eq!(reader.feed(b"{\"ack\":1}{\"ack\":x}{\"ack\":2}", |ack| seen.push(ack)), Err(AckError));
        assert_eq!(reader.feed(b"{\"ack\":3}", |ack| seen.push(ack)), Err(AckError));
        assert_eq!(seen, [Ack::Received(1)]);
    }

    #[test]
    fn a_response_cut_within_a_frame_is_noticed() {
        let mut reader = Reader::new();
        reader.feed(b"{\"ack\":1}\n", |_| {}).unwrap();
        assert!(reader.at_rest());
        reader.feed(b"{\"a", |_| {}).unwrap();
        assert!(!reader.at_rest());
    }
}
