//! Packets of the host: encrypted and sent to the peer whose address they are for.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use gotatun::packet::{Packet, PacketBufPool, WgKind};

use super::{Wires, packet};
use crate::gate::Peer;

/// Buffers that are kept for reuse; further ones are made and thrown away.
const BUFFERS: usize = 256;

pub(super) async fn run(wires: Arc<Wires>) {
    let pool = PacketBufPool::<4096>::new(BUFFERS);
    loop {
        let mut buffer = pool.get();
        match wires.tun.recv(&mut buffer).await {
            Ok(length) => {
                buffer.truncate(length);
                wires.transmit(buffer).await;
            }
            Err(error) if packet::is_of_device(&error) => {
                return wires.fault.report("reading from the TUN device", error);
            }
            Err(error) => tracing::debug!(%error, "a packet of the host is lost"),
        }
    }
}

impl Wires {
    async fn transmit(&self, inner: Packet) {
        // Everything that the kernel routes here is for the prefix; what is for no peer of now has nowhere to go.
        let Ok(inner) = inner.try_into_ip() else {
            return;
        };
        let Some(IpAddr::V6(to)) = inner.destination() else {
            return;
        };
        let Some(peer) = self.gate.by_address(to) else {
            return;
        };
        if let Some((packet, endpoint)) = self.encrypted(&peer, inner.into_bytes()) {
            self.send(&peer, packet, endpoint).await;
        }
    }

    /// The encrypted packet, or an initiation behind which it waits, or nothing where it waits behind an earlier one.
    fn encrypted(&self, peer: &Peer, inner: Packet) -> Option<(WgKind, SocketAddr)> {
        let mut session = peer.session();
        let packet = session.noise.handle_outgoing_packet(inner, Some(&mut self.mtu()))?;
        Some((packet, session.endpoint))
    }
}
