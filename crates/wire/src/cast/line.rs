//! Event lines read back.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use memchr::memmem;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Stream, Sum, TAMPERED};
use crate::forward::Flow;

/// One event line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Seconds since the start of the session.
    pub at: f64,
    /// What happened.
    pub event: Event,
}

/// What an event line says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// `"o"`: output.
    Output(String),
    /// `"r"`: the terminal's size as text, `COLSxROWS` from us, `ROWSxCOLS` from the reference client.
    Resize(String),
    /// `"x-stream"`: output from here on is of this stream.
    Stream(Stream),
    /// `"x-raw"`: the exact bytes of the next `"o"`.
    Raw(Vec<u8>),
    /// `"x-exit"`: exit code, or the message of what went wrong instead.
    Exit(String),
    /// `"x-flow"`: a forwarded connection begins, or is over and has moved so much.
    Flow(Flow),
    /// `"x-gap"`: so many bytes of output are not recorded here.
    Gap(u64),
    /// `"x-gap"` with reason `tampered`: so many bytes of lines were changed while they waited for a recorder.
    Tampered(u64),
    /// `"x-undecoded"`: output from here on is what the server said as it stood on the wire; the text says why.
    Undecoded(String),
    /// `"x-sum"`: what is known of output that is not recorded here.
    Sum(Box<Sum>),
    /// `"x-end"`: how the session ended.
    End(String),
    /// `"x-close"`: what became of the recording, in its last line.
    Close(String),
    /// Any other code.
    Other(String),
}

/// A line that is no event.
#[derive(Debug, Error)]
pub enum LineError {
    /// Not `[seconds, code, text]`.
    #[error("the line is not an array of seconds, code and text")]
    Shape(#[from] serde_json::Error),
    /// The code is known, its text is not what it should be.
    #[error("the text of a line with code {0:?} cannot be read")]
    Text(String),
}

/// Whether `line` is one that only recorders get that know us.
#[must_use]
pub fn is_additive(line: &[u8]) -> bool {
    let code = line.iter().position(|byte| *byte == b',').and_then(|comma| line.get(comma..));
    code.is_some_and(|code| code.starts_with(b",\"x-"))
}

impl Line {
    /// Reads a line, with or without its newline.
    ///
    /// # Errors
    /// Where it is no event line.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        let (at, code, text): (f64, Cow<'_, str>, String) = serde_json::from_slice(line)?;
        Ok(Self { at, event: event(&code, text)? })
    }

    /// As [`Line::parse`], for those who only pass output on: its text is known to be whole and stays unread, so the
    /// event is an empty [`Event::Output`]. Nearly every byte of a recording is in such a line.
    ///
    /// # Errors
    /// Where it is no event line.
    pub fn check(line: &[u8]) -> Result<Self, LineError> {
        match serde_json::from_slice(line) {
            Ok((at, "o", text)) if is_whole(text) => Ok(Self { at, event: Event::Output(String::new()) }),
            _ => Self::parse(line),
        }
    }
}

/// A number of bytes, and the reason behind it, if there is one.
fn gap(text: &str) -> Option<Event> {
    let (bytes, reason) = text.split_once(' ').unwrap_or((text, ""));
    let bytes = bytes.parse().ok()?;
    Some(if reason == TAMPERED { Event::Tampered(bytes) } else { Event::Gap(bytes) })
}

/// Whether a value is a text, and one without surrogates: those have to come in pairs, which only reading it shows.
pub(super) fn is_whole(value: &RawValue) -> bool {
    let surrogate = |escape: usize| matches!(value.get().as_bytes().get(escape + 2), Some(b'd' | b'D'));
    value.get().starts_with('"') && !memmem::find_iter(value.get().as_bytes(), b"\\u").any(surrogate)
}

fn event(code: &str, text: String) -> Result<Event, LineError> {
    let bad = || LineError::Text(code.to_owned());
    Ok(match code {
        "o" => Event::Output(text),
        "r" => Event::Resize(text),
        "x-stream" if text == Stream::Stdout.as_str() => Event::Stream(Stream::Stdout),
        "x-stream" if text == Stream::Stderr.as_str() => Event::Stream(Stream::Stderr),
        "x-stream" => return Err(bad()),
        "x-raw" => Event::Raw(STANDARD.decode(text).map_err(|_| bad())?),
        "x-exit" => Event::Exit(text),
        "x-flow" => Event::Flow(serde_json::from_str(&text).map_err(|_| bad())?),
        "x-gap" => gap(&text).ok_or_else(bad)?,
        "x-undecoded" => Event::Undecoded(text),
        "x-sum" => Event::Sum(serde_json::from_str(&text).map_err(|_| bad())?),
        "x-end" => Event::End(text),
        "x-close" => Event::Close(text),
        other => Event::Other(other.to_owned()),
    })
}
