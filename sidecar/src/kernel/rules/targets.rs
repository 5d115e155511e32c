//! Which connections are redirected: the addresses of the API server and, where it listens on a port of its own,
//! every address on that port. The ports of what merely leads there, such as a node port, are no such ports.
//!
//! Invariant: at most [`MAX_ADDRESSES`] addresses and [`MAX_PORTS`] ports, so that a transaction fits one message;
//! earlier addresses win, and the pod's own environment comes first.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Cap on redirected addresses; further ones are left out and counted.
pub const MAX_ADDRESSES: usize = 256;
/// Cap on redirected ports.
pub const MAX_PORTS: usize = 8;

/// Port that too much else uses for it to be redirected on every address.
const HTTPS: u16 = 443;

/// The destinations of one rule set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Targets {
    pub(super) v4: BTreeSet<(Ipv4Addr, u16)>,
    pub(super) v6: BTreeSet<(Ipv6Addr, u16)>,
    pub(super) ports: BTreeSet<u16>,
    pub(super) held: BTreeSet<u16>,
    left_out: usize,
}

impl Targets {
    /// Takes addresses, and ports on which an API server itself listens, in order of importance.
    #[must_use]
    pub fn new(
        addresses: impl IntoIterator<Item = SocketAddr>,
        ports: impl IntoIterator<Item = u16>,
    ) -> Self {
        let mut targets = Self::default();
        addresses.into_iter().for_each(|address| targets.add(address));
        let ports = ports.into_iter().filter(|port| *port != HTTPS && *port != 0);
        for port in ports {
            if targets.ports.len() < MAX_PORTS {
                targets.ports.insert(port);
            }
        }
        targets
    }

    /// The same, and to these ports nothing else is connected at any other address.
    #[must_use]
    pub fn holding(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.held = ports.into_iter().filter(|port| *port != 0).collect();
        while self.held.len() > MAX_PORTS {
            self.held.pop_last();
        }
        self
    }

    /// How many addresses did not fit.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// Whether nothing would be redirected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether connections to exactly this address are redirected.
    #[must_use]
    pub fn redirects(&self, to: SocketAddr) -> bool {
        match to.ip().to_canonical() {
            IpAddr::V4(ip) => self.v4.contains(&(ip, to.port())),
            IpAddr::V6(ip) => self.v6.contains(&(ip, to.port())),
        }
    }

    fn add(&mut self, address: SocketAddr) {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        if ip.is_unspecified() || port == 0 {
            return;
        }
        if self.redirects(address) {
            return;
        }
        if self.v4.len().saturating_add(self.v6.len()) >= MAX_ADDRESSES {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        match ip {
            IpAddr::V4(ip) => self.v4.insert((ip, port)),
            IpAddr::V6(ip) => self.v6.insert((ip, port)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(addresses: &[&str]) -> Targets {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Targets::new(addresses.clone(), addresses.iter().map(SocketAddr::port))
    }

    #[test]
    fn a_port_of_its_own_is_redirected_everywhere_but_443_is_not() {
        let targets = targets(&["10.96.0.1:443", "172.18.0.2:6443", "[fd00::1]:443"]);
        assert_eq!(targets.ports.into_iter().collect::<Vec<_>>(), [6443]);
        assert_eq!((targets.v4.len(), targets.v6.len()), (2, 1));
    }

    #[test]
    fn a_mapped_address_counts_as_what_it_maps() {
        assert_eq!(targets(&["[::ffff:10.96.0.1]:443"]), targets(&["10.96.0.1:443"]));
    }

    #[test]
    fn addresses_that_name_no_server_are_ignored() {
        assert!(targets(&["0.0.0.0:443", "[::]:443", "10.0.0.1:0"]).is_empty());
    }

    #[test]
    fn beyond_the_cap_the_first_ones_win_and_the_rest_is_counted() {
        let all = (0..300_u16).map(|n| SocketAddr::from(([10, 0, 0, 1], 1000 + n)));
        let targets = Targets::new(all.clone(), all.map(|at| at.port()));
        assert_eq!((targets.v4.len(), targets.ports.len()), (MAX_ADDRESSES, MAX_PORTS));
        assert_eq!(targets.left_out(), 300 - MAX_ADDRESSES);
        assert!(targets.v4.contains(&(Ipv4Addr::new(10, 0, 0, 1), 1000)));
    }

    #[test]
    fn only_ports_of_the_api_server_itself_are_redirected_everywhere() {
        let leads: SocketAddr = "10.0.0.9:80".parse().unwrap();
        let targets = Targets::new([leads, leads], [6443, 443, 0]);
        assert_eq!((targets.ports, targets.left_out), ([6443].into(), 0));
        assert_eq!(targets.v4, [(Ipv4Addr::new(10, 0, 0, 9), 80)].into());
    }
}
