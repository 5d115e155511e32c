//! The configuration of a WireGuard device: the kernel's by generic netlink, the userspace one's by its socket under
//! `/var/run/wireguard`; the same calls for both.
//!
//! The calls block, and the library behind them prints to standard output when a userspace device refuses: what is
//! sent is made here, and a device that refuses it is a fault. They must not be made while the userspace device's
//! socket is missing, for then the library looks for a program to start.

use std::{io, net::IpAddr, os::unix::net::UnixStream, path::PathBuf, time::Duration};

use wireguard_control::{
    AllowedIp, Backend as Kind, Device, DeviceUpdate, InterfaceName, Key, PeerConfigBuilder, PeerInfo,
};

use crate::{Backend, Error, Peer, PeerStatus, PrivateKey, PublicKey, key::address, peers::Change};

/// Folder of the sockets of userspace devices, fixed by the configuration protocol.
pub(crate) const SOCKETS: &str = "/var/run/wireguard";

/// A device by its name and kind.
#[derive(Clone, Copy)]
pub(crate) struct Handle {
    name: InterfaceName,
    kind: Backend,
}

impl Handle {
    pub(crate) fn new(name: &str, kind: Backend) -> Result<Self, Error> {
        let parsed = name.parse().map_err(|_| Error::Name(name.to_owned()))?;
        Ok(Self { name: parsed, kind })
    }

    /// Sets key and port of a kernel device; a userspace one has them from its start.
    pub(crate) fn set_identity(&self, key: &PrivateKey, port: Option<u16>) -> Result<(), Error> {
        let update = DeviceUpdate::new()
            .set_private_key(Key(*key.to_bytes()))
            .set_listen_port(port.unwrap_or_default());
        self.apply("set key and port", update)
    }

    /// Makes changes to the peers; `afresh` drops all that are there before.
    pub(crate) fn change_peers(&self, changes: &[Change], afresh: bool) -> Result<(), Error> {
        let update = if afresh { DeviceUpdate::new().replace_peers() } else { DeviceUpdate::new() };
        self.apply("set peers", changes.iter().fold(update, with_change))
    }

    /// Removes a peer and sets it again. In two requests: a userspace device takes none that names a key twice.
    pub(crate) fn renew_peer(&self, peer: Peer) -> Result<(), Error> {
        self.change_peers(&[Change::Remove(peer.key)], false)?;
        self.change_peers(&[Change::Set(peer)], false)
    }

    /// What the device knows of its peers.
    pub(crate) fn status(&self) -> Result<Vec<PeerStatus>, Error> {
        let device = self
            .must_exist()
            .and_then(|()| Device::get(&self.name, kind(self.kind)))
            .map_err(|why| self.refused("read the status", why))?;
        Ok(device.peers.iter().map(status).collect())
    }

    fn apply(&self, operation: &'static str, update: DeviceUpdate) -> Result<(), Error> {
        self.must_exist()
            .and_then(|()| update.apply(&self.name, kind(self.kind)))
            .map_err(|why| self.refused(operation, why))
    }

    fn must_exist(&self) -> io::Result<()> {
        match self.kind {
            Backend::Kernel => Ok(()),
            Backend::Tun => UnixStream::connect(socket_path(&self.name.to_string())).map(drop),
        }
    }

    fn refused(&self, operation: &'static str, why: io::Error) -> Error {
        Error::Configure { operation, interface: self.name.to_string(), why }
    }
}

/// Where the userspace device of that name is configured.
pub(crate) fn socket_path(interface: &str) -> PathBuf {
    PathBuf::from(SOCKETS).join(format!("{interface}.sock"))
}

fn kind(backend: Backend) -> Kind {
    match backend {
        Backend::Kernel => Kind::Kernel,
        Backend::Tun => Kind::Userspace,
    }
}

fn with_change(update: DeviceUpdate, change: &Change) -> DeviceUpdate {
    match change {
        Change::Remove(key) => update.remove_peer_by_key(&Key(*key.as_bytes())),
        Change::Set(peer) => update.add_peer(configuration(peer)),
    }
}

fn configuration(peer: &Peer) -> PeerConfigBuilder {
    let allowed = AllowedIp { address: IpAddr::V6(address(&peer.key)), cidr: 128 };
    PeerConfigBuilder::new(&Key(*peer.key.as_bytes()))
        .set_endpoint(peer.endpoint)
        .set_persistent_keepalive_interval(peer.keepalive.map_or(0, seconds))
        .replace_allowed_ips()
        .add_allowed_ips(&[allowed])
}

/// Whole seconds, at least one: zero would mean never.
fn seconds(interval: Duration) -> u16 {
    u16::try_from(interval.as_secs()).unwrap_or(u16::MAX).max(1)
}

fn status(info: &PeerInfo) -> PeerStatus {
    PeerStatus {
        key: PublicKey::from_bytes(info.config.public_key.0),
        endpoint: info.config.endpoint,
        last_handshake: info.stats.last_handshake_time,
        rx: info.stats.rx_bytes,
        tx: info.stats.tx_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        for name in ["", "sixteen-bytes-xx", "a b", "a/b"] {
            assert!(matches!(Handle::new(name, Backend::Tun), Err(Error::Name(_))), "{name:?}");
        }
    }

    #[test]
    fn a_userspace_device_that_is_not_there_is_an_error() {
        let handle = Handle::new("pw-no-such", Backend::Tun).unwrap();
        assert!(matches!(handle.status(), Err(Error::Configure { .. })));
        assert!(matches!(handle.change_peers(&[], true), Err(Error::Configure { .. })));
    }

    #[test]
    fn a_keepalive_below_a_second_is_not_never() {
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_secs(100_000)), u16::MAX);
    }
}
