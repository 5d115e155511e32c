//! What holds for a sidecar on either back end.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};

use podwitness_tunnel::{
    Backend, Inline, Options, Peer, PrivateKey, ProvisionalLimits, Tunnel, netlink::Netlink,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use crate::{
    ends::{Recorder, UDP, answers, key, name, peer, say, sidecar},
    lab::{Lab, endpoint, eventually},
    relay::Relay,
};

pub fn two_ends_talk(backend: Backend) {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let tunnel = sidecar(&lab.sidecar, backend, vec![recorder.peer(Lab::RECORDER)]);
    assert_eq!(tunnel.backend(), backend);
    let target = recorder.target();
    let status = lab.sidecar.run(async move {
        assert_eq!(say(&tunnel, target, b"a recording").await.unwrap(), b"a recording");
        tunnel.status().await.unwrap()
    });
    let [peer] = status.as_slice() else { panic!("one peer, not {status:?}") };
    assert_eq!((peer.key, peer.endpoint), (recorder.key, Some(endpoint(Lab::RECORDER, UDP))));
    assert!(peer.last_handshake.is_some() && peer.rx > 0 && peer.tx > 0, "{peer:?}");
    assert_eq!(recorder.gate().sizes().admitted, 1);
}

pub fn ipv4_carries_it_too(backend: Backend) {
    let lab = Lab::new();
    let (here, there) = (Ipv4Addr::new(10, 9, 8, 2), Ipv4Addr::new(10, 9, 8, 1));
    lab.sidecar.add_address(here);
    lab.recorder.add_address(there);
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let tunnel = sidecar(&lab.sidecar, backend, vec![recorder.peer(there)]);
    let target = recorder.target();
    lab.sidecar.run(async move { assert!(answers(&tunnel, target).await) });
}

pub fn peers_are_exactly_those_that_were_set(backend: Backend) {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let (ours, other) = (recorder.peer(Lab::RECORDER), peer(key().public(), endpoint(Lab::RECORDER, 9)));
    let tunnel = sidecar(&lab.sidecar, backend, vec![ours.clone(), other.clone()]);
    let target = recorder.target();
    lab.sidecar.run(async move {
        assert!(answers(&tunnel, target).await);
        let before = tunnel.status().await.unwrap();
        assert_eq!(before.len(), 2);
        tunnel.set_peers(vec![ours.clone()]).await.unwrap();
        let after = tunnel.status().await.unwrap();
        assert_eq!(after.iter().map(|peer| peer.key).collect::<Vec<_>>(), [ours.key]);
        assert!(after[0].last_handshake.is_some(), "a peer that stays keeps its session");
        tunnel.set_peers(vec![]).await.unwrap();
        assert!(tunnel.status().await.unwrap().is_empty());
        let refused = tunnel.dial(target).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::NetworkUnreachable, "its route is gone too");
    });
}

pub fn a_sidecar_restarts_with_a_new_key(backend: Backend) {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let target = recorder.target();
    for _ in 0..2 {
        let tunnel = sidecar(&lab.sidecar, backend, vec![recorder.peer(Lab::RECORDER)]);
        lab.sidecar.run(async move { assert!(answers(&tunnel, target).await) });
    }
    assert_eq!(recorder.gate().sizes().admitted, 2);
}

pub fn a_recorder_restarts_with_a_new_key(backend: Backend) {
    let lab = Lab::new();
    let (tunnel, recorder) = after_a_restart(&lab, backend, key(), key());
    let (target, peers) = (recorder.target(), vec![recorder.peer(Lab::RECORDER)]);
    lab.sidecar.run(async move {
        tunnel.set_peers(peers).await.unwrap();
        assert!(answers(&tunnel, target).await);
    });
}

pub fn a_recorder_restarts_with_its_key(backend: Backend) {
    let (lab, secret) = (Lab::new(), key());
    let (tunnel, recorder) = after_a_restart(&lab, backend, secret.clone(), secret);
    let target = recorder.target();
    // WireGuard by itself would see only after 15 s of silence that its session is gone.
    lab.sidecar.run(async move { assert!(answers(&tunnel, target).await) });
}

pub fn a_peer_that_is_silent_begins_anew(backend: Backend) {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let tunnel = sidecar(&lab.sidecar, backend, vec![recorder.peer(Lab::RECORDER)]);
    let target = recorder.target();
    lab.sidecar.run(async move {
        assert!(say(&tunnel, target, &noise(1 << 16)).await.is_ok());
        let mut quiet = tunnel.dial(target).await.unwrap();
        let before = tunnel.status().await.unwrap()[0].rx;
        assert!(!answers(&tunnel, unanswered(target)).await);
        // What the device has counted ends with the session.
        let after = tunnel.status().await.unwrap()[0].rx;
        assert!(after < before, "{after} bytes, {before} before");
        // Connections that were there go on in the new one.
        echoed(&mut quiet).await;
    });
}

