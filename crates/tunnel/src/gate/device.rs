//! The device whose peers a gate keeps.

use std::sync::{Arc, OnceLock, Weak};

use gotatun::device::{Device, Peer};

use crate::{PublicKey, key::address, tun::Transports};

/// The peers of a userspace device. Empty until the device is there; it cannot be before its transports are, and those
/// hold the gate.
#[derive(Default)]
pub(crate) struct Members(OnceLock<Weak<Device<Transports>>>);

impl Members {
    /// Names the device; only the first call counts.
    pub(crate) fn are_of(&self, device: &Arc<Device<Transports>>) {
        // A gate belongs to one device for life.
        let _ = self.0.set(Arc::downgrade(device));
    }

    /// Removes and adds peers in one step. Nothing happens where the device has ended.
    pub(super) async fn change(&self, gone: &[PublicKey], new: Option<PublicKey>) {
        let Some(device) = self.0.get().and_then(Weak::upgrade) else {
            return;
        };
        let changed = device.write(async |device| {
            for key in gone {
                device.remove_peer(&key.to_x25519()).await;
            }
            if let Some(key) = new {
                device.add_peer(peer(key));
            }
        });
        if let Err(error) = changed.await {
            tracing::warn!(%error, "the tunnel's device refuses a change of its peers");
        }
    }
}

fn peer(key: PublicKey) -> Peer {
    Peer::new(key.to_x25519()).with_allowed_ip(std::net::IpAddr::from(address(&key)).into())
}
