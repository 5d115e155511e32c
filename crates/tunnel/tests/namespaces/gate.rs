//! What a recorder's gate lets in, and for how long.

use std::{sync::Arc, time::Duration};

use blake2::{
    Blake2s256, Blake2sMac, Digest,
    digest::{FixedOutput, KeyInit, Update, consts::U16},
};
use podwitness_tunnel::{Admission, Backend, ProvisionalLimits, PublicKey, Tunnel};
use tokio::{
    net::{TcpListener, UdpSocket},
    time::Instant,
};

use crate::{
    ends::{Recorder, TCP, UDP, answers, key, members, peer, sidecar},
    flood::initiation,
    lab::{Lab, Node, endpoint, eventually},
    relay::Relay,
};

/// First byte of the encrypted timestamp in an initiation, and of its first MAC.
const TIMESTAMP: usize = 88;
const MAC1: usize = 116;

fn limits(ttl: Duration) -> ProvisionalLimits {
    ProvisionalLimits { ttl, ..ProvisionalLimits::default() }
}

fn sizes(recorder: &Recorder) -> (usize, usize) {
    let sizes = recorder.gate().sizes();
    (sizes.provisional, sizes.admitted)
}

fn wait_until_empty(lab: &Lab, recorder: &Recorder) {
    let tunnel = Arc::clone(&recorder.tunnel);
    lab.recorder.run(async move {
        eventually("no peer left", || async {
            let sizes = tunnel.gate.sizes();
            (sizes.provisional + sizes.admitted == 0).then_some(())
        })
        .await;
        assert!(tunnel.tunnel.status().await.unwrap().is_empty(), "the device forgets them too");
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_peer_without_assertion_ends_after_its_time() {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), limits(Duration::from_secs(2)), false);
    let tunnel = sidecar(&lab.sidecar, Backend::Tun, vec![recorder.peer(Lab::RECORDER)]);
    let target = recorder.target();
    let (ours, same) = (tunnel.address(), Arc::clone(&tunnel));
    lab.sidecar.run(async move { assert!(answers(&same, target).await) });
    assert!(matches!(recorder.gate().key_of(ours), Some((_, Admission::Provisional))));
    wait_until_empty(&lab, &recorder);
    assert_eq!(recorder.gate().key_of(ours), None);
    assert_eq!(recorder.gate().counts().expired, 1);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn an_admitted_peer_stays_until_its_assertion_ends() {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), limits(Duration::from_secs(1)), true);
    let tunnel = sidecar(&lab.sidecar, Backend::Tun, vec![recorder.peer(Lab::RECORDER)]);
    let target = recorder.target();
    let ours = tunnel.address();
    lab.sidecar.run({
        let tunnel = Arc::clone(&tunnel);
        async move { assert!(answers(&tunnel, target).await) }
    });
    // A stranger that comes later and goes again shows that the time of the provisional has passed.
    send(&lab.sidecar, vec![initiation(&recorder.key)]);
    wait_for(&lab, &recorder, |counts| counts.expired == 1);
    assert_eq!((sizes(&recorder), recorder.gate().counts().added), ((0, 1), 2));
    assert!(matches!(recorder.gate().key_of(ours), Some((_, Admission::Admitted { .. }))));
    let (held, _) = recorder.gate().key_of(ours).unwrap();
    recorder.gate().admit(&held, Instant::now() + Duration::from_secs(1)).unwrap();
    wait_until_empty(&lab, &recorder);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn only_ports_that_the_tunnel_listens_on_are_reached() {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let tunnel = sidecar(&lab.sidecar, Backend::Tun, vec![recorder.peer(Lab::RECORDER)]);
    let mut target = recorder.target();
    let everywhere = lab.recorder.run(async { TcpListener::bind("[::]:8080").await.unwrap() });
    lab.sidecar.run({
        let tunnel = Arc::clone(&tunnel);
        async move { assert!(answers(&tunnel, target).await) }
    });
    assert_eq!(recorder.gate().counts().dropped, 0);
    target.set_port(8080);
    lab.sidecar.start(async move {
        let _ = tunnel.dial(target).await;
    });
    let gate = recorder.gate().clone();
    lab.recorder.run(async move {
        eventually("a packet is dropped", || async { (gate.counts().dropped > 0).then_some(()) }).await;
        let accepted = tokio::time::timeout(Duration::ZERO, everywhere.accept()).await;
        assert!(accepted.is_err(), "the listener on all addresses has not heard of it");
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_replayed_initiation_changes_nothing_for_a_peer_that_is_there() {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let (tunnel, captured) = captured(&lab, &recorder);
    let before = members(&lab.recorder, &recorder);
    send(&lab.sidecar, vec![captured[0].clone(); 50]);
    let target = recorder.target();
    lab.sidecar.run(async move { assert!(answers(&tunnel, target).await) });
    let after = members(&lab.recorder, &recorder);
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].endpoint, before[0].endpoint, "whoever replays does not take the session over");
    assert_eq!((sizes(&recorder), recorder.gate().counts().added), ((0, 1), 1));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_replayed_initiation_of_a_peer_that_is_gone_leaves_no_state() {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), limits(Duration::from_secs(1)), false);
    let (tunnel, captured) = captured(&lab, &recorder);
    let close = Arc::into_inner(tunnel).unwrap().close();
    lab.sidecar.run(async move { close.await.unwrap() });
    wait_until_empty(&lab, &recorder);
    let added = recorder.gate().counts().added;
    send(&lab.sidecar, vec![captured[0].clone(); 50]);
    wait_for(&lab, &recorder, move |counts| counts.added > added);
    wait_until_empty(&lab, &recorder);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_forged_initiation_leaves_no_state() {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), limits(Duration::from_secs(1)), false);
    let (tunnel, captured) = captured(&lab, &recorder);
    let close = Arc::into_inner(tunnel).unwrap().close();
    lab.sidecar.run(async move { close.await.unwrap() });
    wait_until_empty(&lab, &recorder);
    let before = recorder.gate().counts();
    // The key is claimed rightly, but what only its holder could write is not there.
    let mut claimed = captured[0].clone();
    claimed[TIMESTAMP] ^= 1;
    sign(&mut claimed, &recorder.key);
    let mut unsigned = captured[0].clone();
    unsigned[MAC1] ^= 1;
    let mut garbled = captured[0].clone();
    garbled[TIMESTAMP - 1] ^= 1;
    sign(&mut garbled, &recorder.key);
    let short = captured[0][..100].to_vec();
    send(&lab.sidecar, vec![claimed, unsigned, garbled, short]);
    wait_for(&lab, &recorder, move |counts| counts.forged == before.forged + 4);
    assert_eq!(recorder.gate().counts().added, before.added);
    assert_eq!(sizes(&recorder), (0, 0));
    assert!(members(&lab.recorder, &recorder).is_empty());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_recorder_neither_dials_nor_takes_a_list_of_peers() {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let (tunnel, peers) =
        (Arc::clone(&recorder.tunnel), vec![peer(key().public(), endpoint(Lab::SIDECAR, UDP))]);
    let target = recorder.target();
    lab.recorder.run(async move {
        assert!(tunnel.tunnel.set_peers(peers).await.is_err());
        assert_eq!(tunnel.tunnel.dial(target).await.unwrap_err().kind(), std::io::ErrorKind::Unsupported);
        assert_eq!(tunnel.tunnel.listen(TCP).await.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    });
}

/// A sidecar that has talked to the recorder, and the initiations that were seen on the way.
fn captured(lab: &Lab, recorder: &Recorder) -> (Arc<Tunnel>, Vec<Vec<u8>>) {
    let relay = lab.recorder.run(Relay::start(endpoint(Lab::RECORDER, 0), endpoint(Lab::RECORDER, UDP), 0));
    let tunnel = sidecar(&lab.sidecar, Backend::Tun, vec![peer(recorder.key, relay.address)]);
    let (target, same) = (recorder.target(), Arc::clone(&tunnel));
    lab.sidecar.run(async move { assert!(answers(&same, target).await) });
    (tunnel, relay.initiations())
}

/// Sends datagrams to the recorder from a socket that is nobody's.
fn send(from: &Node, datagrams: Vec<Vec<u8>>) {
    from.run(async move {
        let socket = UdpSocket::bind(endpoint(Lab::SIDECAR, 0)).await.unwrap();
        for datagram in datagrams {
            socket.send_to(&datagram, endpoint(Lab::RECORDER, UDP)).await.unwrap();
        }
    });
}

fn wait_for(
    lab: &Lab,
    recorder: &Recorder,
    there: impl Fn(podwitness_tunnel::GateCounts) -> bool + Send + Sync + 'static,
) {
    let gate = recorder.gate().clone();
    lab.recorder.run(async move {
        eventually("the gate has judged", || async { there(gate.counts()).then_some(()) }).await;
    });
}

/// Writes the first MAC anew (WireGuard paper §5.4.4); whoever knows the recorder's public key can.
fn sign(initiation: &mut [u8], recorder: &PublicKey) {
    let mut label = Blake2s256::new();
    Digest::update(&mut label, b"mac1----");
    Digest::update(&mut label, recorder.as_bytes());
    let mut mac = Blake2sMac::<U16>::new_from_slice(&label.finalize()).unwrap();
    Update::update(&mut mac, &initiation[..MAC1]);
    initiation[MAC1..MAC1 + 16].copy_from_slice(&mac.finalize_fixed());
}