pub fn a_peer_that_is_heard_keeps_its_session(backend: Backend) {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let tunnel = sidecar(&lab.sidecar, backend, vec![recorder.peer(Lab::RECORDER)]);
    let target = recorder.target();
    lab.sidecar.run(async move {
        let mut alive = tunnel.dial(target).await.unwrap();
        let upload = async {
            loop {
                echoed(&mut alive).await;
                sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(say(&tunnel, target, &noise(1 << 16)).await.is_ok());
        let before = tunnel.status().await.unwrap()[0].rx;
        let answered = tokio::select! {
            answered = answers(&tunnel, unanswered(target)) => answered,
            () = upload => true,
        };
        assert!(!answered);
        let after = tunnel.status().await.unwrap()[0].rx;
        assert!(after > before, "{after} bytes, {before} before");
    });
}

pub fn a_recorder_with_its_key_is_set_anew(backend: Backend) {
    let (lab, secret) = (Lab::new(), key());
    let (tunnel, recorder) = after_a_restart(&lab, backend, secret.clone(), secret);
    let (target, peers) = (recorder.target(), vec![recorder.peer(Lab::RECORDER)]);
    lab.sidecar.run(async move {
        tunnel.set_peers(vec![]).await.unwrap();
        tunnel.set_peers(peers).await.unwrap();
        assert_eq!(tunnel.status().await.unwrap()[0].last_handshake, None);
        assert!(answers(&tunnel, target).await);
    });
}

pub fn a_connection_outlives_a_change_of_address(backend: Backend) {
    let lab = Lab::new();
    let elsewhere = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 0xbeef);
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let tunnel = sidecar(&lab.sidecar, backend, vec![recorder.peer(Lab::RECORDER)]);
    let target = recorder.target();
    let mut stream = lab.sidecar.run(async move {
        let mut stream = tunnel.dial(target).await.unwrap();
        echoed(&mut stream).await;
        (tunnel, stream)
    });
    lab.sidecar.add_address(elsewhere);
    lab.sidecar.remove_address(Lab::SIDECAR);
    stream = lab.sidecar.run(async move {
        echoed(&mut stream.1).await;
        stream
    });
    let status = lab.recorder.run({
        let tunnel = recorder.tunnel.clone();
        async move { tunnel.tunnel.status().await.unwrap() }
    });
    assert_eq!(status[0].endpoint.map(|at| at.ip()), Some(elsewhere.into()));
    drop(stream);
}

pub fn a_recorder_moves(backend: Backend) {
    let lab = Lab::new();
    let elsewhere = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 0xbeef);
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let tunnel = sidecar(&lab.sidecar, backend, vec![recorder.peer(Lab::RECORDER)]);
    let (target, same) = (recorder.target(), tunnel.clone());
    lab.sidecar.run(async move { assert!(answers(&same, target).await) });
    lab.recorder.add_address(elsewhere);
    lab.recorder.remove_address(Lab::RECORDER);
    let peers = vec![recorder.peer(elsewhere)];
    lab.sidecar.run(async move {
        tunnel.set_peers(peers).await.unwrap();
        assert!(answers(&tunnel, target).await);
    });
}

pub fn lost_packets_lose_no_bytes(backend: Backend) {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let relay = lab.recorder.run(Relay::start(endpoint(Lab::RECORDER, 0), endpoint(Lab::RECORDER, UDP), 50));
    let tunnel = sidecar(&lab.sidecar, backend, vec![peer(recorder.key, relay.address)]);
    let target = recorder.target();
    lab.sidecar.run(async move {
        let message = noise(1 << 18);
        assert!(say(&tunnel, target, &message).await.unwrap() == message);
    });
}

pub fn packets_fill_the_link_and_are_never_cut(backend: Backend) {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let tunnel = sidecar(&lab.sidecar, backend, vec![recorder.peer(Lab::RECORDER)]);
    let target = recorder.target();
    lab.sidecar.run(async move {
        let message = noise(1 << 19);
        assert!(say(&tunnel, target, &message).await.unwrap() == message);
    });
    for node in [&lab.sidecar, &lab.recorder] {
        assert_eq!(node.counter("Ip6FragCreates"), 0);
        assert_eq!(node.counter("Ip6ReasmReqds"), 0);
    }
}

pub fn sockets_carry_the_mark(backend: Backend) {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let (target, peers) = (recorder.target(), vec![recorder.peer(Lab::RECORDER)]);
    lab.sidecar.run(async move {
        let options = Options { mark: 0x7077, backends: vec![backend], ..Options::new(name(), key()) };
        let tunnel = Tunnel::open(&options, Arc::new(Inline)).await.unwrap();
        tunnel.set_peers(peers).await.unwrap();
        let stream = tunnel.dial(target).await.unwrap();
        assert_eq!(SockRef::from(&stream).mark().unwrap(), 0x7077);
        assert_eq!(stream.local_addr().unwrap().ip(), tunnel.address());
    });
}

pub fn a_closed_tunnel_leaves_nothing(backend: Backend) {
    let lab = Lab::new();
    lab.sidecar.run(async move {
        let options = Options { backends: vec![backend], ..Options::new(name(), key()) };
        for _ in 0..2 {
            let tunnel = Tunnel::open(&options, Arc::new(Inline)).await.unwrap();
            assert!(Netlink::new().link(&options.interface).unwrap().is_some());
            tunnel.close().await.unwrap();
            assert_eq!(Netlink::new().link(&options.interface).unwrap(), None);
        }
    });
}

