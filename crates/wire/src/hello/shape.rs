//! The shape of a ClientHello: what tells programs apart that speak TLS, as the fingerprints JA3 and JA4 do
//! (<https://github.com/FoxIO-LLC/ja4>).
//!
//! It is made of what a program says on each of its connections: the version, cipher suites, compression methods, the
//! kinds of its extensions, and the lists in those that say what it supports. It is not made of what differs between
//! two connections of one program: random values, keys, tickets, padding, the reserved values of GREASE (RFC 8701), and
//! the order of extensions, which some libraries draw anew for each connection.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// The shape of a ClientHello, as a digest of 64 bits: equal for two of the same program, as a rule different for
/// those of two programs. It holds within one process, and it is no proof: a program can imitate another.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct HelloShape(u64);

/// Extensions that are there or not by what was said before, or that belong to the server rather than to the program:
/// server name, padding, session ticket, pre-shared key, early data, cookie.
const PASSING: [u16; 6] = [0, 21, 35, 41, 42, 44];
/// Extensions whose content is the program's own choice: maximum fragment length, supported groups, point formats,
/// signature algorithms, ALPN, compression of certificates, record size limit, versions, modes of key exchange, signature
/// algorithms of certificates.
const LISTING: [u16; 10] = [1, 10, 11, 13, 16, 27, 28, 43, 45, 50];
/// Of these the lists of two-byte values that may have GREASE among them, each behind a length of one or two bytes.
const GROUPS: u16 = 10;
const SIGNATURES: u16 = 13;
const VERSIONS: u16 = 43;

impl HelloShape {
    /// Of the parts of a ClientHello; `extensions` by kind.
    pub(super) fn of(
        version: &[u8],
        suites: &[u8],
        compressions: &[u8],
        extensions: &[(u16, &[u8])],
    ) -> Self {
        let mut hash = DefaultHasher::new();
        version.hash(&mut hash);
        without_grease(suites).hash(&mut hash);
        compressions.hash(&mut hash);
        let lasting = |kind: &u16| !PASSING.contains(kind) && !is_grease(*kind);
        let mut extensions: Vec<_> = extensions.iter().filter(|(kind, _)| lasting(kind)).collect();
        extensions.sort_unstable_by_key(|(kind, _)| *kind);
        for (kind, content) in extensions {
            kind.hash(&mut hash);
            match *kind {
                GROUPS | SIGNATURES => without_grease(content.get(2..).unwrap_or_default()).hash(&mut hash),
                VERSIONS => without_grease(content.get(1..).unwrap_or_default()).hash(&mut hash),
                kind if LISTING.contains(&kind) => content.hash(&mut hash),
                _ => {}
            }
        }
        Self(hash.finish())
    }
}

/// The two-byte values of a list but for GREASE.
fn without_grease(list: &[u8]) -> Vec<u16> {
    let values = list.chunks_exact(2).filter_map(|pair| Some(u16::from_be_bytes(*pair.first_chunk()?)));
    values.filter(|value| !is_grease(*value)).collect()
}

/// Values that are reserved so that servers learn to ignore what they do not know (RFC 8701 §2): `0x?A?A`, both bytes
/// equal.
const fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}
