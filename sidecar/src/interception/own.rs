//! The API server's addresses as the pod knows them without a netmap.

use std::net::SocketAddr;

/// Addresses learned from the node's translation; an API server has fewer endpoints at a time.
const MAX_LEARNED: usize = 32;

/// What admission and the kubelet say, the Service first, and what was learned since.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct OwnAddresses {
    all: Vec<SocketAddr>,
    learned: usize,
}

impl OwnAddresses {
    pub(super) const fn new(all: Vec<SocketAddr>) -> Self {
        Self { all, learned: 0 }
    }

    /// What interception is proven with.
    pub(super) fn first(&self) -> Option<SocketAddr> {
        self.all.first().copied()
    }

    pub(super) fn all(&self) -> &[SocketAddr] {
        &self.all
    }

    /// A connection to the first has gone to this address, past the listener. Where there is no room, what was learned
    /// first is forgotten: if it is still in use, it is learned again.
    pub(super) fn learn(&mut self, address: SocketAddr) {
        if self.all.contains(&address) {
            return;
        }
        if self.learned < MAX_LEARNED {
            self.learned = self.learned.saturating_add(1);
        } else {
            self.all.remove(self.all.len().saturating_sub(self.learned));
        }
        self.all.push(address);
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
        for learned in ["172.18.0.2:6443", "172.18.0.3:6443", "172.18.0.3:6443"] {
            own.learn(at(learned));
        }
        assert_eq!(own.all(), [at(SERVICE), at("172.18.0.2:6443"), at("172.18.0.3:6443")]);
        assert_eq!(own.first(), Some(at(SERVICE)));
    }

    #[test]
    fn where_there_is_no_room_what_was_learned_first_is_forgotten_and_nothing_else() {
        let (service, endpoint) = (at(SERVICE), at("172.18.0.2:6443"));
        let mut own = OwnAddresses::new(vec![service, endpoint]);
        let learned: Vec<SocketAddr> = (1..1000).map(|port| ([172, 18, 0, 3], port).into()).collect();
        for address in &learned {
            own.learn(*address);
        }
        let expected = [&[service, endpoint], &learned[learned.len() - MAX_LEARNED..]].concat();
        assert_eq!(own.all(), expected);
    }
}