pub fn what_an_earlier_run_left_is_replaced(backend: Backend) {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let (target, peers) = (recorder.target(), vec![recorder.peer(Lab::RECORDER)]);
    lab.sidecar.run(async move {
        let mut options = Options { backends: vec![backend], ..Options::new(name(), key()) };
        let first = Tunnel::open(&options, Arc::new(Inline)).await.unwrap();
        // As if the process had been killed: nothing is closed in order.
        std::mem::forget(first);
        options.private_key = key();
        let second = Tunnel::open(&options, Arc::new(Inline)).await.unwrap();
        second.set_peers(peers).await.unwrap();
        assert!(answers(&second, target).await);
    });
}

pub fn keepalives_flow_only_when_asked_for(backend: Backend) {
    let lab = Lab::new();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let quiet = recorder.peer(Lab::RECORDER);
    let alive = Peer { keepalive: Some(Duration::from_secs(1)), ..quiet.clone() };
    let tunnel = sidecar(&lab.sidecar, backend, vec![alive]);
    lab.sidecar.run(async move {
        // With nothing to say, only a keepalive begins a handshake.
        eventually("a handshake", || async { tunnel.status().await.unwrap()[0].last_handshake }).await;
        let sent = tunnel.status().await.unwrap()[0].tx;
        eventually("another keepalive", || async {
            (tunnel.status().await.unwrap()[0].tx > sent).then_some(())
        })
        .await;
        tunnel.set_peers(vec![quiet]).await.unwrap();
    });
}

pub fn one_thread_needs_privilege(backend: Backend) {
    let (lab, seam) = Lab::unprivileged();
    let recorder = Recorder::open(&lab.recorder, key(), ProvisionalLimits::default(), true);
    let (target, peers) = (recorder.target(), vec![recorder.peer(Lab::RECORDER)]);
    lab.sidecar.run(async move {
        let options = Options { mark: 7, backends: vec![backend], ..Options::new(name(), key()) };
        assert!(Tunnel::open(&options, Arc::new(Inline)).await.is_err(), "the other threads may not");
        let tunnel = Tunnel::open(&options, seam).await.unwrap();
        tunnel.set_peers(peers).await.unwrap();
        assert!(answers(&tunnel, target).await);
        assert_eq!(tunnel.status().await.unwrap().len(), 1);
        tunnel.set_peers(vec![]).await.unwrap();
        tunnel.close().await.unwrap();
    });
}

pub fn the_mtu_follows_the_default_route(backend: Backend) {
    let lab = Lab::new();
    let wire = lab.sidecar.wire();
    lab.sidecar.netlink(move |netlink| {
        netlink.bring_up(wire, 1400)?;
        netlink.add_route(wire, Ipv6Addr::UNSPECIFIED, 0)
    });
    lab.sidecar.run(async move {
        for (asked, given) in [(None, 1320), (Some(1300), 1300)] {
            let options = Options { mtu: asked, backends: vec![backend], ..Options::new(name(), key()) };
            let tunnel = Tunnel::open(&options, Arc::new(Inline)).await.unwrap();
            assert_eq!(Netlink::new().link(&options.interface).unwrap().unwrap().mtu, given);
            tunnel.close().await.unwrap();
        }
    });
}

pub fn a_removed_interface_is_noticed(backend: Backend) {
    let lab = Lab::new();
    lab.sidecar.run(async move {
        let options = Options { backends: vec![backend], ..Options::new(name(), key()) };
        let tunnel = Tunnel::open(&options, Arc::new(Inline)).await.unwrap();
        Netlink::new().delete_link(&options.interface).unwrap();
        assert!(tunnel.failed().await.to_string().contains("removed"));
        let again = Tunnel::open(&options, Arc::new(Inline)).await.unwrap();
        again.close().await.unwrap();
    });
}

/// A sidecar to which the recorder of the first key has answered, and the one of the second key that has come since in
/// its place.
fn after_a_restart(
    lab: &Lab,
    backend: Backend,
    first: PrivateKey,
    second: PrivateKey,
) -> (Arc<Tunnel>, Recorder) {
    let first = Recorder::open(&lab.recorder, first, ProvisionalLimits::default(), true);
    let tunnel = sidecar(&lab.sidecar, backend, vec![first.peer(Lab::RECORDER)]);
    let (target, same) = (first.target(), tunnel.clone());
    lab.sidecar.run(async move { assert!(answers(&same, target).await) });
    first.close(&lab.recorder);
    (tunnel, Recorder::open(&lab.recorder, second, ProvisionalLimits::default(), true))
}

/// A port of the same recorder to which the gate lets nothing through.
fn unanswered(mut target: SocketAddrV6) -> SocketAddrV6 {
    target.set_port(target.port() + 1);
    target
}

async fn echoed(stream: &mut tokio::net::TcpStream) {
    stream.write_all(b"still there?").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"still there?");
}

/// Bytes that are the same in every run.
fn noise(length: u32) -> Vec<u8> {
    (0..length).map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}
