//! Links, addresses and routes of the calling thread's network namespace, over rtnetlink (rtnetlink(7)).
//!
//! Calls block for as long as the kernel takes. Whatever changes something needs `CAP_NET_ADMIN` on the calling thread;
//! reading does not.

mod address;
mod link;
mod route;

use std::{fmt::Display, io};

use netlink_bindings::traits::NetlinkRequest;
use netlink_socket2::NetlinkSocket;
use rustix::net::AddressFamily;

pub use link::Link;

/// A connection to the kernel's routing subsystem.
pub struct Netlink {
    socket: NetlinkSocket,
}

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {operand}: {why}")]
pub struct Error {
    operation: &'static str,
    operand: String,
    why: io::Error,
}

impl Netlink {
    /// Opens a connection; the socket itself comes with the first request.
    #[must_use]
    pub fn new() -> Self {
        Self { socket: NetlinkSocket::new() }
    }

    /// Sends a request that is answered by success or failure only.
    fn change(&mut self, request: &impl NetlinkRequest) -> io::Result<()> {
        Ok(self.socket.request(request)?.recv_ack()?)
    }
}

impl Default for Netlink {
    fn default() -> Self {
        Self::new()
    }
}

impl Error {
    /// What the kernel said.
    #[must_use]
    pub fn as_io(&self) -> &io::Error {
        &self.why
    }

    /// An interface that has just been made and is no longer there.
    pub(crate) fn vanished(name: &str) -> Self {
        Self::new("find interface", &name, io::Error::from(io::ErrorKind::NotFound))
    }

    fn new(operation: &'static str, operand: &dyn Display, why: io::Error) -> Self {
        Self { operation, operand: operand.to_string(), why }
    }
}

/// `AF_INET6` as the headers of rtnetlink hold it.
fn inet6() -> u8 {
    family(AddressFamily::INET6)
}

/// `AF_INET` as the headers of rtnetlink hold it.
fn inet() -> u8 {
    family(AddressFamily::INET)
}

fn family(family: AddressFamily) -> u8 {
    // Both families in use here are below 256.
    u8::try_from(family.as_raw()).unwrap_or_default()
}
