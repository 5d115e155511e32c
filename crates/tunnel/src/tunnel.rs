//! One tunnel, whichever back end carries it.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    sync::Arc,
};

use tokio::net::{TcpListener, TcpStream};

use crate::{
    Backend, Error, Gate, Options, Peer, PeerStatus, ProvisionalLimits,
    hub::{self, Hub},
    interface::Interface,
    kernel,
    privileged::Privileged,
    userspace::{self, Userspace},
};

/// A WireGuard tunnel: an interface with an address of its own, and peers.
pub enum Tunnel {
    /// Carried by the kernel.
    Kernel(KernelTunnel),
    /// Carried by this process on a TUN device.
    Tun(TunTunnel),
}

/// A tunnel carried by the kernel.
pub struct KernelTunnel(Interface);

/// A tunnel carried by this process on a TUN device.
pub struct TunTunnel(Carrier);

enum Carrier {
    /// For the few peers of a list.
    Few(Userspace),
    /// For whoever the gate lets in.
    Many(Hub),
}

/// A recorder's tunnel and the gate that decides who is a peer of it.
pub struct RecorderTunnel {
    /// The tunnel; it listens but does not dial, and takes no list of peers.
    pub tunnel: Tunnel,
    /// Who may speak.
    pub gate: Gate,
}

// === impl Tunnel ===

impl Tunnel {
    /// Opens a tunnel on the first back end that works, in the order of [`Options::backends`].
    ///
    /// # Errors
    /// Where none works; the error names what was wrong with each.
    pub async fn open(options: &Options, privileged: Arc<dyn Privileged>) -> Result<Self, Error> {
        let mut failed = Vec::new();
        for backend in &options.backends {
            match Self::open_on(*backend, options, Arc::clone(&privileged)).await {
                Ok(tunnel) => {
                    opened(&tunnel, options);
                    return Ok(tunnel);
                }
                Err(error) => {
                    tracing::debug!(%backend, %error, "this back end does not work here");
                    failed.push((*backend, error));
                }
            }
        }
        Err(Error::NoBackend(failed))
    }

    /// Opens a recorder's tunnel: in userspace, for anyone, behind a gate.
    ///
    /// # Errors
    /// Where the TUN device or the port cannot be had.
    pub async fn open_recorder(
        options: &Options,
        limits: ProvisionalLimits,
        privileged: Arc<dyn Privileged>,
    ) -> Result<RecorderTunnel, Error> {
        let hub = hub::open(options, limits, privileged).await?;
        let gate = hub.gate.clone();
        let tunnel = Self::Tun(TunTunnel(Carrier::Many(hub)));
        opened(&tunnel, options);
        Ok(RecorderTunnel { tunnel, gate })
    }

    /// What carries it.
    #[must_use]
    pub fn backend(&self) -> Backend {
        match self {
            Self::Kernel(_) => Backend::Kernel,
            Self::Tun(_) => Backend::Tun,
        }
    }

    /// The address of this end, which follows from its key.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        self.interface().address()
    }

    /// Makes the peers, and the routes to their addresses, exactly these. Peers that stay as they are keep their
    /// sessions and the endpoint from which they were last heard.
    ///
    /// # Errors
    /// Where the device refuses; the next call then sets everything anew. [`Error::Gated`] for a recorder's tunnel.
    pub async fn set_peers(&self, peers: Vec<Peer>) -> Result<(), Error> {
        match self.gate() {
            Some(_) => Err(Error::Gated),
            None => self.interface().set_peers(peers).await,
        }
    }

    /// Connects through the tunnel, from its address, with its mark. A peer from which nothing has come for 2.5 s gets a
    /// new session, and another attempt in it: it may be another process under the same key.
    ///
    /// # Errors
    /// Where the connection fails. It waits as long as TCP does; the caller limits that, to more than those 2.5 s.
    pub async fn dial(&self, to: SocketAddrV6) -> io::Result<TcpStream> {
        match self.gate() {
            Some(_) => Err(io::Error::new(io::ErrorKind::Unsupported, Error::Gated)),
            None => self.interface().dial(to).await,
        }
    }

    /// Listens on the tunnel's address; with port 0 on any port.
    ///
    /// # Errors
    /// Where the port is taken or may not be used.
    pub async fn listen(&self, port: u16) -> io::Result<TcpListener> {
        let listener = self.interface().listen(port).await?;
        if let Some(gate) = self.gate() {
            gate.open_port(listener.local_addr()?.port());
        }
        Ok(listener)
    }

    /// What is known of the peers.
    ///
    /// # Errors
    /// Where the device does not answer.
    pub async fn status(&self) -> Result<Vec<PeerStatus>, Error> {
        match self {
            Self::Kernel(KernelTunnel(interface)) => interface.status().await,
            Self::Tun(TunTunnel(Carrier::Few(userspace))) => userspace.interface.status().await,
            Self::Tun(TunTunnel(Carrier::Many(hub))) => Ok(hub.status()),
        }
    }

    /// Waits until the tunnel has broken and has to be opened anew.
    pub async fn failed(&self) -> Error {
        tokio::select! {
            error = self.carrier_failed() => error,
            error = self.interface().vanished() => error,
        }
    }

    /// Removes the interface, and with it routes and sessions.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn close(self) -> Result<(), Error> {
        match self {
            Self::Kernel(KernelTunnel(interface)) => interface.remove().await,
            Self::Tun(TunTunnel(Carrier::Few(userspace))) => userspace.close().await,
            Self::Tun(TunTunnel(Carrier::Many(hub))) => hub.close().await,
        }
    }

    async fn open_on(
        backend: Backend,
        options: &Options,
        privileged: Arc<dyn Privileged>,
    ) -> Result<Self, Error> {
        match backend {
            Backend::Kernel => kernel::open(options, privileged).await.map(KernelTunnel).map(Self::Kernel),
            Backend::Tun => {
                let userspace = userspace::open(options, privileged).await?;
                Ok(Self::Tun(TunTunnel(Carrier::Few(userspace))))
            }
        }
    }

    async fn carrier_failed(&self) -> Error {
        match self {
            // The kernel carries packets for as long as there is the interface.
            Self::Kernel(_) => std::future::pending().await,
            Self::Tun(TunTunnel(Carrier::Few(userspace))) => userspace.failed().await,
            Self::Tun(TunTunnel(Carrier::Many(hub))) => hub.failed().await,
        }
    }

    fn interface(&self) -> &Interface {
        match self {
            Self::Kernel(KernelTunnel(interface)) => interface,
            Self::Tun(TunTunnel(Carrier::Few(userspace))) => &userspace.interface,
            Self::Tun(TunTunnel(Carrier::Many(hub))) => &hub.interface,
        }
    }

    fn gate(&self) -> Option<&Gate> {
        match self {
            Self::Tun(TunTunnel(Carrier::Many(hub))) => Some(&hub.gate),
            Self::Kernel(_) | Self::Tun(TunTunnel(Carrier::Few(_))) => None,
        }
    }
}

fn opened(tunnel: &Tunnel, options: &Options) {
    tracing::info!(
        backend = %tunnel.backend(),
        interface = options.interface,
        address = %tunnel.address(),
        "the tunnel is open"
    );
}
