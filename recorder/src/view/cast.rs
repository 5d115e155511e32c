//! One recording out of its parts, as a sequence of pieces of files.
//!
//! The first part comes whole, later ones without their header. Each part ends where the next one begins, and at its
//! last whole line: what a crash tore off is left out.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    ops::Range,
};

use bytes::Bytes;

use super::{bucket_index::BucketPart, readable::Readable, scan::Source};

/// Longest read at once.
const CHUNK: u64 = 64 << 10;
/// How far back a last newline is looked for: further than any line that is stored.
const MAX_TAIL: u64 = (1 << 20) + 1;

/// A recording that can be read from anywhere.
#[derive(Debug)]
pub(super) struct Joined {
    pieces: Vec<Piece>,
    length: u64,
}

/// A part as it is to be joined.
#[derive(Clone, Debug)]
pub(super) struct PartPiece {
    /// Where it lies.
    pub(super) source: Source,
    /// Bytes of its header line.
    pub(super) header: u64,
    /// Bytes of event lines before it.
    pub(super) offset: u64,
    /// Its bytes, once it has ended.
    pub(super) bytes: Option<u64>,
}

#[derive(Debug)]
struct Piece {
    body: Body,
    range: Range<u64>,
}

#[derive(Debug)]
enum Body {
    File(File),
    /// With the segment that was read last, and where it begins.
    Bucket(BucketPart, Option<(u64, Bytes)>),
}

impl Joined {
    /// Opens parts, in order.
    pub(super) fn open(parts: &[PartPiece]) -> io::Result<Self> {
        let mut pieces = Vec::with_capacity(parts.len());
        for (number, part) in parts.iter().enumerate() {
            let (body, mut end) = Body::open(&part.source)?;
            end = end.min(part.bytes.unwrap_or(u64::MAX));
            if let Some(next) = parts.get(number.saturating_add(1)) {
                end = end.min(part.header.saturating_add(next.offset.saturating_sub(part.offset)));
            }
            let start = if number == 0 { 0 } else { part.header };
            pieces.push(Piece { body, range: start.min(end)..end });
        }
        let length = pieces.iter().map(|piece| piece.range.end.saturating_sub(piece.range.start)).sum();
        Ok(Self { pieces, length })
    }
}

impl Body {
    /// With its length up to the last whole line.
    fn open(source: &Source) -> io::Result<(Self, u64)> {
        match source {
            Source::File(path) => {
                let mut file = File::open(path)?;
                let end = whole_lines(&mut file)?;
                Ok((Self::File(file), end))
            }
            // What was torn off is behind the end that the manifest has; before there is one, only whole lines are there.
            Source::Bucket(part) => Ok((Self::Bucket(part.clone(), None), part.length())),
        }
    }

    /// Some of at most `most` bytes.
    fn read(&mut self, at: u64, most: u64) -> io::Result<Bytes> {
        match self {
            Self::File(file) => {
                file.seek(SeekFrom::Start(at))?;
                let mut bytes = Vec::new();
                file.take(most.min(CHUNK)).read_to_end(&mut bytes)?;
                Ok(bytes.into())
            }
            Self::Bucket(part, last) => {
                let inside = |(start, lines): &(u64, Bytes)| {
                    let from = usize::try_from(at.checked_sub(*start)?).ok()?;
                    let lines = lines.get(from..).filter(|lines| !lines.is_empty())?;
                    let most = usize::try_from(most).unwrap_or(usize::MAX).min(lines.len());
                    Some(lines.get(..most).map(Bytes::copy_from_slice).unwrap_or_default())
                };
                if let Some(bytes) = last.as_ref().and_then(inside) {
                    return Ok(bytes);
                }
                let read = last.insert(part.segment(at)?);
                Ok(inside(read).unwrap_or_default())
            }
        }
    }
}

impl Readable for Joined {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&mut self, at: u64) -> io::Result<Bytes> {
        let mut before = 0_u64;
        for piece in &mut self.pieces {
            let length = piece.range.end.saturating_sub(piece.range.start);
            let Some(inside) = at.checked_sub(before).filter(|inside| *inside < length) else {
                before = before.saturating_add(length);
                continue;
            };
            let from = piece.range.start.saturating_add(inside);
            let bytes = piece.body.read(from, length.saturating_sub(inside))?;
            return if bytes.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) };
        }
        Ok(Bytes::new())
    }
}

