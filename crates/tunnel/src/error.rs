//! What can go wrong with a tunnel.

use std::io;

use crate::{Backend, netlink, privileged::Stopped};

/// A tunnel that cannot be opened, configured or used. The text tells the cause too, so that the reasons of several
/// back ends fit into one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness for a key")]
    Randomness,
    /// The interface's name.
    #[error("{0:?} cannot name an interface: 1 to 15 bytes without slash or space are needed")]
    Name(String),
    /// No back end works; each one's reason.
    #[error("no WireGuard back end works: {}", attempts(.0))]
    NoBackend(Vec<(Backend, Self)>),
    /// The kernel knows no WireGuard.
    #[error("the kernel has no WireGuard (module wireguard is neither built in nor loadable)")]
    NoKernelWireGuard,
    /// The TUN device could not be made.
    #[error("/dev/net/tun cannot be opened: {why}{}", tun_hint(.why))]
    TunNode {
        /// Why not.
        why: io::Error,
    },
    /// An interface, address or route.
    #[error("{what}{}", netlink_hint(.what))]
    Netlink {
        /// What the kernel refused.
        what: netlink::Error,
    },
    /// The UDP port.
    #[error("UDP port {port} cannot be bound: {why}")]
    Port {
        /// The port, 0 for any.
        port: u16,
        /// Why not.
        why: io::Error,
    },
    /// The userspace back end carries no packets any more.
    #[error("the userspace tunnel has ended")]
    Ended,
    /// The interface was removed or replaced by someone else.
    #[error("interface {0} has been removed by someone else")]
    Vanished(String),
    /// The userspace back end could not be started, or broke.
    #[error("the userspace tunnel does not work: {0}")]
    Device(String),
    /// The userspace back end's configuration socket.
    #[error("the configuration socket {path} cannot be made: {why}")]
    Uapi {
        /// Its path.
        path: String,
        /// Why not.
        why: io::Error,
    },
    /// Key, port or peers were refused.
    #[error("cannot {operation} of {interface}: {why}")]
    Configure {
        /// What was to be done.
        operation: &'static str,
        /// On which interface.
        interface: String,
        /// Why not.
        why: io::Error,
    },
    /// The tunnel admits its peers itself.
    #[error("a recorder's tunnel admits its peers itself; it takes no list of them and dials none")]
    Gated,
    /// The privileged thread.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

fn attempts(failed: &[(Backend, Error)]) -> String {
    let each: Vec<_> = failed.iter().map(|(backend, error)| format!("{backend}: {error}")).collect();
    if each.is_empty() { "none was asked for".to_owned() } else { each.join("; ") }
}

fn tun_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (the node does not offer the device; is the module tun loaded?)",
        io::ErrorKind::PermissionDenied => {
            " (the container runtime has to allow device 10:200, and the node's file has to be writable)"
        }
        _ => "",
    }
}

fn netlink_hint(error: &netlink::Error) -> &'static str {
    match error.as_io().kind() {
        io::ErrorKind::PermissionDenied => {
            " (is CAP_NET_ADMIN effective on this thread, and IPv6 on in this network namespace?)"
        }
        _ => "",
    }
}

impl From<netlink::Error> for Error {
    fn from(what: netlink::Error) -> Self {
        Self::Netlink { what }
    }
}

impl Error {
    pub(crate) fn device(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let said = inner.to_string();
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = inner.source();
        }
        Self::Device(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_without_back_end_names_every_attempt() {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let error = Error::NoBackend(vec![
            (Backend::Kernel, Error::NoKernelWireGuard),
            (Backend::Tun, Error::TunNode { why: missing }),
        ]);
        let text = error.to_string();
        assert!(text.contains("kernel: the kernel has no WireGuard"), "{text}");
        assert!(text.contains("tun: /dev/net/tun cannot be opened"), "{text}");
        assert!(text.contains("is the module tun loaded?"), "{text}");
    }
}
