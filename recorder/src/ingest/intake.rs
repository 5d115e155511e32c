//! Cuts an upload into whole lines and looks at each: what is no recording is refused before it is stored.
//!
//! Sans-IO. Bytes come out exactly as they came in, and the result does not depend on how they were split. What was
//! good before a bad line is given out before the error.

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use podwitness_wire::{
    cast::{Event, Line, MAX_HEADER},
    pack::MAX_FRAME,
};
use thiserror::Error;

/// Cap on an event line, that of a compressed frame. Our own encoder stays below it; other writers put a whole read of
/// a terminal in one, 32 KiB of which JSON makes 192 at most.
pub(super) const MAX_LINE: usize = MAX_FRAME;
/// Cap on the text of an exit status that is taken over into metadata.
const MAX_EXIT: usize = 1024;
/// The same for the words at the end of a recording.
const MAX_WORD: usize = 64;

/// What an upload consists of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// The first line, newline included.
    Header(Bytes),
    /// Whole lines.
    Lines(Bytes),
}

/// What the lines so far say of the session.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Progress {
    /// Latest time of a line, in seconds since the session's start.
    pub(super) at: f64,
    /// Text of the last `x-exit`.
    pub(super) exit: Option<String>,
    /// Text of the last `x-end`.
    pub(super) end: Option<String>,
    /// Text of the last `x-close`.
    pub(super) outcome: Option<String>,
    /// Sum of all `x-gap`.
    pub(super) gap: u64,
}

/// Why an upload is refused.
#[derive(Debug, Error, PartialEq)]
pub(super) enum Refusal {
    /// A line above its cap.
    #[error("line {} is longer than {} bytes", .0, cap(*.0))]
    TooLong(u64),
    /// A line that is no event of asciicast v2.
    #[error("line {0} is no event line: {1}")]
    Line(u64, String),
    /// The upload as a whole is above its cap.
    #[error("the recording is longer than {0} bytes")]
    TooMuch(u64),
}

/// The state of one upload.
#[derive(Debug)]
pub(super) struct Intake {
    /// A line that is not whole.
    held: BytesMut,
    lines: u64,
    /// Bytes that may still come.
    left: u64,
    cap: u64,
    progress: Progress,
}

impl Intake {
    /// An upload of at most `cap` bytes.
    pub(super) fn new(cap: u64) -> Self {
        Self { held: BytesMut::new(), lines: 0, left: cap, cap, progress: Progress::default() }
    }

    /// What the lines so far say.
    pub(super) const fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Bytes of memory that it holds: those of a line that is not whole.
    pub(super) fn held(&self) -> usize {
        self.held.capacity()
    }

    /// Whole lines so far, the header among them.
    pub(super) const fn lines(&self) -> u64 {
        self.lines
    }

    /// Takes bytes in and gives the pieces that they complete, which are parts of them wherever a line is not split.
    pub(super) fn feed(&mut self, mut bytes: Bytes, out: &mut Vec<Piece>) -> Result<(), Refusal> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(Refusal::TooMuch(self.cap))?;
        if !self.held.is_empty() {
            let end = line_end(&bytes);
            self.held.extend_from_slice(&bytes.split_to(end.unwrap_or(bytes.len())));
            if end.is_some() {
                let line = std::mem::take(&mut self.held).freeze();
                self.cut(line, out)?;
            }
        }
        self.cut(bytes, out)?;
        let line = self.lines.saturating_add(1);
        if self.held.len() > cap(line) { Err(Refusal::TooLong(line)) } else { Ok(()) }
    }

    /// The upload is over: a last line may lack its newline.
    pub(super) fn end(&mut self, out: &mut Vec<Piece>) -> Result<(), Refusal> {
        if self.held.is_empty() {
            return Ok(());
        }
        let rest = self.held.split().freeze();
        self.look(&rest)?;
        out.push(if self.lines == 1 { Piece::Header(rest) } else { Piece::Lines(rest) });
        Ok(())
    }

    /// Gives the whole lines of `bytes`, and holds the rest.
    fn cut(&mut self, mut bytes: Bytes, out: &mut Vec<Piece>) -> Result<(), Refusal> {
        if self.lines == 0
            && let Some(end) = line_end(&bytes)
        {
            let header = front(&mut bytes, end);
            self.look(&header)?;
            out.push(Piece::Header(header));
        }
        let (mut good, mut result) = (0, Ok(()));
        while let Some(len) = bytes.get(good..).and_then(line_end) {
            let end = good.saturating_add(len);
            result = self.look(bytes.get(good..end).unwrap_or_default());
            if result.is_err() {
                break;
            }
            good = end;
        }
        if good > 0 {
            out.push(Piece::Lines(front(&mut bytes, good)));
        }
        if !bytes.is_empty() {
            self.held.extend_from_slice(&bytes);
        }
        result
    }

    fn look(&mut self, line: &[u8]) -> Result<(), Refusal> {
        look_at(line, MAX_LINE, &mut self.lines, &mut self.progress)
    }
}

/// Takes the first `len` bytes. They share the memory of the rest, unless they would keep more of it than they are.
fn front(bytes: &mut Bytes, len: usize) -> Bytes {
    let front = bytes.split_to(len);
    if front.len() < bytes.len() { Bytes::copy_from_slice(&front) } else { front }
}

/// Cap on the line of this number.
const fn cap(line: u64) -> usize {
    if line == 1 { MAX_HEADER } else { MAX_LINE }
}

/// Index behind the first newline.
fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr(b'\n', bytes).map(|at| at.saturating_add(1))
}

