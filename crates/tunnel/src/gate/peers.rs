//! The sessions of a gate's peers, found by key and by session number.

use std::{
    collections::HashMap,
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gotatun::noise::{Tunn, index_table::IndexTable};

use crate::{PublicKey, key::address};

/// A peer and its session.
pub(crate) struct Peer {
    pub(crate) key: PublicKey,
    pub(crate) address: Ipv6Addr,
    session: Mutex<Session>,
}

/// What changes with the packets of a peer.
pub(crate) struct Session {
    /// Handshakes and keys.
    pub(crate) noise: Tunn,
    /// Where the peer was last heard from.
    pub(crate) endpoint: SocketAddr,
}

/// The peers of a gate.
pub(super) struct Peers {
    members: HashMap<PublicKey, Member>,
    numbers: HashMap<u32, PublicKey>,
    /// Which session numbers are in use, here and in the sessions.
    in_use: IndexTable,
}

struct Member {
    peer: Arc<Peer>,
    /// Its session numbers; those no longer in use go when a new one comes.
    numbers: Vec<u32>,
}

// === impl Peer ===

impl Peer {
    pub(crate) fn new(key: PublicKey, noise: Tunn, endpoint: SocketAddr) -> Self {
        Self { key, address: address(&key), session: Mutex::new(Session { noise, endpoint }) }
    }

    /// The session, for as long as one packet takes.
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        // A session is whole after every call.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Peers ===

impl Peers {
    pub(super) fn new(in_use: IndexTable) -> Self {
        Self { members: HashMap::new(), numbers: HashMap::new(), in_use }
    }

    pub(super) fn insert(&mut self, peer: Arc<Peer>) {
        self.members.insert(peer.key, Member { peer, numbers: Vec::new() });
    }

    pub(super) fn remove(&mut self, key: &PublicKey) {
        for number in self.members.remove(key).into_iter().flat_map(|member| member.numbers) {
            self.numbers.remove(&number);
        }
    }

    /// Notes a number under which the peer's next packets may come.
    pub(super) fn number(&mut self, key: &PublicKey, number: u32) {
        let Some(member) = self.members.get_mut(key) else {
            return;
        };
        let (current, stale) = member.numbers.iter().partition(|number| self.in_use.in_use(**number));
        member.numbers = current;
        member.numbers.push(number);
        for number in stale as Vec<u32> {
            self.numbers.remove(&number);
        }
        self.numbers.insert(number, *key);
    }

    pub(super) fn by_key(&self, key: &PublicKey) -> Option<Arc<Peer>> {
        self.members.get(key).map(|member| Arc::clone(&member.peer))
    }

    pub(super) fn by_number(&self, number: u32) -> Option<Arc<Peer>> {
        self.by_key(self.numbers.get(&number)?)
    }

    pub(super) fn all(&self) -> Vec<Arc<Peer>> {
        self.members.values().map(|member| Arc::clone(&member.peer)).collect()
    }
}

#[cfg(test)]
mod tests {
    use gotatun::noise::rate_limiter::RateLimiter;

    use super::*;
    use crate::PrivateKey;

    fn peer(in_use: &IndexTable) -> Arc<Peer> {
        let (ours, theirs) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap().public());
        let limiter = Arc::new(RateLimiter::new(&theirs.to_x25519(), 1));
        let secret = ours.secret().clone();
        let noise = Tunn::new(secret, theirs.to_x25519(), None, None, in_use.clone(), limiter);
        Arc::new(Peer::new(theirs, noise, ([192, 0, 2, 1], 1).into()))
    }

    #[test]
    fn a_peer_is_found_by_key_and_number_until_it_is_removed() {
        let in_use = IndexTable::from_os_rng();
        let (mut peers, peer) = (Peers::new(in_use.clone()), peer(&in_use));
        let number = in_use.new_index();
        peers.insert(Arc::clone(&peer));
        peers.number(&peer.key, number.value());
        assert!(peers.by_key(&peer.key).is_some());
        assert!(peers.by_number(number.value()).is_some());
        peers.remove(&peer.key);
        assert!(peers.by_key(&peer.key).is_none());
        assert!(peers.by_number(number.value()).is_none());
        assert!(peers.numbers.is_empty());
    }

    #[test]
    fn numbers_of_sessions_that_are_over_are_forgotten() {
        let in_use = IndexTable::from_os_rng();
        let (mut peers, peer) = (Peers::new(in_use.clone()), peer(&in_use));
        peers.insert(Arc::clone(&peer));
        let lasting = in_use.new_index();
        peers.number(&peer.key, lasting.value());
        for _ in 0..100 {
            peers.number(&peer.key, in_use.new_index().value());
        }
        assert_eq!(peers.numbers.len(), 2);
        assert!(peers.by_number(lasting.value()).is_some());
    }

    #[test]
    fn a_number_of_a_peer_that_is_gone_is_nobodys() {
        let in_use = IndexTable::from_os_rng();
        let (mut peers, peer) = (Peers::new(in_use.clone()), peer(&in_use));
        peers.number(&peer.key, 7);
        assert!(peers.numbers.is_empty());
    }
}
