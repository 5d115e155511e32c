//! Header blocks, read as they are inflated: names and values, each behind its length. Of all that a block says only
//! what a stream is for is kept.

/// Longest value that is kept; no kind of a stream and no port is longer.
pub const MAX_VALUE: usize = 64;

/// Separates the values of one header.
const SEPARATOR: u8 = 0;
const KEPT: [&[u8]; 2] = [b"streamtype", b"port"];
const MAX_NAME: usize = 10;

/// What a header block says of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers {
    values: [Option<Value>; KEPT.len()],
}

/// As much of a value as is kept.
#[derive(Clone, Copy, Debug)]
struct Value {
    bytes: [u8; MAX_VALUE],
    len: usize,
    cut: bool,
}

/// Follows one header block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Block {
    expects: Expects,
    /// As much of a number as has come: its bytes, and how many they are.
    number: (u32, u8),
    /// Headers that have not come.
    count: u32,
    name: [u8; MAX_NAME],
    name_len: usize,
    headers: Headers,
}

/// What the next byte of a block belongs to, and how many of it have not come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Expects {
    #[default]
    Count,
    NameLength,
    Name(u32),
    ValueLength,
    Value(u32, Option<usize>),
    Nothing,
}

impl Headers {
    /// The first value of the first header `streamtype`, as Go's `http.Header` has it: letter case does not count.
    #[must_use]
    pub fn stream_type(&self) -> Option<&[u8]> {
        self.value(0).map(|(value, _)| value)
    }

    /// The same of the header `port`, and whether it was longer than what is kept.
    #[must_use]
    pub fn port(&self) -> Option<(&[u8], bool)> {
        self.value(1)
    }

    fn value(&self, at: usize) -> Option<(&[u8], bool)> {
        let value = self.values.get(at)?.as_ref()?;
        let kept = value.bytes.get(..value.len)?;
        match kept.iter().position(|byte| *byte == SEPARATOR) {
            Some(end) => Some((kept.get(..end)?, false)),
            None => Some((kept, value.cut)),
        }
    }
}

impl Block {
    /// Takes what belongs to the block off the beginning of `bytes`, and tells how much that is.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some(taken) = self.step(rest).filter(|taken| *taken > 0) {
            rest = rest.get(taken..).unwrap_or_default();
        }
        bytes.len() - rest.len()
    }

    /// Whether all of it has come.
    pub(super) fn is_whole(&self) -> bool {
        self.expects == Expects::Nothing
    }

    pub(super) const fn headers(&self) -> Headers {
        self.headers
    }

    /// Takes the next bytes that belong together, as far as they have come.
    fn step(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.expects {
            Expects::Nothing => None,
            Expects::Count | Expects::NameLength | Expects::ValueLength => {
                let (number, have) = self.number;
                self.number = (number << 8 | u32::from(*bytes.first()?), have + 1);
                if have == 3 {
                    let (number, _) = std::mem::take(&mut self.number);
                    self.number_is(number);
                }
                Some(1)
            }
            Expects::Name(left) => {
                let piece = front(bytes, left);
                keep(&mut self.name, self.name_len, piece);
                self.name_len += piece.len();
                self.expects = Expects::Name(left - count(piece));
                self.settle();
                Some(piece.len())
            }
            Expects::Value(left, at) => {
                let piece = front(bytes, left);
                if let Some(value) = at.and_then(|at| self.headers.values.get_mut(at)?.as_mut()) {
                    let kept = keep(&mut value.bytes, value.len, piece);
                    value.len += kept;
                    value.cut |= kept < piece.len();
                }
                self.expects = Expects::Value(left - count(piece), at);
                self.settle();
                Some(piece.len())
            }
        }
    }

    fn number_is(&mut self, number: u32) {
        match self.expects {
            Expects::Count => (self.count, self.expects) = (number, Expects::NameLength),
            Expects::NameLength => (self.name_len, self.expects) = (0, Expects::Name(number)),
            Expects::ValueLength => self.expects = Expects::Value(number, self.begin_value()),
            Expects::Name(_) | Expects::Value(..) | Expects::Nothing => {}
        }
        self.settle();
    }

    /// Goes on to what follows where nothing is left of what is expected.
    fn settle(&mut self) {
        match self.expects {
            Expects::Name(0) => self.expects = Expects::ValueLength,
            Expects::Value(0, _) => {
                self.count = self.count.saturating_sub(1);
                self.expects = Expects::NameLength;
            }
            _ => {}
        }
        if self.expects == Expects::NameLength && self.count == 0 {
            self.expects = Expects::Nothing;
        }
    }

    /// Where the value whose name has come is kept, if it is the first of a name that counts.
    fn begin_value(&mut self) -> Option<usize> {
        let name = self.name.get(..self.name_len)?;
        let at = KEPT.iter().position(|kept| kept.eq_ignore_ascii_case(name))?;
        let slot = self.headers.values.get_mut(at).filter(|slot| slot.is_none())?;
        *slot = Some(Value { bytes: [0; MAX_VALUE], len: 0, cut: false });
        Some(at)
    }
}