/// Length of the file up to its last whole line. A file that ends in no newline but whose last line is whole (which
/// only an ended upload can have) is taken whole.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(MAX_TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(MAX_TAIL).read_to_end(&mut tail)?;
    let cut = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
    let last = tail.get(cut..).unwrap_or_default();
    if serde_json::from_slice::<serde::de::IgnoredAny>(last).is_ok() {
        return Ok(from.saturating_add(tail.len() as u64));
    }
    Ok(from.saturating_add(cut as u64))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read_all(joined: &mut Joined, from: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let chunk = joined.read(from + bytes.len() as u64).unwrap();
            if chunk.is_empty() {
                return bytes;
            }
            bytes.extend_from_slice(&chunk);
        }
    }

    fn part(dir: &Path, name: &str, header: &str, lines: &str, offset: u64) -> PartPiece {
        let path = dir.join(name);
        std::fs::write(&path, format!("{header}{lines}")).unwrap();
        PartPiece { source: Source::File(path), header: header.len() as u64, offset, bytes: None }
    }

    const A: &str = "[1,\"o\",\"a\"]\n";
    const B: &str = "[2,\"o\",\"b\"]\n";
    const C: &str = "[3,\"o\",\"c\"]\n";

    #[test]
    fn parts_are_joined_where_the_next_one_begins() {
        let dir = tempfile::tempdir().unwrap();
        let line = A.len() as u64;
        let parts = [
            part(dir.path(), "0", "{\"part\":0}\n", &format!("{A}{B}"), 0),
            part(dir.path(), "1", "{\"part\":10}\n", &format!("{B}{C}"), line),
            part(dir.path(), "2", "{}\n", C, 2 * line),
        ];
        let mut joined = Joined::open(&parts).unwrap();
        let expected = format!("{{\"part\":0}}\n{A}{B}{C}");
        assert_eq!(joined.length(), expected.len() as u64);
        for from in 0..expected.len() {
            assert_eq!(read_all(&mut joined, from as u64), &expected.as_bytes()[from..], "{from}");
        }
    }

    #[test]
    fn what_is_missing_between_parts_leaves_no_hole() {
        let dir = tempfile::tempdir().unwrap();
        let parts = [part(dir.path(), "0", "{}\n", A, 0), part(dir.path(), "1", "{}\n", C, 1000)];
        assert_eq!(read_all(&mut Joined::open(&parts).unwrap(), 0), format!("{{}}\n{A}{C}").as_bytes());
    }

    #[test]
    fn offsets_that_run_backwards_take_nothing_twice_and_do_not_panic() {
        let dir = tempfile::tempdir().unwrap();
        let parts = [part(dir.path(), "0", "{}\n", A, 500), part(dir.path(), "1", "{}\n", C, 0)];
        assert_eq!(read_all(&mut Joined::open(&parts).unwrap(), 0), format!("{{}}\n{C}").as_bytes());
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_a_whole_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        for (lines, expected) in [
            ("[1,\"o\",\"a\"]\n[2,\"o\",", "{}\n[1,\"o\",\"a\"]\n"),
            ("[1,\"o\",\"a\"]\n[2,\"o\",\"b\"]", "{}\n[1,\"o\",\"a\"]\n[2,\"o\",\"b\"]"),
            ("", "{}\n"),
        ] {
            let parts = [part(dir.path(), "0", "{}\n", lines, 0)];
            assert_eq!(read_all(&mut Joined::open(&parts).unwrap(), 0), expected.as_bytes(), "{lines:?}");
        }
        let torn = [part(dir.path(), "0", "{\"ver", "", 0)];
        assert_eq!(Joined::open(&torn).unwrap().length(), 0);
    }

    #[test]
    fn what_a_crash_left_behind_the_end_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut torn = part(dir.path(), "0", "{}\n", &format!("{A}\0\0\n"), 0);
        torn.bytes = Some(3 + A.len() as u64);
        assert_eq!(read_all(&mut Joined::open(&[torn]).unwrap(), 0), format!("{{}}\n{A}").as_bytes());
    }
}
