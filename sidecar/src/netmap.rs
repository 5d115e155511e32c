//! What a netmap means for the pod's network: which connections are redirected, and who the tunnel's peers are.

use std::net::{IpAddr, SocketAddr};

use podwitness_core::{
    address::is_of_tunnel,
    control::{Netmap, RecorderPeer},
};
use podwitness_tunnel::{Peer, PublicKey, address};

use crate::kernel::rules::Targets;

/// Cap on peers; further recorders are left out.
pub const MAX_PEERS: usize = 256;

/// The addresses that the pod itself was given come first, so that a long netmap cannot push them out.
#[must_use]
pub fn targets(own: &[SocketAddr], netmap: Option<&Netmap>) -> Targets {
    let listed = netmap.map(|netmap| netmap.api_servers.as_slice()).unwrap_or_default();
    let secure = netmap.map(|netmap| netmap.secure_ports.as_slice()).unwrap_or_default();
    // A control plane that does not tell them apart knows no others than the API server's own.
    let unsaid = listed.iter().filter(|_| secure.is_empty());
    let ports = own.iter().chain(unsaid).map(SocketAddr::port).chain(secure.iter().copied());
    Targets::new(own.iter().chain(listed).copied(), ports)
}

/// The recorders as peers. One whose key or address cannot be right is left out and told.
#[must_use]
pub fn peers(netmap: &Netmap) -> Vec<Peer> {
    let inside = netmap.recorders.iter().filter(|recorder| recorder.plaintext.is_none());
    let peers = inside.filter_map(|recorder| {
        let peer = peer(recorder);
        if peer.is_none() {
            tracing::warn!(recorder = %recorder.replica, "this recorder's key and address do not fit; it is left out");
        }
        peer
    });
    let mut peers: Vec<Peer> = peers.take(MAX_PEERS).collect();
    peers.sort_by_key(|peer| peer.key);
    peers.dedup_by_key(|peer| peer.key);
    peers
}

/// Whether a recorder is reached there outside the tunnel, by the word of the netmap. An address of the tunnel never is.
#[must_use]
pub fn in_plaintext(netmap: &Netmap, to: SocketAddr) -> bool {
    let of_tunnel = matches!(to.ip(), IpAddr::V6(ip) if is_of_tunnel(&ip));
    !of_tunnel && netmap.recorders.iter().any(|recorder| recorder.plaintext == Some(to))
}

fn peer(recorder: &RecorderPeer) -> Option<Peer> {
    let key: PublicKey = recorder.public_key.parse().ok()?;
    // A pod calls and never waits to be called: nothing has to keep a way back open while it is silent.
    (address(&key) == recorder.address).then_some(Peer { key, endpoint: recorder.endpoint, keepalive: None })
}

#[cfg(test)]
mod tests {
    use podwitness_tunnel::PrivateKey;

    use super::*;

    fn recorder(key: PublicKey) -> RecorderPeer {
        RecorderPeer {
            name: "podwitness".into(),
            replica: "podwitness-recorder-0".into(),
            tags: vec![],
            public_key: key.to_string(),
            address: address(&key),
            port: 80,
            endpoint: "10.244.0.9:51820".parse().unwrap(),
            ack: None,
            plaintext: None,
            zone: None,
        }
    }

    #[test]
    fn each_recorder_is_one_peer_and_impossible_ones_are_none() {
        let key = || PrivateKey::generate().unwrap().public();
        let (one, two) = (recorder(key()), recorder(key()));
        let elsewhere = RecorderPeer { address: two.address, ..recorder(key()) };
        let nonsense = RecorderPeer { public_key: "key".into(), ..recorder(key()) };
        let recorders = vec![one.clone(), two, one, elsewhere, nonsense];
        assert_eq!(peers(&Netmap { recorders, ..Netmap::default() }).len(), 2);
    }

    #[test]
    fn only_what_the_netmap_says_is_reached_outside_the_tunnel() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let one = recorder(PrivateKey::generate().unwrap().public());
        let plain = |to: &str| RecorderPeer::in_plaintext("old".into(), vec![], at(to));
        let recorders = vec![plain("192.0.2.7:80"), plain("[fd70:6f64:7769::1]:80"), one.clone()];
        let netmap = Netmap { recorders, ..Netmap::default() };
        assert!(in_plaintext(&netmap, at("192.0.2.7:80")));
        for other in ["192.0.2.7:81", "192.0.2.8:80", "[fd70:6f64:7769::1]:80"] {
            assert!(!in_plaintext(&netmap, at(other)), "{other}");
        }
        assert!(!in_plaintext(&netmap, one.recordings_at()));
        assert_eq!(peers(&netmap).len(), 1);
    }

    #[test]
    fn ports_of_what_leads_to_the_api_server_are_not_redirected_everywhere() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let all = [at("10.96.0.1:443"), at("172.18.0.2:6443"), at("10.96.7.7:80")];
        let told = Netmap { api_servers: all.into(), secure_ports: vec![6443], ..Netmap::default() };
        assert_eq!(targets(&[], Some(&told)), Targets::new(all, [6443]));
        let untold = Netmap { api_servers: all[..2].into(), ..Netmap::default() };
        assert_eq!(targets(&[], Some(&untold)), Targets::new(all[..2].iter().copied(), [6443]));
    }

    #[test]
    fn the_pods_own_address_is_always_redirected() {
        let own: SocketAddr = "10.96.0.1:443".parse().unwrap();
        let many = (0..500).map(|n| SocketAddr::from(([10, 1, 0, 1], 1000 + n))).collect();
        let netmap = Netmap { api_servers: many, ..Netmap::default() };
        assert_eq!(targets(&[own], None), Targets::new([own], []));
        assert_eq!(targets(&[own], Some(&netmap)).left_out(), 501 - 256);
        assert!(targets(&[own], Some(&netmap)).redirects(own));
    }
}
