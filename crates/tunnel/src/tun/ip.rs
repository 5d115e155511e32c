//! The inner side of a userspace device: IP packets from and to the host.

use std::io;

use gotatun::{
    packet::{Ip, Packet, PacketBufPool},
    tun::{IpRecv, IpSend, MtuWatcher, tun as tun_crate, tun_async_device::TunDevice},
};
use rustix::io::Errno;

use super::Fault;
use crate::{Error, Gate};

/// A TUN device behind a gate, if there is one.
#[derive(Clone)]
pub(crate) struct IpEnd {
    tun: TunDevice,
    gate: Option<Gate>,
    fault: Fault,
}

impl IpEnd {
    pub(super) fn new(tun: tun_crate::Device, gate: Option<Gate>, fault: Fault) -> Result<Self, Error> {
        let tun = tun_crate::AsyncDevice::new(tun).map_err(|why| Error::TunNode { why })?;
        let tun = TunDevice::from_tun_device(tun).map_err(|error| Error::device(&error))?;
        Ok(Self { tun, gate, fault })
    }
}

impl IpSend for IpEnd {
    async fn send(&mut self, packet: Packet<Ip>) -> io::Result<()> {
        if self.gate.as_ref().is_some_and(|gate| !gate.passes(&packet)) {
            return Ok(());
        }
        match self.tun.send(packet).await {
            Err(error) if is_of_device(&error) => Err(ended(&self.fault, "writing to the TUN device", error)),
            // The host refused this one packet, which its sender will repeat.
            _ => Ok(()),
        }
    }
}

impl IpRecv for IpEnd {
    async fn recv<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        let Self { tun, fault, .. } = self;
        tun.recv(pool).await.map_err(|error| {
            if is_of_device(&error) { ended(fault, "reading from the TUN device", error) } else { error }
        })
    }

    fn mtu(&self) -> MtuWatcher {
        self.tun.mtu()
    }
}

/// Whether the device is gone or down, rather than one packet at fault.
fn is_of_device(error: &io::Error) -> bool {
    [Errno::BADF, Errno::BADFD, Errno::NODEV, Errno::IO, Errno::NXIO]
        .iter()
        .any(|number| error.raw_os_error() == Some(number.raw_os_error()))
}

/// Tells of the fault, and makes of it an error on which the device's tasks end instead of trying for ever.
fn ended(fault: &Fault, operation: &str, error: io::Error) -> io::Error {
    fault.report(operation, &error);
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}
