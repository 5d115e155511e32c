//! From the peers that are set to those that are wanted, in the fewest changes.
//!
//! A peer that stays as it is must not be touched: the userspace back end drops its session with every change, and a
//! roamed endpoint would be overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use crate::{Peer, PublicKey, key::address};

/// Peers by key.
pub(crate) type Peers = BTreeMap<PublicKey, Peer>;

/// What is known of the peers that the device has.
#[derive(Debug, Default)]
pub(crate) enum Known {
    /// Exactly these.
    Exactly(Peers),
    /// A change failed half-way: anything.
    #[default]
    Unknown,
}

/// One step towards the peers that are wanted.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// Add the peer, or make it so.
    Set(Peer),
    /// Remove it.
    Remove(PublicKey),
}

/// Peers by key; of two with the same key the later counts.
pub(crate) fn by_key(peers: Vec<Peer>) -> Peers {
    peers.into_iter().map(|peer| (peer.key, peer)).collect()
}

/// The addresses that follow from the peers' keys.
pub(crate) fn addresses(peers: &Peers) -> BTreeSet<Ipv6Addr> {
    peers.keys().map(address).collect()
}

/// The steps from `present` to `wanted`.
pub(crate) fn changes(present: &Peers, wanted: &Peers) -> Vec<Change> {
    let gone = present.keys().filter(|key| !wanted.contains_key(*key)).map(|key| Change::Remove(*key));
    let set = wanted.values().filter(|peer| present.get(&peer.key) != Some(*peer));
    gone.chain(set.cloned().map(Change::Set)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8, port: u16) -> Peer {
        Peer {
            key: PublicKey::from_bytes([number; 32]),
            endpoint: ([192, 0, 2, number], port).into(),
            keepalive: None,
        }
    }

    #[test]
    fn only_what_differs_is_changed() {
        let present = by_key(vec![peer(1, 1), peer(2, 1), peer(3, 1)]);
        let wanted = by_key(vec![peer(2, 1), peer(3, 9), peer(4, 1)]);
        let expected = [Change::Remove(peer(1, 1).key), Change::Set(peer(3, 9)), Change::Set(peer(4, 1))];
        assert_eq!(changes(&present, &wanted), expected);
    }

    #[test]
    fn the_same_peers_again_are_no_change() {
        let peers = by_key(vec![peer(1, 1), peer(2, 1)]);
        assert_eq!(changes(&peers, &peers), []);
    }

    #[test]
    fn of_two_peers_with_one_key_the_later_counts() {
        assert_eq!(by_key(vec![peer(1, 1), peer(1, 2)]), by_key(vec![peer(1, 2)]));
    }
}