/// The beginning of `bytes`, at most `left` of them.
fn front(bytes: &[u8], left: u32) -> &[u8] {
    bytes.get(..bytes.len().min(left as usize)).unwrap_or_default()
}

/// A number of bytes of which there are no more than a `u32` says.
fn count(piece: &[u8]) -> u32 {
    u32::try_from(piece.len()).unwrap_or(u32::MAX)
}

/// Copies what has room behind the first `have` bytes, and tells how much that is.
fn keep(room: &mut [u8], have: usize, piece: &[u8]) -> usize {
    let room = room.get_mut(have..).unwrap_or_default();
    for (slot, byte) in room.iter_mut().zip(piece) {
        *slot = *byte;
    }
    room.len().min(piece.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{in_pieces, spdy::block};

    fn read(bytes: &[u8]) -> (Headers, usize, bool) {
        let mut block = Block::default();
        let taken = block.feed(bytes);
        (block.headers(), taken, block.is_whole())
    }

    #[test]
    fn a_header_is_found_by_its_name_and_first_value() {
        let pairs = [
            ("streamtyp", "no"),
            ("streamtypes", "no"),
            ("StreamType", "stdout\0stdin"),
            ("port", "80"),
            ("streamtype", "stdin"),
        ];
        let block = block(&pairs);
        let (headers, taken, whole) = read(&block);
        assert_eq!(
            (headers.stream_type(), headers.port()),
            (Some(&b"stdout"[..]), Some((&b"80"[..], false)))
        );
        assert_eq!((taken, whole), (block.len(), true));
    }

    #[test]
    fn a_block_ends_with_its_last_header() {
        let whole = block(&[("a", ""), ("", "2")]);
        for len in 0..whole.len() {
            assert!(!read(&whole[..len]).2, "{len}");
        }
        let more = [&whole, &b"more"[..]].concat();
        assert_eq!((read(&more).1, read(&more).2), (whole.len(), true));
        assert_eq!((read(&block(&[])).1, read(&block(&[])).2), (4, true));
        assert!(!read(&[0xff; 4]).2);
    }

    #[test]
    fn of_a_long_value_the_beginning_is_kept() {
        let long = "0".repeat(MAX_VALUE + 1);
        let (headers, ..) = read(&block(&[("port", &long), ("streamtype", &format!("data\0{long}"))]));
        assert_eq!(headers.port(), Some((&long.as_bytes()[1..], true)));
        assert_eq!(headers.stream_type(), Some(&b"data"[..]));
        assert!(read(&block(&[("x", "y")])).0.port().is_none());
    }

    proptest! {
        #[test]
        fn headers_are_the_same_wherever_the_block_is_cut(
            pairs in prop::collection::vec(("streamtype|port|[a-z]{0,12}", "[a-z\0]{0,80}"), 0..6),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
            let bytes = block(&pairs);
            let mut cut = Block::default();
            let taken: usize = in_pieces(&bytes, &cuts).into_iter().map(|piece| cut.feed(piece)).sum();
            let (whole, ..) = read(&bytes);
            prop_assert_eq!((taken, cut.is_whole()), (bytes.len(), true));
            let cut = cut.headers();
            prop_assert_eq!(cut.stream_type(), whole.stream_type());
            prop_assert_eq!(cut.port(), whole.port());
            let first = |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.split('\0').next().unwrap());
            let expected = first("streamtype").map(|value| &value.as_bytes()[..value.len().min(MAX_VALUE)]);
            prop_assert_eq!(whole.stream_type(), expected);
        }
    }
}
