//! The API server's addresses as the pod knows them without a netmap.

use std::net::SocketAddr;

/// Addresses learned from the node's translation; an API server has fewer endpoints.
const MAX_LEARNED: usize = 32;

/// What admission and the kubelet say, the Service first, and what was learned since.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct OwnAddresses {
    all: Vec<SocketAddr>,
    learned: usize,
    translated: bool,
}

impl OwnAddresses {
    pub(super) const fn new(all: Vec<SocketAddr>) -> Self {
        Self { all, learned: 0, translated: false }
    }

    /// What interception is proven with.
    pub(super) fn first(&self) -> Option<SocketAddr> {
        self.all.first().copied()
    }

    pub(super) fn all(&self) -> &[SocketAddr] {
        &self.all
    }

    /// Whether the node makes other addresses of that of the Service.
    pub(super) const fn are_translated(&self) -> bool {
        self.translated
    }

    /// A connection to the first has landed at the listener, on its way to this address.
    pub(super) fn landed(&mut self, original: SocketAddr) {
        self.translated |= self.first().is_some_and(|first| first != original);
    }

    /// A connection to the first has gone to this address, past the listener. False where that is known, or there is no
    /// room for it.
    pub(super) fn learn(&mut self, address: SocketAddr) -> bool {
        self.landed(address);
        if self.all.contains(&address) || self.learned >= MAX_LEARNED {
            return false;
        }
        self.learned = self.learned.saturating_add(1);
        self.all.push(address);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "10.96.0.1:443";

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_the_node_makes_of_the_service_is_learned_once() {
        let mut own = OwnAddresses::new(vec![at(SERVICE), at("172.18.0.2:6443")]);
        own.landed(at(SERVICE));
        assert!(!own.are_translated());
        own.landed(at("172.18.0.2:6443"));
        assert!(own.are_translated());
        assert!(!own.learn(at("172.18.0.2:6443")), "it is known");
        assert!(own.learn(at("172.18.0.3:6443")) && !own.learn(at("172.18.0.3:6443")));
        assert_eq!(own.all(), [at(SERVICE), at("172.18.0.2:6443"), at("172.18.0.3:6443")]);
        assert_eq!(own.first(), Some(at(SERVICE)));
    }

    #[test]
    fn so_many_are_learned_and_no_more() {
        let mut own = OwnAddresses::new(vec![at(SERVICE)]);
        let learned = (1..1000).filter(|port| own.learn(([172, 18, 0, 2], *port).into())).count();
        assert_eq!((learned, own.all().len()), (MAX_LEARNED, MAX_LEARNED + 1));
    }
}
