//! A sidecar's WireGuard in this process (gotatun's device) on a TUN device.
//!
//! The tasks that carry packets run on the runtime without privilege. Key and port are given when the device is built
//! and never changed: a new key is a new device. Peers are set over its configuration socket.

mod uapi;

use std::sync::Arc;

use gotatun::{
    device::{self, DefaultDeviceTransports, Device, uapi::UapiServer},
    tun::{tun as tun_crate, tun_async_device::TunDevice},
};
use tokio::sync::Mutex;

use crate::{
    Backend, Error, Options,
    interface::{Interface, LinkPlan},
    privileged::Privileged,
    tun,
};
use uapi::ConfigurationSocket;

/// A running device.
pub(crate) struct Userspace {
    pub(crate) interface: Interface,
    device: Mutex<Device<DefaultDeviceTransports>>,
    _socket: ConfigurationSocket,
}

/// Opens a tunnel on a new TUN device.
pub(crate) async fn open(options: &Options, privileged: Arc<dyn Privileged>) -> Result<Userspace, Error> {
    let plan = LinkPlan::new(options, Backend::Tun);
    let (link, tun) = tun::open(plan.clone(), privileged.as_ref()).await?;
    let (socket, server) = ConfigurationSocket::bind(&plan.name)?;
    let device = start(options, server, tun).await?;
    let interface = Interface::new(plan, link, options.mark, privileged)?;
    Ok(Userspace { interface, device: Mutex::new(device), _socket: socket })
}

async fn start(
    options: &Options,
    server: UapiServer,
    tun: tun_crate::Device,
) -> Result<Device<DefaultDeviceTransports>, Error> {
    let tun = tun_crate::AsyncDevice::new(tun).map_err(|why| Error::TunNode { why })?;
    let tun = TunDevice::from_tun_device(tun).map_err(|error| Error::device(&error))?;
    let port = options.listen_port.unwrap_or_default();
    let device = device::build()
        .with_default_udp()
        .with_ip(tun)
        .with_private_key(options.private_key.secret().clone())
        .with_listen_port(other_than(port))
        .with_uapi(server)
        .build()
        .await
        .map_err(|error| Error::device(&error))?;
    // A device without peers stays closed until its port changes, so that is how it is opened.
    device.set_listen_port(port).await.map_err(|error| Error::device(&error))?;
    Ok(device)
}

/// Any other port; it is never bound.
fn other_than(port: u16) -> u16 {
    if port == 1 { 2 } else { 1 }
}

// === impl Userspace ===

impl Userspace {
    /// Waits until the device can carry no packets any more.
    pub(crate) async fn failed(&self) -> Error {
        // Nobody else needs the lock while the tunnel is open.
        self.device.lock().await.wait().await;
        Error::Ended
    }

    pub(crate) async fn close(self) -> Result<(), Error> {
        self.device.into_inner().stop().await;
        self.interface.remove().await
    }
}
