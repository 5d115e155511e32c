//! Frames of our own: messages put into a session that is being ended, and answers to pings.

use super::{Head, Opcode, Payload, head::MAX_CONTROL};
use crate::channel::Source;

/// One final frame with that payload; masked where it goes to a server.
#[must_use]
pub fn encode(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + super::MAX_HEAD);
    frame.push(0x80 | opcode.bits());
    push_length(&mut frame, payload.len(), if mask.is_some() { 0x80 } else { 0 });
    match mask {
        None => frame.extend_from_slice(payload),
        Some(key) => {
            frame.extend_from_slice(&key);
            frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
    }
    frame
}

/// A close frame with a code of RFC 6455 §7.4 and a reason, cut to what a control frame holds.
#[must_use]
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.get(..reason.floor_char_boundary(123)).unwrap_or_default().as_bytes());
    encode(Opcode::Close, &payload, None)
}

/// The pong that answers `frame`, a whole frame of a client, where that is a ping (RFC 6455 §5.5.3).
#[must_use]
pub fn pong(frame: &[u8]) -> Option<Vec<u8>> {
    let head = Head::parse(Source::Client, frame).ok()??;
    let payload = frame.get(head.size..)?;
    let well_formed = head.fin && head.len <= MAX_CONTROL && payload.len() as u64 == head.len;
    if head.opcode != Opcode::Ping || !well_formed {
        return None;
    }
    let mut clear = Vec::with_capacity(payload.len());
    Payload::masked(payload, head.mask).read(|bytes| clear.extend_from_slice(bytes));
    Some(encode(Opcode::Pong, &clear, None))
}

fn push_length(frame: &mut Vec<u8>, len: usize, masked: u8) {
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ ..=125), _) => frame.push(masked | short),
        (_, Ok(medium)) => {
            frame.push(masked | 126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(masked | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_repeats_what_the_ping_says() {
        for mask in [None, Some([1, 2, 3, 4])] {
            for payload in [&b""[..], b"now", &[7; 125]] {
                let ping = encode(Opcode::Ping, payload, mask);
                assert_eq!(pong(&ping), Some(encode(Opcode::Pong, payload, None)), "{ping:x?}");
            }
        }
    }

    #[test]
    fn only_a_whole_ping_has_a_pong() {
        let ping = encode(Opcode::Ping, b"now", Some([1, 2, 3, 4]));
        assert_eq!(pong(&ping[..ping.len() - 1]), None);
        assert_eq!(pong(&[&ping[..], &[0]].concat()), None);
        assert_eq!(pong(&encode(Opcode::Ping, &[7; 126], None)), None);
        assert_eq!(pong(&[0x09, 0]), None, "a fragment");
        for opcode in [Opcode::Pong, Opcode::Close, Opcode::Binary] {
            assert_eq!(pong(&encode(opcode, b"now", None)), None, "{opcode:?}");
        }
        assert_eq!(pong(&[]), None);
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        assert_eq!(close(1000, "bye"), [0x88, 5, 0x03, 0xe8, b'b', b'y', b'e']);
        assert_eq!(close(1000, &"é".repeat(100)).len(), 2 + 2 + 122);
    }
}
