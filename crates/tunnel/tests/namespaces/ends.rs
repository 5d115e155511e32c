//! The two ends of a tunnel, as sidecar and recorder use them.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use podwitness_tunnel::{
    Backend, Gate, Inline, Options, Peer, PeerStatus, PrivateKey, ProvisionalLimits, PublicKey,
    RecorderTunnel, Tunnel, address,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{self, Instant},
};

use crate::lab::Node;

/// UDP port of a recorder.
pub const UDP: u16 = 51820;
/// TCP port of a recorder.
pub const TCP: u16 = 80;
/// How long one attempt to be answered may take; WireGuard's longest timer is 15 s.
const ATTEMPT: Duration = Duration::from_secs(5);

/// An interface name that no other test or run has.
pub fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("pw{:x}-{number:x}", std::process::id())
}

/// A recorder that answers with what it is sent, and admits whoever connects if `admits`.
pub struct Recorder {
    pub tunnel: Arc<RecorderTunnel>,
    pub key: PublicKey,
    serving: AbortHandle,
}

impl Recorder {
    pub fn open(node: &Node, key: PrivateKey, limits: ProvisionalLimits, admits: bool) -> Self {
        let public = key.public();
        let (tunnel, serving) = node.run(async move {
            let options = Options { listen_port: Some(UDP), ..Options::new(name(), key) };
            let opened = Tunnel::open_recorder(&options, limits, Arc::new(Inline)).await.unwrap();
            let listener = opened.tunnel.listen(TCP).await.unwrap();
            let serving = tokio::spawn(serve(listener, opened.gate.clone(), admits));
            (opened, serving.abort_handle())
        });
        Self { tunnel: Arc::new(tunnel), key: public, serving }
    }

    pub fn gate(&self) -> &Gate {
        &self.tunnel.gate
    }

    /// Where it listens in the tunnel.
    pub fn target(&self) -> SocketAddrV6 {
        SocketAddrV6::new(address(&self.key), TCP, 0, 0)
    }

    pub fn peer(&self, at: impl Into<IpAddr>) -> Peer {
        peer(self.key, SocketAddr::new(at.into(), UDP))
    }

    pub fn close(self, node: &Node) {
        self.serving.abort();
        let tunnel = Arc::into_inner(self.tunnel).unwrap();
        node.run(async move { tunnel.tunnel.close().await.unwrap() });
    }
}

pub fn peer(key: PublicKey, endpoint: SocketAddr) -> Peer {
    Peer { key, endpoint, keepalive: None }
}

/// A sidecar's tunnel to these recorders.
pub fn sidecar(node: &Node, backend: Backend, peers: Vec<Peer>) -> Arc<Tunnel> {
    let options = Options { backends: vec![backend], ..Options::new(name(), key()) };
    node.run(async move {
        let tunnel = Tunnel::open(&options, Arc::new(Inline)).await.unwrap();
        tunnel.set_peers(peers).await.unwrap();
        Arc::new(tunnel)
    })
}

/// What the recorder's device has for peers.
pub fn members(node: &Node, recorder: &Recorder) -> Vec<PeerStatus> {
    let tunnel = Arc::clone(&recorder.tunnel);
    node.run(async move { tunnel.tunnel.status().await.unwrap() })
}

pub fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

/// Sends a message and returns what comes back.
pub async fn say(tunnel: &Tunnel, to: SocketAddrV6, message: &[u8]) -> io::Result<Vec<u8>> {
    let stream = tunnel.dial(to).await?;
    let (mut reading, mut writing) = stream.into_split();
    let sent = message.to_vec();
    let sending = tokio::spawn(async move {
        writing.write_all(&sent).await?;
        writing.shutdown().await
    });
    let mut answer = Vec::new();
    reading.read_to_end(&mut answer).await?;
    sending.await.unwrap()?;
    Ok(answer)
}

/// Whether a short message is answered within one attempt.
pub async fn answers(tunnel: &Tunnel, to: SocketAddrV6) -> bool {
    matches!(time::timeout(ATTEMPT, say(tunnel, to, b"ping")).await, Ok(Ok(answer)) if answer == b"ping")
}

async fn serve(listener: TcpListener, gate: Gate, admits: bool) {
    while let Ok((stream, from)) = listener.accept().await {
        let IpAddr::V6(from) = from.ip() else { panic!("IPv4 in the tunnel") };
        let (key, _) = gate.key_of(from).expect("a source address in the tunnel is some peer's");
        if admits {
            gate.admit(&key, Instant::now() + Duration::from_secs(3600)).unwrap();
        }
        tokio::spawn(echo(stream));
    }
}

async fn echo(stream: TcpStream) {
    let (mut reading, mut writing) = stream.into_split();
    // A peer that goes away in the middle is part of some tests.
    let _ = tokio::io::copy(&mut reading, &mut writing).await;
}
