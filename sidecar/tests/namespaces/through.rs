//! A recorder that is reached through the tunnel of a pod, by the sidecar and by nobody else.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use podwitness_core::{
    control::{Netmap, RecorderPeer},
    inject::RECORD_PORT,
};
use podwitness_lab::Netns;
use podwitness_proxy::Dial as _;
use podwitness_sidecar::{
    kernel::{Kernel, rules::Rules},
    metrics::Metrics,
    tunnel::Keeper,
};
use podwitness_tunnel::{Inline, Options, PrivateKey, ProvisionalLimits, RecorderTunnel, Tunnel, address};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::{Builder, Runtime},
    sync::watch,
    time::timeout,
};

use crate::lab::{ENDPOINT, GATEWAY, LISTENER, Lab, SERVICE, at_sidecar, rules, targets, tunnel_turn};

/// A runtime whose threads are in a namespace.
fn runtime(netns: &Netns) -> Runtime {
    netns.run(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

/// A recorder in the world that says `recorder` to whoever connects.
async fn recorder(key: PrivateKey) -> RecorderPeer {
    let public = key.public();
    let options = Options { listen_port: Some(51820), ..Options::new("recorder0", key) };
    let opened =
        Tunnel::open_recorder(&options, ProvisionalLimits::default(), Arc::new(Inline)).await.unwrap();
    let RecorderTunnel { tunnel, gate } = opened;
    let listener = tunnel.listen(RECORD_PORT).await.unwrap();
    tokio::spawn(async move {
        let _open = (tunnel, gate);
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"recorder").await.unwrap();
        }
    });
    RecorderPeer {
        name: "podwitness".into(),
        replica: "0".into(),
        tags: vec![],
        public_key: public.to_string(),
        address: address(&public),
        port: RECORD_PORT,
        endpoint: "10.244.0.1:51820".parse().unwrap(),
        ack: None,
        plaintext: None,
        zone: None,
    }
}

#[test]
#[ignore = "needs root, network namespaces and a TUN device"]
fn the_sidecar_reaches_a_recorder_and_a_program_beside_it_does_not() {
    let _turn = tunnel_turn();
    let lab = Lab::wired();
    let (world, pod) = (runtime(&lab.world), runtime(&lab.pod));
    let peer = world.block_on(world.spawn(recorder(PrivateKey::generate().unwrap()))).unwrap();
    let to = SocketAddr::from((peer.address, peer.port));
    let kernel = lab.pod.run(|| Kernel::start().unwrap());
    let rules = Arc::new(Rules { mark: kernel.mark(), ..rules() });
    pod.block_on(kernel.install(rules, Arc::new(targets(&[SERVICE])))).unwrap();
    let netmap = watch::Sender::new(None);
    let (keeper, recorders) =
        Keeper::new(PrivateKey::generate().unwrap(), &kernel, netmap.subscribe(), Metrics::default());
    pod.spawn(keeper.run());
    // Dialled before there is a tunnel or a peer: it waits for both.
    let greeting = pod.spawn(async move {
        let mut stream = recorders.dial(to).await?;
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting).await.map(|_| greeting)
    });
    netmap.send_replace(Some(Arc::new(Netmap { recorders: vec![peer], ..Netmap::default() })));
    let greeting = pod.block_on(async { timeout(Duration::from_secs(60), greeting).await.unwrap() });
    assert_eq!(greeting.unwrap().unwrap(), "recorder");
    // The way is open now, for marked packets.
    let beside = lab.pod.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(2)));
    assert!(beside.is_err(), "{beside:?}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_recorder_outside_the_tunnel_is_dialled_past_our_rules_while_the_netmap_says_so() {
    let lab = Lab::new();
    let pod = runtime(&lab.pod);
    let kernel = lab.pod.run(|| Kernel::start().unwrap());
    // The redirect takes every connection to this port: only our mark gets past it.
    let to: SocketAddr = GATEWAY.parse().unwrap();
    let (mark, listener) = (kernel.mark(), LISTENER + 1);
    lab.listen(listener, mark);
    let rules = Arc::new(Rules { mark, listener, ..rules() });
    pod.block_on(kernel.install(rules, Arc::new(targets(&[SERVICE, ENDPOINT])))).unwrap();
    assert_eq!(lab.lands(GATEWAY, None), at_sidecar(GATEWAY));
    let netmap = watch::Sender::new(None);
    let (_keeper, recorders) =
        Keeper::new(PrivateKey::generate().unwrap(), &kernel, netmap.subscribe(), Metrics::default());
    let greeting = || {
        let recorders = recorders.clone();
        pod.block_on(pod.spawn(async move {
            let mut stream = recorders.dial(to).await?;
            let mut greeting = String::new();
            stream.read_to_string(&mut greeting).await.map(|_| greeting)
        }))
        .unwrap()
    };
    let refused = greeting().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput, "{refused}");
    let outside = RecorderPeer::in_plaintext("old".into(), vec![], to);
    netmap.send_replace(Some(Arc::new(Netmap { recorders: vec![outside], ..Netmap::default() })));
    assert_eq!(greeting().unwrap(), "world");
    netmap.send_replace(Some(Arc::default()));
    assert!(greeting().is_err());
}
