//! The tunnel address of a WireGuard key: derived, never assigned, so that a recorder needs no table of addresses.
//!
//! `fd70:6f64:7769::/48` (RFC 4193; "podwi" in ASCII), then the first ten bytes of
//! SHA-256(`podwitness-address-v1` ‖ key). WireGuard lets a peer send from that /128 only, so that a source address
//! stands for a key.

use std::net::Ipv6Addr;

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

/// The /48 that holds every tunnel address.
pub const PREFIX: [u8; 6] = [0xfd, 0x70, 0x6f, 0x64, 0x77, 0x69];
/// Bytes of a WireGuard public key (Curve25519).
pub const KEY_LEN: usize = 32;

const DOMAIN: &[u8] = b"podwitness-address-v1";

/// A text that is no public key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a WireGuard public key is the base64 text of 32 bytes, not all zero")]
pub struct KeyError;

/// The address of the holder of `key`.
#[must_use]
pub fn of_key(key: &[u8; KEY_LEN]) -> Ipv6Addr {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(DOMAIN);
    context.update(key);
    let hash = context.finish();
    let mut octets = [0; 16];
    for (octet, value) in octets.iter_mut().zip(PREFIX.iter().chain(hash.as_ref())) {
        *octet = *value;
    }
    Ipv6Addr::from(octets)
}

/// Whether an address is one of the tunnel.
#[must_use]
pub fn is_of_tunnel(address: &Ipv6Addr) -> bool {
    address.octets().starts_with(&PREFIX)
}

/// Reads a public key in base64, the form of `wg` and of every message of ours.
///
/// # Errors
/// Where the text is not the one canonical form of 32 bytes, or the key is all zero, which no private key has.
pub fn parse_key(text: &str) -> Result<[u8; KEY_LEN], KeyError> {
    let bytes = STANDARD.decode(text).map_err(|_| KeyError)?;
    let key: [u8; KEY_LEN] = bytes.try_into().map_err(|_| KeyError)?;
    if key == [0; KEY_LEN] { Err(KeyError) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_prefix_and_a_digest_of_the_key() {
        // sha256sum of "podwitness-address-v1" followed by 32 bytes of 0x07, cut to ten bytes.
        let expected: Ipv6Addr = "fd70:6f64:7769:66e0:3ef6:9449:47a8:bb44".parse().unwrap();
        assert_eq!(of_key(&[7; KEY_LEN]), expected);
        assert_ne!(of_key(&[7; KEY_LEN]), of_key(&[8; KEY_LEN]));
        assert!(is_of_tunnel(&expected) && !is_of_tunnel(&"fd70::1".parse().unwrap()));
    }

    #[test]
    fn only_the_canonical_text_of_32_bytes_is_a_key() {
        let text = STANDARD.encode([7; KEY_LEN]);
        assert_eq!(parse_key(&text), Ok([7; KEY_LEN]));
        let cut: String = text.chars().skip(1).collect();
        let tail_bits = text.replace("c=", "d=");
        for bad in [
            "",
            "AAAA",
            &cut,
            &format!("{text} "),
            &tail_bits,
            &STANDARD.encode([0; KEY_LEN]),
            &text.replace('=', ""),
        ] {
            assert_eq!(parse_key(bad), Err(KeyError), "{bad:?}");
        }
    }
}
