//! The tunnel's MTU.
//!
//! WireGuard over IPv6 costs 40 (IPv6) + 8 (UDP) + 16 (header) + 16 (tag) = 80 bytes. Below 1280 IPv6 does not work
//! (RFC 8200 §5), so that on a narrower link the outer packets are fragmented instead.

/// Bytes that the tunnel adds to a packet when it runs over IPv6.
const OVERHEAD: u32 = 80;
/// Least MTU that IPv6 allows.
const MIN: u16 = 1280;
/// Greatest MTU on TUN: a packet with its WireGuard header has to fit into one buffer of 4096 bytes.
const MAX_TUN: u16 = 4000;
/// Assumed where no default route tells: Ethernet.
const DEFAULT_LINK: u32 = 1500;

/// MTU of a tunnel over a route of `route` bytes.
pub(crate) fn over(route: Option<u32>) -> u16 {
    let inner = route.unwrap_or(DEFAULT_LINK).saturating_sub(OVERHEAD);
    u16::try_from(inner).unwrap_or(u16::MAX).max(MIN)
}

/// The MTU that a TUN device of ours can have.
pub(crate) fn on_tun(wanted: u16) -> u16 {
    wanted.min(MAX_TUN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overhead_is_taken_from_the_route() {
        assert_eq!([1500, 1450, 9001].map(|route| over(Some(route))), [1420, 1370, 8921]);
        assert_eq!(over(None), 1420);
    }

    #[test]
    fn it_never_falls_below_what_ipv6_needs() {
        assert_eq!([0, 576, 1280, 1359].map(|route| over(Some(route))), [1280; 4]);
    }

    #[test]
    fn a_route_wider_than_any_mtu_is_clipped() {
        assert_eq!(over(Some(u32::MAX)), u16::MAX);
        assert_eq!(on_tun(over(Some(65536))), 4000);
        assert_eq!(on_tun(1420), 1420);
    }
}
