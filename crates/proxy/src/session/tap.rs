//! What a relay sees, as lines of a journal.

use std::time::Duration;

use podwitness_core::outcome::End;
use podwitness_wire::{
    cast::{Encoder, Stream},
    channel::{Event, Size},
    forward::Flow,
    session::Language,
    ws::Payload,
};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    SessionMeta,
    meta::{self, Origin},
    sums::{Lines, Sums},
};
use crate::journal::Journal;

/// A terminal whose size nobody states.
const DEFAULT_SIZE: Size = Size { cols: 80, rows: 24 };
/// Buffers above this are not kept between frames.
const KEPT: usize = 128 << 10;
/// Cap on the message of a failed command.
const MAX_MESSAGE: usize = 1024;

/// Records one session.
pub(super) struct Tap {
    meta: SessionMeta,
    origin: Origin,
    language: Option<Language>,
    started: Instant,
    journal: Journal,
    encoder: Encoder,
    lines: Vec<u8>,
    /// Follows standard output that may be an archive.
    sums: Option<Box<Sums>>,
    begun: bool,
    output: u64,
    /// Bytes of output for which no line has been appended yet.
    owed: u64,
    exit: Option<String>,
    /// What the error channel of a version without statuses has said so far.
    said: Option<String>,
}

/// What is left to be said of a session that is over.
pub(super) struct Summary {
    pub(super) end: End,
    pub(super) output: u64,
    pub(super) lasted: Duration,
    pub(super) exit: Option<String>,
}

impl Tap {
    pub(super) fn new(
        meta: SessionMeta,
        origin: Origin,
        language: Option<Language>,
        journal: Journal,
    ) -> Self {
        Self {
            // On a terminal everything is shown to somebody.
            sums: (!meta.tty).then(Box::default),
            meta,
            origin,
            language,
            started: Instant::now(),
            journal,
            encoder: Encoder::new(),
            lines: Vec::new(),
            begun: false,
            output: 0,
            owed: 0,
            exit: None,
            said: None,
        }
    }

    /// Records what was said.
    pub(super) fn see(&mut self, event: Event<'_>) {
        match event {
            Event::Stdout(payload) => self.output(Stream::Stdout, payload),
            Event::Stderr(payload) => self.output(Stream::Stderr, payload),
            Event::Status(status) => self.status(status),
            Event::Resize(size) => self.resize(size),
            Event::Flow(flow) => self.flow(&flow),
            Event::Undecoded(bytes) => self.output(Stream::Stdout, Payload::plain(bytes)),
        }
    }

    /// Sends the header, if it has not been sent: nobody has stated a size so far.
    pub(super) fn begin(&mut self) {
        self.begin_with(if self.meta.tty { DEFAULT_SIZE } else { Size::default() });
    }

    /// What the server says from here on is recorded as it stands on the wire, and why.
    pub(super) fn stop_decoding(&mut self, why: &str) {
        self.begin();
        self.end_sums();
        let at = self.started.elapsed();
        self.write(0, |encoder, lines| encoder.undecoded(lines, at, why));
    }

    /// The session is over.
    pub(super) fn close(mut self, end: End) -> Summary {
        self.begin();
        if let Some(said) = self.said.take() {
            self.write_exit(if said.is_empty() { "0".to_owned() } else { said });
        }
        self.end_sums();
        let at = self.started.elapsed();
        self.encoder.end(&mut self.lines, at, end.as_str());
        self.journal.close(at, &self.lines, end);
        Summary { end, output: self.output, lasted: at, exit: self.exit }
    }

    /// Whether the command has reported its end.
    pub(super) const fn has_status(&self) -> bool {
        self.exit.is_some() || self.said.is_some()
    }

    fn begin_with(&mut self, size: Size) -> bool {
        let first = !self.begun;
        if first {
            self.begun = true;
            let language = self.language.map_or("", Language::as_str);
            self.journal.begin(meta::header(&self.meta, &self.origin, language, size));
        }
        first
    }

