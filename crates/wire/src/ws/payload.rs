//! A piece of payload that is unmasked only where somebody looks at it.

/// Bytes of payload as they stood on the wire, with the key that unmasks them.
///
/// Whoever does not ask for the bytes never makes a readable copy of them: what a client types stays masked.
#[derive(Clone, Copy)]
pub struct Payload<'a> {
    bytes: &'a [u8],
    /// The key, turned so that it begins at the first byte here.
    key: Option<[u8; 4]>,
}

/// Masked bytes are unmasked through a buffer of this size, a multiple of the key's.
const SCRATCH: usize = 1024;

impl<'a> Payload<'a> {
    /// Payload without a mask.
    #[must_use]
    pub const fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes, key: None }
    }

    pub(super) const fn masked(bytes: &'a [u8], key: Option<[u8; 4]>) -> Self {
        Self { bytes, key }
    }

    /// Number of bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The first byte, unmasked, and the payload behind it.
    #[must_use]
    pub fn split_first(self) -> Option<(u8, Self)> {
        let (first, bytes) = self.bytes.split_first()?;
        let Some(key) = self.key else { return Some((*first, Self { bytes, key: None })) };
        let [mask, ..] = key;
        Some((first ^ mask, Self { bytes, key: Some(turn(key, 1)) }))
    }

    /// Shows the unmasked bytes, in as many pieces as it takes: one, where there is no mask.
    pub fn read(self, mut see: impl FnMut(&[u8])) {
        let Some(key) = self.key else { return see(self.bytes) };
        let mut scratch = [0; SCRATCH];
        for piece in self.bytes.chunks(SCRATCH) {
            for ((clear, byte), mask) in scratch.iter_mut().zip(piece).zip(key.iter().cycle()) {
                *clear = byte ^ mask;
            }
            see(scratch.get(..piece.len()).unwrap_or_default());
        }
    }
}

/// Masked or not, what was said is for [`Payload::read`] only.
impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.bytes.len())
    }
}

/// The key as it stands `by` bytes later.
pub(super) const fn turn(key: [u8; 4], by: usize) -> [u8; 4] {
    u32::from_be_bytes(key).rotate_left(8 * (by % 4) as u32).to_be_bytes()
}
