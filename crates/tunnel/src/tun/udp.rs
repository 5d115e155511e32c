//! The outer side of a userspace device: datagrams from and to its peers.

use std::{io, net::SocketAddr};

use gotatun::{
    packet::{Packet, PacketBufPool},
    udp::{
        UdpRecv, UdpSend, UdpTransportFactory, UdpTransportFactoryParams,
        socket::{UdpSocket, UdpSocketFactory},
    },
};

use super::Fault;
use crate::{Gate, gate::Verdict};

/// Makes the device's UDP socket, behind a gate if there is one.
pub(crate) struct UdpEnd {
    sockets: UdpSocketFactory,
    gate: Option<Gate>,
    fault: Fault,
}

/// A socket whose datagrams are judged before the device sees them.
pub(crate) struct Receiver {
    socket: UdpSocket,
    gate: Option<Gate>,
    fault: Fault,
}

// === impl UdpEnd ===

impl UdpEnd {
    pub(super) fn new(gate: Option<Gate>, fault: Fault) -> Self {
        Self { sockets: UdpSocketFactory::default(), gate, fault }
    }
}

impl UdpTransportFactory for UdpEnd {
    type Send = UdpSocket;
    type Recv = Receiver;

    async fn bind(&mut self, params: &UdpTransportFactoryParams) -> io::Result<(UdpSocket, Receiver)> {
        let (send, socket) = self.sockets.bind(params).await?;
        Ok((send, Receiver { socket, gate: self.gate.clone(), fault: self.fault.clone() }))
    }
}

// === impl Receiver ===

impl Receiver {
    async fn judge(&self, datagram: Packet, from: SocketAddr) -> Option<Packet> {
        let Some(gate) = &self.gate else {
            return Some(datagram);
        };
        match gate.judge(datagram, from).await {
            Verdict::Pass(datagram) => Some(datagram),
            Verdict::Reply(cookie) => {
                // A lost cookie is asked for again.
                let _ = self.socket.send_to(cookie, from).await;
                None
            }
            Verdict::Drop => None,
        }
    }

    fn ended(&self, error: io::Error) -> io::Error {
        self.fault.report("receiving datagrams", &error);
        error
    }
}

impl UdpRecv for Receiver {
    type RecvManyBuf = <UdpSocket as UdpRecv>::RecvManyBuf;

    async fn recv_from(&mut self, pool: &mut PacketBufPool) -> io::Result<(Packet, SocketAddr)> {
        loop {
            let received = self.socket.recv_from(pool).await;
            let (datagram, from) = received.map_err(|error| self.ended(error))?;
            if let Some(datagram) = self.judge(datagram, from).await {
                return Ok((datagram, from));
            }
        }
    }

    async fn recv_many_from(
        &mut self,
        buffer: &mut Self::RecvManyBuf,
        pool: &mut PacketBufPool,
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        let received = self.socket.recv_many_from(buffer, pool, packets).await;
        received.map_err(|error| self.ended(error))?;
        if self.gate.is_some() {
            for (datagram, from) in std::mem::take(packets) {
                packets.extend(self.judge(datagram, from).await.map(|datagram| (datagram, from)));
            }
        }
        Ok(())
    }

    fn enable_udp_gro(&self) -> io::Result<()> {
        self.socket.enable_udp_gro()
    }
}
