//! WireGuard keys (Curve25519) and the tunnel address that follows from a public one.
//!
//! Invariant: a private key is wiped when dropped, and neither `Debug` nor an error shows it.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use gotatun::x25519;
use podwitness_core::address::{self, KEY_LEN};
pub use podwitness_core::address::{KeyError, PREFIX};
use zeroize::Zeroizing;

use crate::error::Error;

/// The tunnel address of the holder of `key`.
#[must_use]
pub fn address(key: &PublicKey) -> Ipv6Addr {
    address::of_key(&key.0)
}

/// A private key; its text form is the base64 that `wg` uses.
#[derive(Clone)]
pub struct PrivateKey(x25519::StaticSecret);

/// A public key; its text form is the base64 that `wg` uses.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey([u8; KEY_LEN]);

// === impl PrivateKey ===

impl PrivateKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// Where the operating system gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| Error::Randomness)?;
        Ok(Self(x25519::StaticSecret::from(*bytes)))
    }

    /// The key that others may know.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.0).to_bytes())
    }

    /// The text form, to be kept as secret as the key.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.to_bytes().as_slice()))
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; KEY_LEN]> {
        Zeroizing::new(self.0.to_bytes())
    }

    pub(crate) fn secret(&self) -> &x25519::StaticSecret {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey").field(&"…").finish()
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(address::parse_key(text)?);
        Ok(Self(x25519::StaticSecret::from(*bytes)))
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn to_x25519(self) -> x25519::PublicKey {
        x25519::PublicKey::from(self.0)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        address::parse_key(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // From the test vectors of wireguard-control; `wg pubkey` says the same.
    const PRIVATE: &str = "SGb+ojrRNDuMePufwtIYhXzA//k6wF3R21tEBgKlzlM=";
    const PUBLIC: &str = "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=";

    #[test]
    fn a_public_key_follows_from_the_private_one() {
        assert_eq!(PRIVATE.parse::<PrivateKey>().unwrap().public().to_string(), PUBLIC);
    }

    #[test]
    fn texts_come_back_as_they_went() {
        let key: PrivateKey = PRIVATE.parse().unwrap();
        assert_eq!(*key.to_base64(), PRIVATE);
        assert_eq!(PUBLIC.parse::<PublicKey>().unwrap().to_string(), PUBLIC);
    }

    #[test]
    fn two_drawn_keys_differ() {
        assert_ne!(PrivateKey::generate().unwrap().public(), PrivateKey::generate().unwrap().public());
    }

    #[test]
    fn debug_shows_nothing_of_a_private_key() {
        assert_eq!(format!("{:?}", PRIVATE.parse::<PrivateKey>().unwrap()), r#"PrivateKey("…")"#);
    }

    #[test]
    fn the_zero_key_is_none() {
        assert!(STANDARD.encode([0; KEY_LEN]).parse::<PublicKey>().is_err());
    }

    #[test]
    fn an_address_lies_in_the_prefix_and_tells_keys_apart() {
        let first = address(&PrivateKey::generate().unwrap().public());
        let second = address(&PrivateKey::generate().unwrap().public());
        assert_eq!(first.octets()[..PREFIX.len()], PREFIX);
        assert_ne!(first, second);
    }
}
