//! What an intercepted connection speaks, from its first bytes.
//!
//! Sources: RFC 8446 §5.1 (TLS record), RFC 9113 §3.4 (HTTP/2 preface), RFC 9110 §9.1 (a method is a token).

/// The connection preface of HTTP/2.
pub const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No more bytes than this are ever needed.
pub const MAX_SNIFF: usize = 32;

/// Longest method that is taken for HTTP/1; the API server knows none longer than 7 letters.
const MAX_METHOD: usize = 24;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speaks {
    /// TLS: a record that holds a ClientHello.
    Tls,
    /// HTTP/2 without TLS.
    Http2,
    /// HTTP/1 without TLS.
    Http1,
    /// Something else.
    Other,
}

/// What begins with `bytes`; `None` while they could become several things.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Option<Speaks> {
    match bytes.first()? {
        0x16 => tls(bytes),
        _ if HTTP2.starts_with(bytes) => (bytes.len() == HTTP2.len()).then_some(Speaks::Http2),
        _ if bytes.starts_with(HTTP2) => Some(Speaks::Http2),
        _ => http1(bytes),
    }
}

/// Type 22 (handshake), version 3.x, a length, handshake type 1 (client hello).
fn tls(bytes: &[u8]) -> Option<Speaks> {
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Some(Speaks::Other);
    }
    bytes.get(5).map(|kind| if *kind == 1 { Speaks::Tls } else { Speaks::Other })
}

fn http1(bytes: &[u8]) -> Option<Speaks> {
    let method = bytes.iter().position(|byte| !byte.is_ascii_alphabetic() && *byte != b'-');
    match method {
        Some(1..=MAX_METHOD) if bytes.get(method?) == Some(&b' ') => Some(Speaks::Http1),
        None if bytes.len() <= MAX_METHOD => None,
        _ => Some(Speaks::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_what_is_spoken() {
        for (bytes, speaks) in [
            (&[0x16, 3, 1, 2, 0, 1, 0][..], Speaks::Tls),
            (&[0x16, 3, 1, 2, 0, 2], Speaks::Other),
            (&[0x16, 2], Speaks::Other),
            (HTTP2, Speaks::Http2),
            (b"GET / HTTP/1.1\r\n", Speaks::Http1),
            (b"PRI", Speaks::Other),
            (b"PATCH /api", Speaks::Http1),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Speaks::Other),
            (b"\x00\x00", Speaks::Other),
            (&[b'A'; 25], Speaks::Other),
        ] {
            // Every prefix either waits or already says the same; `PRI` alone waits.
            let answers: Vec<Speaks> = (0..=bytes.len()).filter_map(|len| sniff(&bytes[..len])).collect();
            if bytes == b"PRI" {
                assert!(answers.is_empty());
                continue;
            }
            assert!(answers.iter().all(|answer| *answer == speaks), "{bytes:?} {answers:?}");
            assert_eq!(sniff(bytes), Some(speaks), "{bytes:?}");
        }
    }

    #[test]
    fn an_answer_never_needs_more_than_the_cap() {
        for first in 0..=255 {
            assert!(sniff(&[first; MAX_SNIFF]).is_some(), "{first}");
        }
    }
}
