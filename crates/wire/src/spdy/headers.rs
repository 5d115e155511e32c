//! A header block after it was inflated: names and values, each behind its length.

use super::SpdyError;

/// Cap on the bytes of an inflated block.
pub const MAX_BLOCK: usize = 256 << 10;
/// Cap on the headers of a block.
pub const MAX_HEADERS: u32 = 256;

/// Separates the values of one header.
const SEPARATOR: u8 = 0;

/// The headers of one block.
#[derive(Clone, Copy)]
pub struct Headers<'a> {
    pairs: &'a [u8],
}

impl<'a> Headers<'a> {
    /// The headers of a block that holds exactly these. Bytes behind them would be read by the other end as the
    /// beginning of the next block.
    pub(super) fn check(block: &'a [u8]) -> Result<Self, SpdyError> {
        let (count, pairs) = number(block).ok_or(SpdyError::Headers)?;
        let headers = Self { pairs };
        if count > MAX_HEADERS || !headers.are(count) {
            return Err(SpdyError::Headers);
        }
        Ok(headers)
    }

    /// The headers of a block that was checked before; none of an empty one.
    pub(super) fn checked(block: &'a [u8]) -> Self {
        Self { pairs: number(block).map_or(&[], |(_, pairs)| pairs) }
    }

    /// The first value of the first header with that name, as Go's `http.Header` has it: letter case does not count.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        let (_, values) = self.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))?;
        values.split(|byte| *byte == SEPARATOR).next()
    }

    /// Whether these are `count` headers with nothing left over.
    fn are(self, count: u32) -> bool {
        let mut pairs = self.into_iter();
        let found = pairs.by_ref().count();
        pairs.rest.is_empty() && u32::try_from(found) == Ok(count)
    }
}

/// What a client says of its streams is for [`Headers::get`] only.
impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Headers({} bytes)", self.pairs.len())
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Pairs<'a>;

    fn into_iter(self) -> Pairs<'a> {
        Pairs { rest: self.pairs }
    }
}

/// Names with their values.
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = text(self.rest)?;
        let (value, rest) = text(rest)?;
        self.rest = rest;
        Some((name, value))
    }
}

fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = number(bytes)?;
    rest.split_at_checked(usize::try_from(len).ok()?)
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spdy::block;

    #[test]
    fn a_header_is_found_by_its_name_and_first_value() {
        let block = block(&[("port", "80"), ("StreamType", "stdout\0stdin"), ("streamtype", "stdin")]);
        let headers = Headers::check(&block).unwrap();
        assert_eq!(headers.get("streamtype"), Some(&b"stdout"[..]));
        assert_eq!(headers.get("stream"), None);
        assert_eq!(headers.into_iter().count(), 3);
    }

    #[test]
    fn only_a_block_that_is_exactly_its_headers_counts() {
        let whole = block(&[("a", "1"), ("b", "2")]);
        assert!(Headers::check(&whole).is_ok() && Headers::check(&block(&[])).is_ok());
        for len in 0..whole.len() {
            assert!(Headers::check(&whole[..len]).is_err(), "{len}");
        }
        let longer = [whole.as_slice(), b"x"].concat();
        let fewer = [&[0, 0, 0, 1], &whole[4..]].concat();
        for wrong in [longer, fewer] {
            assert_eq!(Headers::check(&wrong).unwrap_err(), SpdyError::Headers);
        }
    }

    #[test]
    fn headers_are_counted() {
        let names: Vec<String> = (0..=MAX_HEADERS).map(|n| n.to_string()).collect();
        let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert!(Headers::check(&block(&pairs[1..])).is_ok());
        assert!(Headers::check(&block(&pairs)).is_err());
        assert!(Headers::check(&u32::MAX.to_be_bytes()).is_err());
    }
}
