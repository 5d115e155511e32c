//! In which order recorders are tried: that of the grants, then those of the pod's zone, then by name, the replicas of one
//! recorder in an order that is another for each pod.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
};

use podwitness_core::{
    control::{Netmap, RecorderPeer},
    grant::Obligation,
};

use super::plan::Needs;

/// Recorders that satisfy an obligation, in the order in which the pod of that uid tries them. Fail closed is satisfied
/// only by those of grants that ask for it.
pub(super) fn resolve(obligation: &Obligation, netmap: &Netmap, pod: &str) -> Vec<SocketAddr> {
    let Needs { level, .. } = Needs::of(obligation);
    let strong = |peer: &RecorderPeer| peer.ack.is_none_or(|ack| level.is_none_or(|level| ack >= level));
    let mut found: Vec<SocketAddr> = Vec::new();
    for choice in obligation.recorders.iter().filter(|choice| choice.enforced || !obligation.enforce) {
        let fits = |peer: &&RecorderPeer| peer.tags.contains(&choice.tag) && strong(peer);
        let mut peers: Vec<&RecorderPeer> = netmap.recorders.iter().filter(fits).collect();
        peers.sort_by_cached_key(|&peer| place(peer, netmap.zone.as_deref(), pod));
        for address in peers.into_iter().map(RecorderPeer::recordings_at) {
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

/// The place of a recorder among those of one tag: near ones first, then by name. Replicas of one recorder follow a hash
/// of pod and replica, so that not every pod begins with the same, and each does so again after a restart.
fn place<'a>(peer: &'a RecorderPeer, zone: Option<&str>, pod: &str) -> (bool, &'a str, u64) {
    let near = zone.is_some() && peer.zone.as_deref() == zone;
    let mut hasher = DefaultHasher::new();
    (pod, &peer.replica).hash(&mut hasher);
    (!near, &peer.name, hasher.finish())
}

#[cfg(test)]
mod tests;