    fn output(&mut self, stream: Stream, payload: Payload<'_>) {
        self.begin();
        let (at, len) = (self.started.elapsed(), payload.len() as u64);
        self.output += len;
        // Most output is text with a few line ends to escape.
        self.lines.reserve(payload.len() + payload.len() / 8 + 64);
        let sums = if stream == Stream::Stdout { self.sums.take() } else { None };
        let Some(mut sums) = sums else {
            return self
                .write(len, |encoder, lines| payload.read(|bytes| encoder.output(lines, at, stream, bytes)));
        };
        self.write(len, |encoder, lines| {
            let mut to = Lines { encoder, lines, at };
            payload.read(|bytes| sums.record(&mut to, bytes));
        });
        self.sums = Some(sums).filter(|sums| !sums.is_over());
    }

    fn end_sums(&mut self) {
        if let Some(sums) = self.sums.take() {
            let at = self.started.elapsed();
            self.write(0, |encoder, lines| sums.finish(&mut Lines { encoder, lines, at }));
        }
    }

    fn resize(&mut self, size: Size) {
        if !self.begin_with(size) {
            let at = self.started.elapsed();
            self.write(0, |encoder, lines| encoder.resize(lines, at, size));
        }
    }

    fn flow(&mut self, flow: &Flow) {
        self.begin();
        let at = self.started.elapsed();
        self.write(0, |_, lines| Encoder::flow(lines, at, flow));
    }

    /// Versions without statuses say in plain text what went wrong, in as many pieces as they like.
    fn status(&mut self, status: &[u8]) {
        if self.language.is_some_and(Language::ends_in_text) {
            self.said = Some(capped(&String::from_utf8_lossy(status)));
        } else if let (None, Some(exit)) = (&self.exit, exit(status)) {
            self.write_exit(exit);
        }
    }

    /// Records how the command has ended.
    pub(super) fn write_exit(&mut self, exit: String) {
        self.begin();
        let at = self.started.elapsed();
        self.write(0, |encoder, lines| encoder.exit(lines, at, &exit));
        self.exit = Some(exit);
    }

    /// Appends the lines that record so many bytes of output.
    fn write(&mut self, output: u64, encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        encode(&mut self.encoder, &mut self.lines);
        self.owed += output;
        if !self.lines.is_empty() {
            let output = std::mem::take(&mut self.owed);
            self.journal.append(self.started.elapsed(), &self.lines, output);
        }
        self.lines.clear();
        if self.lines.capacity() > KEPT {
            self.lines = Vec::new();
        }
    }
}

#[derive(Deserialize)]
struct Status {
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// The exit of a command from its `metav1.Status`: a code, or the message of what went wrong instead. `None` while
/// the status is not whole. Source: `k8s.io/kubernetes/pkg/kubelet/cri/streaming/remotecommand/exec.go`.
fn exit(status: &[u8]) -> Option<String> {
    let status: Status = serde_json::from_slice(status).ok()?;
    if status.status == "Success" {
        return Some("0".to_owned());
    }
    if status.reason == "NonZeroExitCode" {
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        let code = causes.iter().find(|cause| cause.reason == "ExitCode")?;
        return code.message.parse().ok().map(|code: i32| code.to_string());
    }
    Some(capped(&format!("{}: {}", status.reason, status.message)))
}

fn capped(message: &str) -> String {
    message.get(..message.floor_char_boundary(MAX_MESSAGE)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_a_code_or_a_message() {
        let nonzero = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"m",
            "details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        let broken =
            br#"{"metadata":{},"status":"Failure","reason":"InternalError","message":"no container"}"#;
        assert_eq!(exit(br#"{"metadata":{},"status":"Success"}"#).as_deref(), Some("0"));
        assert_eq!(exit(nonzero).as_deref(), Some("7"));
        assert_eq!(exit(broken).as_deref(), Some("InternalError: no container"));
        assert_eq!(exit(br#"{"status":"Fai"#), None);
        assert_eq!(exit(b"plain text"), None);
    }
}
