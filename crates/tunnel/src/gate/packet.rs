//! What a decrypted packet wants.

use std::net::{IpAddr, Ipv6Addr};

use gotatun::packet::Ip;

/// Next-header number of TCP (IANA protocol numbers).
const TCP: u8 = 6;
// Offsets of RFC 8200 §3 and RFC 9293 §3.1, less the first byte, which `Ip` holds apart.
const NEXT_HEADER: usize = 6 - 1;
const PORT: usize = 40 + 2 - 1;

/// A TCP packet over IPv6 without extension headers, which no TCP sends.
pub(super) struct TcpTarget {
    pub(super) from: Ipv6Addr,
    pub(super) to: Ipv6Addr,
    pub(super) port: u16,
}

impl TcpTarget {
    pub(super) fn of(packet: &Ip) -> Option<Self> {
        let (Some(IpAddr::V6(from)), Some(IpAddr::V6(to))) = (packet.source(), packet.destination()) else {
            return None;
        };
        if packet.rest.get(NEXT_HEADER) != Some(&TCP) {
            return None;
        }
        let port = packet.rest.get(PORT..PORT + 2)?;
        Some(Self { from, to, port: u16::from_be_bytes(port.try_into().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use gotatun::packet::Packet;

    use super::*;

    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, u8::try_from(payload.len()).unwrap(), next, 64];
        bytes.extend([0xfd; 16]);
        bytes.extend([0xfe; 16]);
        bytes.extend(payload);
        bytes
    }

    fn target(bytes: &[u8]) -> Option<TcpTarget> {
        let packet = Packet::copy_from(bytes).try_into_ip().ok()?;
        TcpTarget::of(&packet)
    }

    #[test]
    fn addresses_and_port_of_a_tcp_packet_are_read() {
        let found = target(&packet(TCP, &[0xc0, 0x00, 0x00, 0x50, 1, 2, 3, 4])).unwrap();
        assert_eq!(found.from, Ipv6Addr::from([0xfd; 16]));
        assert_eq!(found.to, Ipv6Addr::from([0xfe; 16]));
        assert_eq!(found.port, 80);
    }

    #[test]
    fn anything_else_has_no_target() {
        assert!(target(&packet(17, &[0; 8])).is_none(), "UDP");
        assert!(target(&packet(58, &[0; 8])).is_none(), "ICMPv6");
        assert!(target(&packet(TCP, &[0xc0, 0, 0])).is_none(), "cut short");
        let mut version4 = packet(TCP, &[0; 8]);
        version4[0] = 0x45;
        assert!(target(&version4).is_none(), "IPv4");
    }
}
