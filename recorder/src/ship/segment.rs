//! Segments: whole lines as independent zstd frames, so that segments behind each other are a zstd file too.

use std::io;

use bytes::Bytes;
use podwitness_wire::pack::{Unpacker, cut, pack};

/// Cap on the bytes of a segment, before compression.
pub const MAX_SEGMENT: usize = 1 << 20;
/// Cap on the bytes of a segment as it is stored: what cannot be compressed grows a little.
pub const MAX_STORED: u64 = (MAX_SEGMENT as u64) + (64 << 10);

/// Makes a segment.
///
/// # Errors
/// Where the library gives up.
pub fn make(mut lines: &[u8]) -> io::Result<Bytes> {
    let mut out = Vec::new();
    while let Some((frame, rest)) = lines.split_at_checked(cut(lines)).filter(|(frame, _)| !frame.is_empty())
    {
        out.extend_from_slice(&pack(frame).map_err(io::Error::other)?);
        lines = rest;
    }
    Ok(out.into())
}

/// What a segment holds.
///
/// # Errors
/// Where it is none, or holds more than a segment may.
pub fn read(mut stored: Bytes) -> io::Result<Bytes> {
    let (mut unpacker, mut lines) = (Unpacker::new(), Vec::new());
    while let Some(frame) = unpacker.unpack(&mut stored).map_err(io::Error::other)? {
        if lines.len().saturating_add(frame.len()) > MAX_SEGMENT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a segment holds too much"));
        }
        lines.extend_from_slice(&frame);
    }
    if unpacker.at_rest() { Ok(lines.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// How many of `lines` belong into one segment: up to its last whole line, where that is not all there is.
#[must_use]
pub fn length(lines: &[u8], all: bool) -> usize {
    let within = lines.get(..MAX_SEGMENT).unwrap_or(lines);
    if all && within.len() == lines.len() {
        return lines.len();
    }
    // A line is never longer than a segment; what is none is cut anywhere.
    within.iter().rposition(|byte| *byte == b'\n').map_or(within.len(), |at| at.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_comes_back_and_two_behind_each_other_do() {
        let lines = "[1,\"o\",\"some words that come again\"]\n".repeat(20_000);
        let length = length(lines.as_bytes(), false);
        let (first, second) = lines.as_bytes().split_at(length);
        assert!(first.len() > MAX_SEGMENT / 2 && first.ends_with(b"\n"));
        let (one, two) = (make(first).unwrap(), make(second).unwrap());
        assert_eq!(read(one.clone()).unwrap(), first);
        let both = [&one[..], &two[..]].concat();
        assert_eq!(zstd_of(&both), lines.as_bytes());
        assert!(read(one.slice(..one.len() - 1)).is_err());
    }

    fn zstd_of(stored: &[u8]) -> Vec<u8> {
        let (mut bytes, mut all, mut unpacker) =
            (Bytes::copy_from_slice(stored), Vec::new(), Unpacker::new());
        while let Some(frame) = unpacker.unpack(&mut bytes).unwrap() {
            all.extend_from_slice(&frame);
        }
        all
    }

    #[test]
    fn segments_end_with_lines() {
        assert_eq!(length(b"a\nb\nc", true), 5);
        assert_eq!(length(b"a\nb\nc", false), 4);
        assert_eq!(length(b"abc", false), 3);
        let long = vec![b'x'; MAX_SEGMENT + 5];
        assert_eq!(length(&long, true), MAX_SEGMENT);
    }

    #[test]
    fn what_cannot_be_compressed_stays_within_the_cap() {
        let mut seed = 1_u64;
        let noise: Vec<u8> = (0..MAX_SEGMENT)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        assert!((make(&noise).unwrap().len() as u64) < MAX_STORED);
    }
}
