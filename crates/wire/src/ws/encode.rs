//! Frames of our own, for messages put into a session that is being ended.

use super::Opcode;

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
    fn a_close_frame_carries_code_and_reason() {
        assert_eq!(close(1000, "bye"), [0x88, 5, 0x03, 0xe8, b'b', b'y', b'e']);
        assert_eq!(close(1000, &"é".repeat(100)).len(), 2 + 2 + 122);
    }
}
