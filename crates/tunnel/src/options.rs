//! What a tunnel is made from, and what it tells.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use crate::{PrivateKey, PublicKey};

/// What carries the packets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Backend {
    /// WireGuard of the Linux kernel.
    Kernel,
    /// WireGuard in this process on a TUN device.
    Tun,
}

/// How to open a tunnel.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the interface; one of that name that is left from an earlier run is replaced.
    pub interface: String,
    /// Key of this end. A new key is a new tunnel.
    pub private_key: PrivateKey,
    /// UDP port; `None` lets the system choose one.
    pub listen_port: Option<u16>,
    /// MTU of the interface; `None` takes that of the default route less the tunnel's overhead, at least 1280.
    pub mtu: Option<u16>,
    /// Mark (`SO_MARK`) of every socket made by the tunnel; 0 for none.
    pub mark: u32,
    /// What to try, in this order.
    pub backends: Vec<Backend>,
}

/// A peer as the netmap names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Its key, from which its address follows.
    pub key: PublicKey,
    /// Where it is reached first; it may roam from there.
    pub endpoint: SocketAddr,
    /// How often to send something even if there is nothing to say; `None` for never.
    pub keepalive: Option<Duration>,
}

/// What is known of a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerStatus {
    /// Its key.
    pub key: PublicKey,
    /// Where it was last heard from, or is expected.
    pub endpoint: Option<SocketAddr>,
    /// End of the last handshake.
    pub last_handshake: Option<SystemTime>,
    /// Bytes received from it.
    pub rx: u64,
    /// Bytes sent to it.
    pub tx: u64,
}

// === impl Backend ===

impl Backend {
    /// Both, in the order in which they are tried.
    pub const ALL: [Self; 2] = [Self::Kernel, Self::Tun];
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Tun => "tun",
        })
    }
}

// === impl Options ===

impl Options {
    /// An unmarked tunnel on whatever back end works, on a port and with an MTU that the system chooses.
    #[must_use]
    pub fn new(interface: impl Into<String>, private_key: PrivateKey) -> Self {
        Self {
            interface: interface.into(),
            private_key,
            listen_port: None,
            mtu: None,
            mark: 0,
            backends: Backend::ALL.to_vec(),
        }
    }
}
