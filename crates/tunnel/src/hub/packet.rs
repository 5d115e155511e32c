//! What a decrypted packet wants.

use std::{io, net::Ipv6Addr};

use rustix::io::Errno;

/// Next-header number of TCP (IANA protocol numbers).
const TCP: u8 = 6;
/// Length of the IPv6 header (RFC 8200 §3).
const HEADER: usize = 40;

/// The port that a TCP packet over IPv6 from `peer` to `own` is for; `None` for everything else. Extension headers
/// count as everything else: no TCP sends them.
pub(super) fn port(packet: &[u8], peer: Ipv6Addr, own: Ipv6Addr) -> Option<u16> {
    let (header, payload) = packet.split_at_checked(HEADER)?;
    let version = header.first()? >> 4;
    let (from, to) = (header.get(8..24)?, header.get(24..40)?);
    let is_ours = version == 6 && header.get(6) == Some(&TCP) && from == peer.octets() && to == own.octets();
    let port = payload.get(2..4).filter(|_| is_ours)?;
    Some(u16::from_be_bytes(port.try_into().ok()?))
}

/// Whether the TUN device is gone or down, rather than one packet refused.
pub(super) fn is_of_device(error: &io::Error) -> bool {
    [Errno::BADF, Errno::BADFD, Errno::NODEV, Errno::IO, Errno::NXIO]
        .iter()
        .any(|number| error.raw_os_error() == Some(number.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    const PEER: Ipv6Addr = Ipv6Addr::from_octets([0xfd; 16]);
    const OWN: Ipv6Addr = Ipv6Addr::from_octets([0xfe; 16]);

    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, u8::try_from(payload.len()).unwrap(), next, 64];
        bytes.extend(PEER.octets());
        bytes.extend(OWN.octets());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn the_port_of_a_tcp_packet_is_read() {
        assert_eq!(port(&packet(TCP, &[0xc0, 0x00, 0x00, 0x50, 1, 2, 3, 4]), PEER, OWN), Some(80));
    }

    #[test]
    fn a_packet_between_other_addresses_has_no_port() {
        let bytes = packet(TCP, &[0; 8]);
        assert_eq!(port(&bytes, OWN, OWN), None);
        assert_eq!(port(&bytes, PEER, PEER), None);
    }

    #[test]
    fn anything_but_tcp_over_ipv6_has_no_port() {
        assert_eq!(port(&packet(17, &[0; 8]), PEER, OWN), None, "UDP");
        assert_eq!(port(&packet(58, &[0; 8]), PEER, OWN), None, "ICMPv6");
        assert_eq!(port(&packet(TCP, &[0xc0, 0, 0]), PEER, OWN), None, "cut short");
        let mut version4 = packet(TCP, &[0; 8]);
        version4[0] = 0x45;
        assert_eq!(port(&version4, PEER, OWN), None, "IPv4");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in collection::vec(any::<u8>(), 0..64)) {
            let _ = port(&bytes, PEER, OWN);
        }
    }
}
