//! Frames of our own, for what is put into a session that is being ended. None of them carries a header block: those
//! belong to the zlib stream of the end that speaks.

/// Longest payload of a frame.
const MAX_LEN: usize = (1 << 24) - 1;

/// Data of a stream, in as many frames as it takes; with `fin` the last one ends the stream's direction.
#[must_use]
pub fn data(stream: u32, payload: &[u8], fin: bool) -> Vec<u8> {
    let mut frames = Vec::with_capacity(payload.len() + super::HEAD);
    let mut rest = payload;
    loop {
        let (piece, behind) = rest.split_at(rest.len().min(MAX_LEN));
        rest = behind;
        frames.extend_from_slice(&(stream & !(1 << 31)).to_be_bytes());
        frames.extend_from_slice(&flags_and_len(fin && rest.is_empty(), piece.len()));
        frames.extend_from_slice(piece);
        if rest.is_empty() {
            return frames;
        }
    }
}

/// Ends a stream at once, with a status of the draft's §2.6.3.
#[must_use]
pub fn rst_stream(stream: u32, status: u32) -> Vec<u8> {
    control(3, stream, status)
}

/// Says that no stream is accepted after `last`, with a status of the draft's §2.6.6; 0 is a good end.
#[must_use]
pub fn go_away(last: u32, status: u32) -> Vec<u8> {
    control(7, last, status)
}

fn control(kind: u8, first: u32, second: u32) -> Vec<u8> {
    let mut frame = vec![0x80, 3, 0, kind];
    frame.extend_from_slice(&flags_and_len(false, 8));
    frame.extend_from_slice(&first.to_be_bytes());
    frame.extend_from_slice(&second.to_be_bytes());
    frame
}

/// The second half of a head: flags and 24 bits of length.
fn flags_and_len(fin: bool, len: usize) -> [u8; 4] {
    let [.., x, y, z] = (len as u64).to_be_bytes();
    [fin.into(), x, y, z]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_as_the_draft_says() {
        assert_eq!(data(0x0102_0304, b"hi", false), [1, 2, 3, 4, 0, 0, 0, 2, b'h', b'i']);
        assert_eq!(data(7, b"", true), [0, 0, 0, 7, 1, 0, 0, 0]);
        assert_eq!(rst_stream(5, 5), [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 5]);
        assert_eq!(go_away(9, 0), [0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0]);
    }

    #[test]
    fn a_payload_beyond_24_bits_takes_two_frames_of_which_the_last_ends() {
        let frames = data(1, &vec![1; MAX_LEN + 1], true);
        assert_eq!(frames[..8], [0, 0, 0, 1, 0, 0xff, 0xff, 0xff]);
        assert_eq!(frames[8 + MAX_LEN..], [0, 0, 0, 1, 1, 0, 0, 1, 1]);
    }
}
