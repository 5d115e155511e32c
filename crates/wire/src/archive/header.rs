//! A header block.

use super::BLOCK;

/// What stands in a header block.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) kind: Kind,
    pub(super) prefix: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) link: &'a [u8],
    pub(super) size: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Member { has_content: bool, is_link: bool },
    Extended(Which),
}

/// Headers that belong to the next member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Which {
    /// `x` of pax.
    Next,
    /// `g` of pax, for all that follow; nothing is taken from it.
    Global,
    /// `L` of GNU.
    LongName,
    /// `K` of GNU.
    LongLink,
}

impl<'a> Header<'a> {
    /// Reads a block that has a magic and a checksum, and is of a kind that is followed.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Option<Self> {
        let magic = block.get(257..263)?;
        let posix = magic == b"ustar\0";
        if !posix && magic != b"ustar " {
            return None;
        }
        if number(block.get(148..156)?)? != checksum(block) {
            return None;
        }
        Some(Self {
            kind: kind(*block.get(156)?)?,
            // Elsewhere other things stand there.
            prefix: if posix { text(block.get(345..500)?) } else { &[] },
            name: text(block.get(..100)?),
            link: text(block.get(157..257)?),
            size: number(block.get(124..136)?)?,
        })
    }
}

const fn kind(flag: u8) -> Option<Kind> {
    Some(match flag {
        0 | b'0' | b'7' => Kind::Member { has_content: true, is_link: false },
        b'1' | b'2' => Kind::Member { has_content: false, is_link: true },
        b'3'..=b'6' => Kind::Member { has_content: false, is_link: false },
        b'x' => Kind::Extended(Which::Next),
        b'g' => Kind::Extended(Which::Global),
        b'L' => Kind::Extended(Which::LongName),
        b'K' => Kind::Extended(Which::LongLink),
        _ => return None,
    })
}

/// The sum of all bytes, with spaces in place of the sum.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let byte = |(at, byte): (usize, &u8)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte });
    block.iter().enumerate().map(byte).sum()
}

/// A number in octal digits, or in binary where the first bit is set.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let high = u64::from(first & 0x7f);
        return rest.iter().try_fold(high, |number, byte| Some(number.checked_mul(256)? | u64::from(*byte)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    digits.get(..end)?.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// What stands before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}
