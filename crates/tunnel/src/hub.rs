//! A recorder's WireGuard in this process: for many peers that nobody knew before they called.
//!
//! The protocol is gotatun's, packet by packet; its device, made for a few known peers, walks over all of them whenever
//! one goes, which strangers could make happen all the time. Here every packet finds its peer through a [`Gate`] at a
//! cost that does not depend on how many there are.
//!
//! Four tasks, the end of any of which is a fault of the whole: `inbound` (UDP to TUN), `porter` (initiations, one queue behind `inbound`),
//! `outbound` (TUN to UDP), `upkeep` (timers of sessions, ends of peers).

mod fault;
mod inbound;
mod outbound;
mod packet;
mod porter;
mod upkeep;

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use gotatun::{
    noise::index_table::IndexTable,
    packet::WgKind,
    tun::{MtuWatcher, tun::AsyncDevice},
    udp::{
        UdpSend, UdpTransportFactory, UdpTransportFactoryParams,
        socket::{UdpSocket, UdpSocketFactory},
    },
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    Backend, Error, Gate, Options, PREFIX, PeerStatus, ProvisionalLimits,
    gate::Peer,
    interface::{Interface, LinkPlan},
    privileged::Privileged,
    tun,
};
use fault::Fault;
use porter::Porter;

/// Bits of [`PREFIX`].
const PREFIX_LENGTH: u8 = 48;

/// A running hub.
pub(crate) struct Hub {
    pub(crate) interface: Interface,
    pub(crate) gate: Gate,
    fault: Fault,
    tasks: JoinSet<()>,
}

/// What the tasks share.
struct Wires {
    gate: Gate,
    tun: AsyncDevice,
    udp: UdpSocket,
    address: Ipv6Addr,
    mtu: u16,
    fault: Fault,
}

/// Opens a hub on a new TUN device.
pub(crate) async fn open(
    options: &Options,
    limits: ProvisionalLimits,
    privileged: Arc<dyn Privileged>,
) -> Result<Hub, Error> {
    let plan = LinkPlan::new(options, Backend::Tun);
    let (link, tun) = tun::open(plan.clone(), privileged.as_ref()).await?;
    let tun = AsyncDevice::new(tun).map_err(|why| Error::TunNode { why })?;
    let udp = bind(options.listen_port.unwrap_or_default()).await?;
    let interface = Interface::new(plan, link, options.mark, privileged)?;
    interface.route_prefix(prefix(), PREFIX_LENGTH).await?;
    let numbers = IndexTable::from_os_rng();
    let gate = Gate::new(limits, numbers.clone());
    let fault = Fault::default();
    let wires = Arc::new(Wires {
        gate: gate.clone(),
        tun,
        udp,
        address: interface.address(),
        mtu: link.mtu,
        fault: fault.clone(),
    });
    let tasks = start(&wires, Porter::new(&options.private_key, numbers));
    Ok(Hub { interface, gate, fault, tasks })
}

fn start(wires: &Arc<Wires>, porter: Porter) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (asking, asked) = mpsc::channel(porter::WAITING);
    tasks.spawn(wires.fault.guard("inbound", inbound::run(Arc::clone(wires), asking)));
    tasks.spawn(wires.fault.guard("porter", porter.run(Arc::clone(wires), asked)));
    tasks.spawn(wires.fault.guard("outbound", outbound::run(Arc::clone(wires))));
    tasks.spawn(wires.fault.guard("upkeep", upkeep::run(Arc::clone(wires))));
    tasks
}

async fn bind(port: u16) -> Result<UdpSocket, Error> {
    let parameters = UdpTransportFactoryParams { addr: None, port, fwmark: None };
    match UdpSocketFactory::default().bind(&parameters).await {
        Ok((socket, _)) => Ok(socket),
        Err(why) => Err(Error::Port { port, why }),
    }
}

fn prefix() -> Ipv6Addr {
    let mut octets = [0; 16];
    for (octet, value) in octets.iter_mut().zip(PREFIX) {
        *octet = value;
    }
    octets.into()
}

// === impl Hub ===

impl Hub {
    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        let now = SystemTime::now();
        self.gate.all().iter().map(|peer| status(peer, now)).collect()
    }

    /// Waits until no packets can be carried any more.
    pub(crate) async fn failed(&self) -> Error {
        Error::Device(self.fault.happened().await)
    }

    pub(crate) async fn close(mut self) -> Result<(), Error> {
        self.tasks.shutdown().await;
        self.interface.remove().await
    }
}

fn status(peer: &Peer, now: SystemTime) -> PeerStatus {
    let session = peer.session();
    let (ago, tx, rx, ..) = session.noise.stats();
    PeerStatus {
        key: peer.key,
        endpoint: Some(session.endpoint),
        last_handshake: ago.and_then(|ago| now.checked_sub(ago)),
        rx: rx as u64,
        tx: tx as u64,
    }
}

// === impl Wires ===

impl Wires {
    /// Sends to a peer, noting the session number under which it may answer.
    async fn send(&self, peer: &Peer, packet: WgKind, to: SocketAddr) {
        match &packet {
            WgKind::HandshakeInit(initiation) => self.gate.number(peer, initiation.sender_idx.get()),
            WgKind::HandshakeResp(response) => self.gate.number(peer, response.sender_idx.get()),
            WgKind::CookieReply(_) | WgKind::Data(_) => {}
        }
        // A datagram may be lost anywhere; WireGuard and TCP send again.
        if let Err(error) = self.udp.send_to(packet.into(), to).await {
            tracing::trace!(%error, %to, "a datagram is not sent");
        }
    }

    fn mtu(&self) -> MtuWatcher {
        MtuWatcher::new(self.mtu)
    }
}
