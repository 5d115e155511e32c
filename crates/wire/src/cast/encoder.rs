//! Event lines out of what a session says.

use std::{io::Write as _, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Stream, Sum, TAMPERED, escape};
use crate::{channel::Size, forward::Flow};

/// Longest piece of output in one line; longer output becomes several lines.
pub const MAX_PIECE: usize = 32 << 10;
/// Longest line an encoder writes: every byte of a piece escaped, and room for the rest of the line.
pub const MAX_LINE: usize = 6 * MAX_PIECE + 128;

/// Writes the event lines of one session into buffers of the caller.
///
/// Both streams are `"o"`, told apart by `x-stream` lines. A character cut by the end of a piece is held, at most three
/// bytes a stream, and joined with what follows. Bytes that are not UTF-8 stand exactly in an `x-raw` line directly
/// before the lossy `"o"`.
#[derive(Debug, Default)]
pub struct Encoder {
    stream: Stream,
    stdout: Tail,
    stderr: Tail,
    scratch: Vec<u8>,
}

/// The beginning of a character whose end has not come.
#[derive(Clone, Copy, Debug, Default)]
struct Tail {
    bytes: [u8; 3],
    len: usize,
}

impl Tail {
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Holds back the incomplete character at the end of `bytes`, and gives the rest.
    fn hold<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (whole, tail) = bytes.split_at(bytes.len() - incomplete(bytes));
        self.len = 0;
        for (slot, byte) in self.bytes.iter_mut().zip(tail) {
            *slot = *byte;
            self.len += 1;
        }
        whole
    }
}

impl Encoder {
    /// An encoder at the beginning of a session, on standard output.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the lines for some output.
    pub fn output(&mut self, out: &mut Vec<u8>, at: Duration, stream: Stream, bytes: &[u8]) {
        for piece in bytes.chunks(MAX_PIECE) {
            self.piece(out, at, stream, piece);
        }
    }

    /// Appends the line for a change of the terminal's size.
    pub fn resize(&mut self, out: &mut Vec<u8>, at: Duration, size: Size) {
        push_line(out, at, "r", &format!("{}x{}", size.cols, size.rows));
    }

    /// Appends the line for the command's exit: its code, or the message of what went wrong instead.
    pub fn exit(&mut self, out: &mut Vec<u8>, at: Duration, exit: &str) {
        self.flush(out, at);
        push_line(out, at, "x-exit", exit);
    }

    /// Appends the line for a connection that begins or is over.
    pub fn flow(out: &mut Vec<u8>, at: Duration, flow: &Flow) {
        // Numbers are always written.
        push_line(out, at, "x-flow", &serde_json::to_string(flow).unwrap_or_default());
    }

    /// Appends the line for output that was shown and is not recorded.
    pub fn gap(out: &mut Vec<u8>, at: Duration, bytes: u64) {
        push_line(out, at, "x-gap", &bytes.to_string());
    }

    /// Appends the line that stands in place of so many bytes of lines that were changed while they waited.
    pub fn tampered(out: &mut Vec<u8>, at: Duration, bytes: u64) {
        push_line(out, at, "x-gap", &format!("{bytes} {TAMPERED}"));
    }

    /// Appends the line after which output is what the server says as it stands on the wire, and why.
    pub fn undecoded(&mut self, out: &mut Vec<u8>, at: Duration, why: &str) {
        self.flush(out, at);
        push_line(out, at, "x-undecoded", why);
    }

    /// Appends the line for output that is known and not recorded.
    pub fn sum(out: &mut Vec<u8>, at: Duration, sum: &Sum) {
        // A string and numbers always become JSON.
        push_line(out, at, "x-sum", &serde_json::to_string(sum).unwrap_or_default());
    }

    /// Appends what is held and the line for the way in which the session ended.
    pub fn end(&mut self, out: &mut Vec<u8>, at: Duration, end: &str) {
        self.flush(out, at);
        push_line(out, at, "x-end", end);
    }

    /// Appends the last line: what became of the recording.
    pub fn close(out: &mut Vec<u8>, at: Duration, outcome: &str) {
        push_line(out, at, "x-close", outcome);
    }

    fn piece(&mut self, out: &mut Vec<u8>, at: Duration, stream: Stream, piece: &[u8]) {
        let mut tail = *self.tail(stream);
        if tail.len == 0 {
            let whole = tail.hold(piece);
            self.push_output(out, at, stream, whole);
        } else {
            let mut joined = std::mem::take(&mut self.scratch);
            joined.clear();
            joined.extend_from_slice(tail.as_slice());
            joined.extend_from_slice(piece);
            let whole = tail.hold(&joined);
            self.push_output(out, at, stream, whole);
            self.scratch = joined;
        }
        *self.tail(stream) = tail;
    }

    /// Writes held bytes as they are: the rest of their character never comes.
    fn flush(&mut self, out: &mut Vec<u8>, at: Duration) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let tail = std::mem::take(self.tail(stream));
            self.push_output(out, at, stream, tail.as_slice());
        }
    }

    const fn tail(&mut self, stream: Stream) -> &mut Tail {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn push_output(&mut self, out: &mut Vec<u8>, at: Duration, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if stream != self.stream {
            push_line(out, at, "x-stream", stream.as_str());
            self.stream = stream;
        }
        if std::str::from_utf8(bytes).is_ok() {
            open(out, at, "o");
            escape::push_text(out, bytes);
        } else {
            open(out, at, "x-raw");
            push_base64(out, bytes);
            close(out);
            open(out, at, "o");
            escape::push_lossy(out, bytes);
        }
        close(out);
    }
}

/// Bytes of an incomplete character at the end, 0 to 3.
fn incomplete(bytes: &[u8]) -> usize {
    let last = bytes.len().saturating_sub(3);
    for (back, byte) in bytes.iter().skip(last).rev().enumerate() {
        let needs = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if needs > back + 1 { back + 1 } else { 0 };
    }
    0
}

fn push_line(out: &mut Vec<u8>, at: Duration, code: &str, text: &str) {
    open(out, at, code);
    escape::push_text(out, text.as_bytes());
    close(out);
}

/// `[<seconds>,"<code>","`, with as many decimals as the microseconds have.
fn open(out: &mut Vec<u8>, at: Duration, code: &str) {
    let seconds = format!("{}.{:06}", at.as_secs(), at.subsec_micros());
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    #[expect(clippy::let_underscore_must_use, reason = "writing to a vector does not fail")]
    let _ = write!(out, "[{seconds},\"{code}\",\"");
}

fn close(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"]\n");
}

fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let written = STANDARD.encode_slice(bytes, room).unwrap_or_default();
    out.truncate(start + written);
}
