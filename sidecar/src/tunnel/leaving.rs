//! Recorders that have left the netmap, and may still finish what they began.
//!
//! A replica that is about to go leaves the netmap at once, so that nothing new is sent to it, and goes on with its
//! uploads for as long as its drain lasts. Those have somewhere to come from only while it is a peer.
//!
//! One that returns may be another process under the same key, to which WireGuard's session with the one before means
//! nothing. Left to itself WireGuard would find that out by 15 s of silence, which is most of what a session under fail
//! closed waits for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use podwitness_tunnel::{Peer, PublicKey};
use tokio::time::{Instant, sleep_until};

use crate::netmap::MAX_PEERS;

/// How long it stays a peer: longer than any drain of ours.
const STAYS: Duration = Duration::from_secs(60);

/// Peers as they were, and those that stay a little longer.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    named: BTreeMap<PublicKey, Peer>,
    leaving: BTreeMap<PublicKey, (Peer, Instant)>,
}

impl Leaving {
    /// The peers that a netmap names, and those that it names no more but that may finish. To be set one after the
    /// other: first without those that return, where there are any, so that they begin anew.
    pub(super) fn join(&mut self, peers: Vec<Peer>) -> Vec<Vec<Peer>> {
        let now = Instant::now();
        let named: BTreeMap<_, _> = peers.into_iter().map(|peer| (peer.key, peer)).collect();
        let returned: BTreeSet<_> =
            named.keys().filter(|key| self.leaving.contains_key(*key)).copied().collect();
        let gone = std::mem::replace(&mut self.named, named);
        self.leaving.extend(gone.into_iter().map(|(key, peer)| (key, (peer, now + STAYS))));
        self.leaving.retain(|key, (_, until)| !self.named.contains_key(key) && *until > now);
        let room = MAX_PEERS.saturating_sub(self.named.len());
        let stay = self.leaving.values().take(room).map(|(peer, _)| peer);
        let all: Vec<Peer> = self.named.values().chain(stay).cloned().collect();
        if returned.is_empty() {
            return vec![all];
        }
        let others = all.iter().filter(|peer| !returned.contains(&peer.key)).cloned().collect();
        vec![others, all]
    }

    /// Completes when the time of one is over; never where there is none.
    pub(super) async fn over(&self) {
        match self.leaving.values().map(|(_, until)| *until).min() {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use podwitness_tunnel::PrivateKey;

    use super::*;

    fn peer() -> Peer {
        let key = PrivateKey::generate().unwrap().public();
        Peer { key, endpoint: "192.0.2.1:51820".parse().unwrap(), keepalive: None }
    }

    /// What is set at once, where nobody returns.
    fn join(leaving: &mut Leaving, peers: Vec<Peer>) -> Vec<Peer> {
        let [all] = leaving.join(peers).try_into().unwrap();
        all
    }

    fn same(mut left: Vec<Peer>, mut right: Vec<Peer>) -> bool {
        left.sort_by_key(|peer| peer.key);
        right.sort_by_key(|peer| peer.key);
        left == right
    }

    #[tokio::test(start_paused = true)]
    async fn a_recorder_may_finish_and_then_is_no_peer_any_more() {
        let (mut leaving, one, two) = (Leaving::default(), peer(), peer());
        assert!(same(join(&mut leaving, vec![one.clone(), two.clone()]), vec![one.clone(), two.clone()]));
        assert!(same(join(&mut leaving, vec![two.clone()]), vec![one.clone(), two.clone()]));
        let begun = Instant::now();
        leaving.over().await;
        assert_eq!(begun.elapsed(), STAYS);
        assert!(same(join(&mut leaving, vec![two.clone()]), vec![two]));
        assert!(tokio::time::timeout(2 * STAYS, leaving.over()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_recorder_that_returns_begins_anew_as_it_is_now() {
        let (mut leaving, one, two) = (Leaving::default(), peer(), peer());
        join(&mut leaving, vec![one.clone(), two.clone()]);
        join(&mut leaving, vec![two.clone()]);
        let moved = Peer { endpoint: "192.0.2.2:51820".parse().unwrap(), ..one };
        let [first, then] = leaving.join(vec![moved.clone(), two.clone()]).try_into().unwrap();
        assert_eq!(first, std::slice::from_ref(&two));
        assert!(same(then, vec![moved.clone(), two.clone()]));
        // The next netmap is no return.
        assert!(same(join(&mut leaving, vec![moved.clone(), two.clone()]), vec![moved.clone(), two]));
        tokio::time::advance(2 * STAYS).await;
        assert_eq!(join(&mut leaving, vec![moved.clone()]).len(), 2);
        tokio::time::advance(2 * STAYS).await;
        assert_eq!(join(&mut leaving, vec![moved.clone()]), [moved]);
    }

    #[tokio::test(start_paused = true)]
    async fn peers_are_bounded_and_those_that_are_named_come_first() {
        let mut leaving = Leaving::default();
        leaving.join((0..MAX_PEERS).map(|_| peer()).collect());
        let named: Vec<_> = (0..MAX_PEERS - 1).map(|_| peer()).collect();
        let all = join(&mut leaving, named.clone());
        assert_eq!(all.len(), MAX_PEERS);
        assert!(named.iter().all(|peer| all.contains(peer)));
    }
}