/// Looks at a line of at most `most` bytes. Only event lines are looked at here; the header is read where the owner is known.
pub(super) fn look_at(
    line: &[u8],
    most: usize,
    lines: &mut u64,
    progress: &mut Progress,
) -> Result<(), Refusal> {
    *lines = lines.saturating_add(1);
    if *lines == 1 {
        return Ok(());
    }
    if line.len() > most {
        return Err(Refusal::TooLong(*lines));
    }
    let line = Line::check(line).map_err(|error| Refusal::Line(*lines, error.to_string()))?;
    if line.at < 0.0 {
        return Err(Refusal::Line(*lines, "its time is before the start".to_owned()));
    }
    progress.at = progress.at.max(line.at);
    match line.event {
        Event::Exit(text) => progress.exit = Some(text.chars().take(MAX_EXIT).collect()),
        Event::End(text) => progress.end = Some(text.chars().take(MAX_WORD).collect()),
        Event::Close(text) => progress.outcome = Some(text.chars().take(MAX_WORD).collect()),
        Event::Gap(bytes) | Event::Tampered(bytes) => progress.gap = progress.gap.saturating_add(bytes),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAST: &[u8] =
        b"{\"version\":2}\n[0.5,\"o\",\"a\"]\n[1,\"x-gap\",\"7\"]\n[2.25,\"x-exit\",\"3\"]\n[2,\"x-end\",\"completed\"]\n[2,\"x-close\",\"gap\"]\n";

    fn run(intake: &mut Intake, pieces: &[&[u8]]) -> (Vec<u8>, Result<(), Refusal>) {
        let mut out = Vec::new();
        let mut result = Ok(());
        for piece in pieces {
            result = result.and_then(|()| intake.feed(Bytes::copy_from_slice(piece), &mut out));
        }
        let result = result.and_then(|()| intake.end(&mut out));
        let bytes = out.iter().flat_map(|piece| match piece {
            Piece::Header(bytes) | Piece::Lines(bytes) => bytes.to_vec(),
        });
        (bytes.collect(), result)
    }

    fn intake() -> Intake {
        Intake::new(1 << 30)
    }

    proptest! {
        #[test]
        fn every_byte_comes_out_however_it_came_in(cuts in prop::collection::vec(0..CAST.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(CAST.len());
            let mut from = 0;
            let pieces: Vec<&[u8]> = cuts.iter().map(|to| &CAST[std::mem::replace(&mut from, *to)..*to]).collect();
            let mut intake = intake();
            let (bytes, result) = run(&mut intake, &pieces);
            prop_assert_eq!((bytes.as_slice(), result), (CAST, Ok(())));
            let said = Progress {
                at: 2.25,
                exit: Some("3".into()),
                end: Some("completed".into()),
                outcome: Some("gap".into()),
                gap: 7,
            };
            prop_assert_eq!(intake.progress(), &said);
        }

        #[test]
        fn no_input_panics_or_comes_out_changed(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 0..600_usize) {
            let cut = cut.min(bytes.len());
            let (kept, _) = run(&mut intake(), &[&bytes[..cut], &bytes[cut..]]);
            prop_assert!(bytes.starts_with(&kept));
        }
    }

    #[test]
    fn the_header_comes_first_and_alone() {
        let mut out = Vec::new();
        intake().feed(Bytes::from_static(CAST), &mut out).unwrap();
        assert_eq!(out[0], Piece::Header(Bytes::from_static(b"{\"version\":2}\n")));
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn a_bad_line_is_named_and_what_stood_before_it_is_kept() {
        for bad in [
            "{}",
            "",
            "[1,\"o\"]",
            "[1,\"o\",\"x\"",
            "[\"1\",\"o\",\"x\"]",
            "[-1,\"o\",\"x\"]",
            "[1,\"x-gap\",\"-\"]",
            "null",
        ] {
            let text = format!("{{}}\n[0,\"o\",\"kept\"]\n{bad}\n[1,\"o\",\"not\"]\n");
            let (kept, result) = run(&mut intake(), &[text.as_bytes()]);
            assert_eq!(kept, b"{}\n[0,\"o\",\"kept\"]\n", "{bad}");
            assert!(matches!(result, Err(Refusal::Line(3, _))), "{bad}: {result:?}");
        }
    }

    #[test]
    fn a_last_line_may_lack_its_newline_but_must_be_whole() {
        let (kept, result) = run(&mut intake(), &[b"{}\n[0,\"o\",\"x\"]"]);
        assert_eq!((kept.as_slice(), result), (&b"{}\n[0,\"o\",\"x\"]"[..], Ok(())));
        let (kept, result) = run(&mut intake(), &[b"{}\n[0,\"o\",\"x"]);
        assert_eq!(kept, b"{}\n");
        assert!(result.is_err());
    }

    #[test]
    fn lines_and_uploads_have_caps() {
        let header = vec![b'x'; MAX_HEADER + 1];
        assert_eq!(run(&mut intake(), &[&header]).1, Err(Refusal::TooLong(1)));
        let line = format!("[0,\"o\",\"{}\"]\n", "x".repeat(MAX_LINE));
        assert_eq!(run(&mut intake(), &[b"{}\n", line.as_bytes()]).1, Err(Refusal::TooLong(2)));
        let open = vec![b'['; MAX_LINE + 1];
        assert_eq!(run(&mut intake(), &[b"{}\n", &open]).1, Err(Refusal::TooLong(2)));
        assert_eq!(run(&mut Intake::new(4), &[b"{}\n", b"[0"]).1, Err(Refusal::TooMuch(4)));
    }
}
