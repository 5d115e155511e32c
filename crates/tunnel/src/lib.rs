//! WireGuard: keys, addresses that follow from keys, and a tunnel that can be dialled through and listened on.
//!
//! Two back ends stand behind one [`Tunnel`]: the kernel's WireGuard, and a userspace one on a TUN device. They are
//! chosen by trying, the kernel first. Where several processes share the network namespace, only one operating-system
//! thread of ours may hold `CAP_NET_ADMIN`; everything that needs it goes through [`Privileged`], and nothing else does.
//!
//! A sidecar knows its peers, the recorders, and sets them ([`Tunnel::set_peers`]). A recorder does not know who will
//! call: [`Tunnel::open_recorder`] admits unknown keys provisionally, behind a [`Gate`].
//!
//! Invariant: a peer may send from, and is routed, the one /128 that follows from its key ([`address`]), so that a
//! source address seen on the tunnel stands for a key.
//!
//! Sources: the WireGuard paper (wireguard.com/papers/wireguard.pdf), its cross-platform configuration protocol
//! (wireguard.com/xplatform), RFC 4193 for the addresses.

mod error;
mod gate;
mod hub;
mod interface;
mod kernel;
mod key;
mod mtu;
pub mod netlink;
mod options;
mod peers;
mod privileged;
mod silence;
mod socket;
mod tun;
mod tunnel;
mod userspace;
mod wireguard;

pub use error::Error;
pub use gate::{Admission, AdmitError, Gate, GateCounts, GateSizes, ProvisionalLimits, Rate};
pub use key::{KeyError, PREFIX, PrivateKey, PublicKey, address};
pub use options::{Backend, Options, Peer, PeerStatus};
pub use privileged::{Inline, Job, Privileged, Stopped};
pub use tunnel::{KernelTunnel, RecorderTunnel, TunTunnel, Tunnel};
