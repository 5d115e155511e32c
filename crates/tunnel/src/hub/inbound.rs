//! Datagrams from peers: decrypted, checked, and given to the host.

use std::{net::SocketAddr, sync::Arc};

use gotatun::{
    noise::TunnResult,
    packet::{Packet, PacketBufPool, WgKind},
    udp::UdpRecv,
};
use tokio::{sync::mpsc::Sender, time::Instant};

use super::{Wires, packet};
use crate::gate::Peer;

/// First byte of an initiation (WireGuard paper §5.4.2).
const INITIATION: u8 = 1;
/// Buffers that are kept for reuse; further ones are made and thrown away.
const BUFFERS: usize = 256;

pub(super) async fn run(wires: Arc<Wires>, asking: Sender<(Packet, SocketAddr)>) {
    let mut pool = PacketBufPool::new(BUFFERS);
    let (mut socket, mut buffer, mut datagrams) = (wires.udp.clone(), Default::default(), Vec::new());
    loop {
        if let Err(error) = socket.recv_many_from(&mut buffer, &mut pool, &mut datagrams).await {
            return wires.fault.report("receiving datagrams", error);
        }
        for (datagram, from) in datagrams.drain(..) {
            if datagram.first() != Some(&INITIATION) {
                wires.receive(datagram, from).await;
            } else if asking.try_send((datagram, from)).is_err() {
                wires.gate.count(|counts| counts.overrun += 1);
            }
        }
    }
}

impl Wires {
    async fn receive(&self, datagram: Packet, from: SocketAddr) {
        // What is no WireGuard packet, or of a session that nobody has, may come from anyone and is not worth a word.
        let Ok(packet) = datagram.try_into_wg() else {
            return;
        };
        let Some(peer) = number(&packet).and_then(|number| self.gate.by_number(number)) else {
            return;
        };
        let result = accept(&peer, packet, from);
        match result {
            TunnResult::WriteToTunnel(inner) => self.deliver(&peer, inner).await,
            TunnResult::WriteToNetwork(answer) => self.established(&peer, answer, from).await,
            TunnResult::Done | TunnResult::Err(_) => {}
        }
    }

    /// Gives a decrypted packet to the host, if it may go there.
    async fn deliver(&self, peer: &Peer, inner: Packet) {
        if inner.is_empty() {
            self.gate.heard(peer, Instant::now());
            return;
        }
        let port = packet::port(&inner, peer.address, self.address);
        if !self.gate.hears(peer, port, Instant::now()) {
            return;
        }
        if let Err(error) = self.tun.send(&inner).await
            && packet::is_of_device(&error)
        {
            self.fault.report("writing to the TUN device", error);
        }
    }

    /// A session that this end asked for is there: what waited for it goes out.
    async fn established(&self, peer: &Peer, first: WgKind, to: SocketAddr) {
        let waiting: Vec<_> = peer.session().noise.get_queued_packets(&mut self.mtu()).collect();
        for packet in std::iter::once(first).chain(waiting) {
            self.send(peer, packet, to).await;
        }
    }
}

/// Lets the session take the packet. An authentic one shows where the peer is now.
fn accept(peer: &Peer, packet: WgKind, from: SocketAddr) -> TunnResult {
    let mut session = peer.session();
    let result = session.noise.handle_incoming_packet(packet);
    if matches!(result, TunnResult::WriteToTunnel(_) | TunnResult::WriteToNetwork(_)) {
        session.endpoint = from;
    }
    result
}

/// The session number that the packet is for.
fn number(packet: &WgKind) -> Option<u32> {
    match packet {
        WgKind::HandshakeInit(_) => None,
        WgKind::HandshakeResp(response) => Some(response.receiver_idx.get()),
        WgKind::CookieReply(reply) => Some(reply.receiver_idx.get()),
        WgKind::Data(data) => Some(data.header.receiver_idx.get()),
    }
}
