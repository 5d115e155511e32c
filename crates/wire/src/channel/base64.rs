//! Messages of the base64 versions: a digit for the channel, then base64 of the payload.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::ChannelError;
use crate::ws::Payload;

/// Digits of one quantum, and the bytes that they stand for.
const QUANTUM: usize = 4;
/// Digits that are decoded at once, a multiple of [`QUANTUM`].
const CHUNK: usize = 1024;
const DECODED: usize = CHUNK / QUANTUM * 3;

/// The channel that a digit names.
pub(super) const fn channel(digit: u8) -> u8 {
    digit.wrapping_sub(b'0')
}

/// A channel as its digit, then `payload` in base64.
pub(super) fn message(channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![b'0' + channel];
    message.extend_from_slice(STANDARD.encode(payload).as_bytes());
    message
}

/// Decodes the payload of one message at a time, in pieces of any size.
///
/// Cursor: `0 <= have < 4` digits of the open quantum have come.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    quantum: [u8; QUANTUM],
    have: usize,
    /// Padding has come, behind which nothing follows.
    padded: bool,
    broken: bool,
}

impl Base64 {
    /// Shows what `payload` decodes to.
    pub(super) fn feed(
        &mut self,
        payload: Payload<'_>,
        mut see: impl FnMut(Payload<'_>),
    ) -> Result<(), ChannelError> {
        payload.read(|digits| {
            self.broken = self.broken || self.digits(digits, &mut see).is_err();
        });
        if self.broken { Err(ChannelError::Base64) } else { Ok(()) }
    }

    /// The message is whole: the next begins anew.
    pub(super) fn end(&mut self) -> Result<(), ChannelError> {
        let Self { have, broken, .. } = std::mem::take(self);
        if broken || have > 0 { Err(ChannelError::Base64) } else { Ok(()) }
    }

    fn digits(&mut self, mut digits: &[u8], see: &mut impl FnMut(Payload<'_>)) -> Result<(), ChannelError> {
        if self.have > 0 {
            digits = self.fill(digits);
            if self.have < QUANTUM {
                return Ok(());
            }
            self.have = 0;
            let quantum = self.quantum;
            self.decode(&quantum, see)?;
        }
        let (whole, rest) = digits.split_at(digits.len() / QUANTUM * QUANTUM);
        for chunk in whole.chunks(CHUNK) {
            self.decode(chunk, see)?;
        }
        self.fill(rest);
        Ok(())
    }

    /// Moves digits into the open quantum; gives back those that have no room there.
    fn fill<'a>(&mut self, digits: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = digits.split_at(digits.len().min(QUANTUM - self.have));
        for (slot, digit) in self.quantum.iter_mut().skip(self.have).zip(taken) {
            *slot = *digit;
        }
        self.have += taken.len();
        rest
    }

    /// Where something is wrong, what stands before it is shown all the same, wherever the message was cut.
    fn decode(&mut self, digits: &[u8], see: &mut impl FnMut(Payload<'_>)) -> Result<(), ChannelError> {
        if self.decode_whole(digits, see).is_ok() {
            return Ok(());
        }
        digits.chunks(QUANTUM).try_for_each(|quantum| self.decode_whole(quantum, see))
    }

    fn decode_whole(&mut self, digits: &[u8], see: &mut impl FnMut(Payload<'_>)) -> Result<(), ChannelError> {
        let mut decoded = [0; DECODED];
        let len = STANDARD.decode_slice_unchecked(digits, &mut decoded);
        let bytes = len.ok().filter(|_| !self.padded).and_then(|len| decoded.get(..len));
        let bytes = bytes.ok_or(ChannelError::Base64)?;
        self.padded = digits.ends_with(b"=");
        see(Payload::plain(bytes));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::in_pieces;

    fn decode(pieces: &[&[u8]]) -> (Vec<u8>, Result<(), ChannelError>) {
        let (mut base64, mut decoded) = (Base64::default(), vec![]);
        let mut feed =
            |piece| base64.feed(Payload::plain(piece), |b| b.read(|b| decoded.extend_from_slice(b)));
        let fed = pieces.iter().copied().try_for_each(&mut feed);
        (decoded, base64.end().and(fed))
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for digits in [&b"YQ"[..], b"YQ=", b"YR==", b"Y!==", b"YQ==YQ==", b"YQ==\n", b"====", b"Y=Q="] {
            assert_eq!(decode(&[digits]).1, Err(ChannelError::Base64), "{digits:?}");
            let digits: Vec<&[u8]> = digits.chunks(1).collect();
            assert_eq!(decode(&digits).1, Err(ChannelError::Base64), "{digits:?}");
        }
    }

    #[test]
    fn the_next_message_begins_anew() {
        let mut base64 = Base64::default();
        let mut feed =
            |digits: &[u8]| base64.feed(Payload::plain(digits), |_| {}).and_then(|()| base64.end());
        assert_eq!(feed(b"YQ"), Err(ChannelError::Base64));
        assert_eq!((feed(b"YQ=="), feed(b"YWI="), feed(b"")), (Ok(()), Ok(()), Ok(())));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_wherever_it_is_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..3000), cuts in prop::collection::vec(0usize..4096, 0..8)
        ) {
            let digits = message(3, &bytes);
            prop_assert_eq!(channel(digits[0]), 3);
            prop_assert_eq!(decode(&in_pieces(&digits[1..], &cuts)), (bytes, Ok(())));
        }

        #[test]
        fn the_answer_does_not_depend_on_cuts(
            digits in "[A-D=\n]{0,8}([A-D]{4}){0,300}[A-D=]{0,40}", cuts in prop::collection::vec(0usize..64, 0..6)
        ) {
            prop_assert_eq!(decode(&in_pieces(digits.as_bytes(), &cuts)), decode(&[digits.as_bytes()]));
        }
    }
}
