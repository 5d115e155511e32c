//! WireGuard in this process (gotatun), on a TUN device.
//!
//! Opening and configuring the TUN device needs `CAP_NET_ADMIN` and is one privileged job, which hands the open device
//! over; the tasks that carry packets run on the runtime without privilege. Key and port are given when the device is
//! built and never changed: a new key is a new device. Peers of a sidecar's device are set over its configuration
//! socket, those of a recorder's by its gate.

mod fault;
mod ip;
mod uapi;
mod udp;

use std::{io, sync::Arc, time::SystemTime};

use gotatun::{
    device::{self, Device, configure::PeerStats, uapi::UapiServer},
    tun::tun as tun_crate,
};
use tokio::task::JoinHandle;

use crate::{
    Backend, Error, Gate, Options, PeerStatus, PublicKey, gate,
    interface::{Interface, LinkPlan},
    netlink::Netlink,
    privileged::{self, Privileged},
};
use fault::Fault;
use ip::IpEnd;
use uapi::ConfigurationSocket;
use udp::UdpEnd;

/// What carries a device's packets on either side.
pub(crate) type Transports = (UdpEnd, IpEnd, IpEnd);

/// A running userspace device.
pub(crate) struct Userspace {
    pub(crate) interface: Interface,
    device: Arc<Device<Transports>>,
    peers: Peering,
    fault: Fault,
}

/// How the device comes to its peers.
enum Peering {
    /// By its configuration socket.
    Told { _socket: ConfigurationSocket },
    /// By its gate, which a task looks after.
    Gated(Gate, JoinHandle<()>),
}

/// Opens a tunnel on a new TUN device. With a gate, the gate decides who is a peer.
pub(crate) async fn open(
    options: &Options,
    gate: Option<Gate>,
    privileged: Arc<dyn Privileged>,
) -> Result<Userspace, Error> {
    let plan = LinkPlan::new(options, Backend::Tun);
    let (index, tun) = {
        let plan = plan.clone();
        privileged::run(privileged.as_ref(), move || make(&plan)).await??
    };
    let name = plan.name.clone();
    let interface = Interface::new(plan, index, options.mark, privileged)?;
    let fault = Fault::default();
    let ip = IpEnd::new(tun, gate.clone(), fault.clone())?;
    let udp = UdpEnd::new(gate.clone(), fault.clone());
    let (device, peers) = match gate {
        None => told(options, &name, udp, ip).await?,
        Some(gate) => gated(options, gate, udp, ip).await?,
    };
    Ok(Userspace { interface, device, peers, fault })
}

/// The privileged part: the open TUN device, configured and up. It goes when it is closed.
fn make(plan: &LinkPlan) -> Result<(u32, tun_crate::Device), Error> {
    let mut netlink = Netlink::new();
    netlink.delete_link(&plan.name)?;
    let mut configuration = tun_crate::Configuration::default();
    // Address and MTU come by netlink, as for the kernel's device.
    configuration.tun_name(&plan.name).platform_config(|platform| {
        platform.ensure_root_privileges(false);
    });
    let tun = tun_crate::create(&configuration).map_err(|error| Error::TunNode { why: as_io(error) })?;
    Ok((plan.configure(&mut netlink)?, tun))
}

async fn told(
    options: &Options,
    name: &str,
    udp: UdpEnd,
    ip: IpEnd,
) -> Result<(Arc<Device<Transports>>, Peering), Error> {
    let (socket, server) = ConfigurationSocket::bind(name)?;
    let device = start(options, Some(server), udp, ip).await?;
    Ok((Arc::new(device), Peering::Told { _socket: socket }))
}

async fn gated(
    options: &Options,
    gate: Gate,
    udp: UdpEnd,
    ip: IpEnd,
) -> Result<(Arc<Device<Transports>>, Peering), Error> {
    let device = Arc::new(start(options, None, udp, ip).await?);
    gate.members().are_of(&device);
    let upkeep = gate::keep(&gate);
    Ok((device, Peering::Gated(gate, upkeep)))
}

async fn start(
    options: &Options,
    server: Option<UapiServer>,
    udp: UdpEnd,
    ip: IpEnd,
) -> Result<Device<Transports>, Error> {
    let port = options.listen_port.unwrap_or_default();
    let builder = device::build()
        .with_udp(udp)
        .with_ip(ip)
        .with_private_key(options.private_key.secret().clone())
        .with_listen_port(other_than(port));
    let builder = match server {
        Some(server) => builder.with_uapi(server),
        None => builder,
    };
    let device = builder.build().await.map_err(|error| Error::device(&error))?;
    // A device without peers stays closed until its port changes, so that is how it is opened.
    device.set_listen_port(port).await.map_err(|error| Error::device(&error))?;
    Ok(device)
}

/// Any other port; it is never bound.
fn other_than(port: u16) -> u16 {
    if port == 1 { 2 } else { 1 }
}

fn as_io(error: tun_crate::Error) -> io::Error {
    match error {
        tun_crate::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

// === impl Userspace ===

impl Userspace {
    pub(crate) fn gate(&self) -> Option<&Gate> {
        match &self.peers {
            Peering::Told { .. } => None,
            Peering::Gated(gate, _) => Some(gate),
        }
    }

    pub(crate) async fn status(&self) -> Result<Vec<PeerStatus>, Error> {
        match &self.peers {
            Peering::Told { .. } => self.interface.status().await,
            Peering::Gated(..) => Ok(status(&self.device).await),
        }
    }

    /// Waits until the device can carry no packets any more.
    pub(crate) async fn failed(&self) -> Error {
        Error::Device(self.fault.happened().await)
    }

    pub(crate) async fn close(self) -> Result<(), Error> {
        if let Peering::Gated(_, upkeep) = &self.peers {
            upkeep.abort();
        }
        drop(self.peers);
        // A gate that is just changing peers holds the device too; then it ends with that.
        if let Some(device) = Arc::into_inner(self.device) {
            device.stop().await;
        }
        self.interface.remove().await
    }
}

async fn status(device: &Device<Transports>) -> Vec<PeerStatus> {
    let now = SystemTime::now();
    let each = |peer: PeerStats| PeerStatus {
        key: PublicKey::from_bytes(peer.peer.public_key.to_bytes()),
        endpoint: peer.peer.endpoint,
        last_handshake: peer.stats.last_handshake.and_then(|ago| now.checked_sub(ago)),
        rx: peer.stats.rx_bytes as u64,
        tx: peer.stats.tx_bytes as u64,
    };
    device.peers().await.into_iter().map(each).collect()
}
