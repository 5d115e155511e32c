//! One recording out of its parts, as a sequence of pieces of files.
//!
//! The first part comes whole, later ones without their header. Each part ends where the next one begins, and at its
//! last whole line: what a crash tore off is left out.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    ops::Range,
    path::PathBuf,
};

use bytes::Bytes;

use super::readable::Readable;

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

#[derive(Debug)]
struct Piece {
    file: File,
    range: Range<u64>,
}

impl Joined {
    /// Opens parts, given as file, length of the header line, and offset, in order.
    pub(super) fn open(parts: &[(PathBuf, u64, u64)]) -> io::Result<Self> {
        let mut pieces = Vec::with_capacity(parts.len());
        for (number, (path, header, offset)) in parts.iter().enumerate() {
            let mut file = File::open(path)?;
            let mut end = whole_lines(&mut file)?;
            if let Some((.., next)) = parts.get(number.saturating_add(1)) {
                end = end.min(header.saturating_add(next.saturating_sub(*offset)));
            }
            let start = if number == 0 { 0 } else { *header };
            pieces.push(Piece { file, range: start.min(end)..end });
        }
        let length = pieces.iter().map(|piece| piece.range.end.saturating_sub(piece.range.start)).sum();
        Ok(Self { pieces, length })
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
            piece.file.seek(SeekFrom::Start(piece.range.start.saturating_add(inside)))?;
            let mut bytes = Vec::new();
            let most = length.saturating_sub(inside).min(CHUNK);
            (&mut piece.file).take(most).read_to_end(&mut bytes)?;
            return if bytes.is_empty() {
                Err(io::ErrorKind::UnexpectedEof.into())
            } else {
                Ok(bytes.into())
            };
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

    fn part(dir: &Path, name: &str, header: &str, lines: &str, offset: u64) -> (PathBuf, u64, u64) {
        let path = dir.join(name);
        std::fs::write(&path, format!("{header}{lines}")).unwrap();
        (path, header.len() as u64, offset)
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
}
