//! Ten thousand strangers at the gate, none of which ever sends an assertion.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use gotatun::{
    noise::{Tunn, index_table::IndexTable, rate_limiter::RateLimiter},
    x25519,
};
use podwitness_tunnel::{Admission, Backend, Gate, GateCounts, ProvisionalLimits, PublicKey};
use socket2::{Domain, Socket, Type};

use crate::{
    ends::{Recorder, UDP, answers, key, members, sidecar},
    lab::{Lab, endpoint, eventually},
};

const STRANGERS: u16 = 10_000;
/// Datagrams that fit into the recorder's socket at once.
const AT_ONCE: usize = 100;

#[test]
#[ignore = "needs root and network namespaces"]
fn strangers_from_one_address_do_not_keep_an_honest_peer_out() {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let loud = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let counts = flooded(&lab, &recorder, move |_| loud);
    assert!(counts.limited > u64::from(STRANGERS) / 2, "{counts:?}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn strangers_from_ten_thousand_networks_do_not_keep_an_honest_peer_out() {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let counts = flooded(&lab, &recorder, |stranger| Ipv6Addr::new(0x2001, 0xdb8, 0, stranger, 0, 0, 0, 1));
    assert!(counts.challenged > u64::from(STRANGERS) / 2, "{counts:?}");
}

/// Sends the strangers' initiations, lets an honest peer come in the middle, and checks what must hold throughout.
fn flooded(lab: &Lab, recorder: &Recorder, source: impl Fn(u16) -> Ipv6Addr + Send + 'static) -> GateCounts {
    let strangers = strangers(&recorder.key);
    let most = Arc::new(Mutex::new(0));
    let flood = flood(strangers, source, recorder.gate().clone(), Arc::clone(&most));
    lab.sidecar.start(async move {
        flood.await;
    });
    let gate = recorder.gate().clone();
    lab.recorder.run(async move {
        eventually("the flood is on", || async { (judged(gate.counts()) > 2000).then_some(()) }).await;
    });
    let tunnel = sidecar(&lab.sidecar, Backend::Tun, vec![recorder.peer(Lab::RECORDER)]);
    let (target, ours) = (recorder.target(), tunnel.address());
    lab.sidecar.run(async move {
        eventually("the honest peer is served", || async { answers(&tunnel, target).await.then_some(()) })
            .await;
    });
    assert!(matches!(recorder.gate().key_of(ours), Some((_, Admission::Admitted { .. }))));
    let gate = recorder.gate().clone();
    lab.recorder.run(async move {
        eventually("the flood is over", || async {
            (judged(gate.counts()) >= u64::from(STRANGERS)).then_some(())
        })
        .await;
    });
    assert!(*most.lock().unwrap() <= ProvisionalLimits::default().max);
    assert_eq!(recorder.gate().sizes().admitted, 1);
    assert!(members(&lab.recorder, recorder).len() <= ProvisionalLimits::default().max + 1);
    recorder.gate().counts()
}

async fn flood(
    strangers: Vec<Vec<u8>>,
    source: impl Fn(u16) -> Ipv6Addr + Send,
    gate: Gate,
    most: Arc<Mutex<usize>>,
) {
    let mut sent = 0;
    for (number, initiation) in (0..).zip(strangers) {
        socket(source(number)).send_to(&initiation, &endpoint(Lab::RECORDER, UDP).into()).unwrap();
        sent += 1;
        if sent % AT_ONCE == 0 {
            // The claim is about datagrams that arrive, so none may be lost on the way.
            eventually("the gate has judged", || async {
                (judged(gate.counts()) >= sent as u64).then_some(())
            })
            .await;
            let mut most = most.lock().unwrap();
            *most = gate.sizes().provisional.max(*most);
        }
    }
}

/// A socket on an address that is not ours: a forged source.
fn socket(source: Ipv6Addr) -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
    socket.set_freebind_v6(true).unwrap();
    socket.bind(&SocketAddr::new(source.into(), 0).into()).unwrap();
    socket
}

fn judged(counts: GateCounts) -> u64 {
    counts.added + counts.limited + counts.full + counts.forged + counts.challenged + counts.overrun
}

fn strangers(recorder: &PublicKey) -> Vec<Vec<u8>> {
    (0..STRANGERS).map(|_| initiation(recorder)).collect()
}

/// An initiation to the recorder by someone who really holds its key, which nobody has seen before.
pub fn initiation(recorder: &PublicKey) -> Vec<u8> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    let secret = x25519::StaticSecret::from(bytes);
    let public = x25519::PublicKey::from(&secret);
    let limiter = Arc::new(RateLimiter::new(&public, 100));
    let theirs = x25519::PublicKey::from(*recorder.as_bytes());
    let mut tunnel = Tunn::new(secret, theirs, None, None, IndexTable::from_os_rng(), limiter);
    tunnel.format_handshake_initiation(false).unwrap().into_bytes().to_vec()
}
