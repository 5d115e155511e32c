//! What a person could have read.

/// Bytes that are judged together.
pub const PIECE: usize = 512;
/// Less than this is always held to be readable: nothing is gained by leaving it out, and a character may be cut.
const LITTLE: usize = 64;

/// Whether somebody could read up to [`PIECE`] bytes on a screen: of all signs that a terminal shows for them, two in
/// three are characters. Bytes for which it shows nothing (NUL, most controls) do not count, so that text cannot be
/// thinned out with them, up to eight bytes for a character.
///
/// Random and compressed bytes are far from it (less than half of their signs are characters), programs mostly.
#[must_use]
pub fn is_readable(bytes: &[u8]) -> bool {
    if bytes.len() < LITTLE {
        return true;
    }
    let (mut characters, mut broken) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        characters += chunk.valid().chars().filter(|c| !c.is_control()).count();
        broken += chunk.invalid().len();
    }
    characters * 8 >= bytes.len() && characters >= 2 * broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_left_out(bytes: &[u8]) -> bool {
        bytes.chunks(PIECE).all(|piece| !is_readable(piece))
    }

    fn is_kept(bytes: &[u8]) -> bool {
        bytes.chunks(PIECE).all(is_readable)
    }

    #[test]
    fn text_of_any_script_is_readable_wherever_it_is_cut() {
        for text in
            ["root:x:0:0:root:/root:/bin/sh\n", "Съешь же ещё этих булок\n", "吾輩は猫である。", "😀😃 "]
        {
            let text = text.repeat(100);
            for cut in 0..PIECE {
                assert!(is_kept(&text.as_bytes()[cut..]), "{text:.20} from {cut}");
            }
        }
    }

    #[test]
    fn text_cannot_be_thinned_out_with_what_is_not_seen() {
        let text = b"root:x:0:0:root:/root:/bin/sh\n".repeat(100);
        for thin in [&[0][..], &[0; 6], &[7, 0], &[0x7f; 3]] {
            let thinned: Vec<u8> = text.iter().flat_map(|byte| [&[*byte][..], thin].concat()).collect();
            assert!(is_kept(&thinned), "{thin:?}");
        }
        let utf16: Vec<u8> = text.iter().flat_map(|byte| [*byte, 0]).collect();
        assert!(is_kept(&utf16));
    }

    #[test]
    fn noise_and_nothing_are_not() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        });
        assert!(is_left_out(&noise.take(4 << 20).collect::<Vec<u8>>()));
        assert!(is_left_out(&[0; 10 * PIECE]));
    }

    #[test]
    fn a_little_is_always_kept() {
        assert!(is_readable(&[0xff; LITTLE - 1]) && !is_readable(&[0xff; LITTLE]));
    }
}
