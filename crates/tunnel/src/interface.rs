//! What both back ends share: the network interface, its routes, and sockets on its address.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv6Addr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task,
    time::{self, MissedTickBehavior, sleep},
};

use crate::{
    Backend, Error, Options, Peer, PeerStatus,
    key::address,
    mtu,
    netlink::{self, Netlink},
    peers::{self, Known, Peers},
    privileged::{self, Privileged},
    silence::{GRACE, Renewed, SILENCE},
    socket,
    wireguard::Handle,
};

/// How often an interface is looked for.
const LOOK: Duration = Duration::from_secs(5);

/// An interface that is up, with its address.
pub(crate) struct Interface {
    name: String,
    index: u32,
    address: Ipv6Addr,
    mark: u32,
    backend: Backend,
    device: Handle,
    privileged: Arc<dyn Privileged>,
    /// Whoever changes peers holds it until the device has answered, also where nobody waits for that any more.
    known: Arc<Mutex<Known>>,
    renewed: Mutex<Renewed>,
}

/// What a privileged job needs to know to configure the link.
#[derive(Clone)]
pub(crate) struct LinkPlan {
    pub(crate) name: String,
    pub(crate) backend: Backend,
    pub(crate) address: Ipv6Addr,
    pub(crate) mtu: Option<u16>,
}

/// A link that is configured and up.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) index: u32,
    pub(crate) mtu: u16,
}

// === impl LinkPlan ===

impl LinkPlan {
    pub(crate) fn new(options: &Options, backend: Backend) -> Self {
        Self {
            name: options.interface.clone(),
            backend,
            address: address(&options.private_key.public()),
            mtu: options.mtu,
        }
    }

    /// Gives the link address and MTU and brings it up. For a privileged job.
    pub(crate) fn configure(&self, netlink: &mut Netlink) -> Result<Ready, netlink::Error> {
        let link = netlink.link(&self.name)?.ok_or_else(|| netlink::Error::vanished(&self.name))?;
        let mtu = self.mtu(netlink)?;
        netlink.bring_up(link.index, mtu)?;
        netlink.add_address(link.index, self.address)?;
        Ok(Ready { index: link.index, mtu })
    }

    fn mtu(&self, netlink: &mut Netlink) -> Result<u16, netlink::Error> {
        let wanted = match self.mtu {
            Some(mtu) => mtu,
            None => mtu::over(netlink.default_route_mtu()?),
        };
        Ok(match self.backend {
            Backend::Kernel => wanted,
            Backend::Tun => mtu::on_tun(wanted),
        })
    }
}

// === impl Interface ===

impl Interface {
    pub(crate) fn new(
        plan: LinkPlan,
        link: Ready,
        mark: u32,
        privileged: Arc<dyn Privileged>,
    ) -> Result<Self, Error> {
        Ok(Self {
            index: link.index,
            address: plan.address,
            mark,
            backend: plan.backend,
            device: Handle::new(&plan.name, plan.backend)?,
            name: plan.name,
            privileged,
            known: Arc::default(),
            renewed: Mutex::default(),
        })
    }

    pub(crate) fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// Connects; once more with a peer from which nothing came, after its session has begun anew.
    pub(crate) async fn dial(&self, to: SocketAddrV6) -> io::Result<TcpStream> {
        let dial = || socket::dial(self.privileged.as_ref(), self.mark, self.address, to);
        tokio::select! {
            connected = dial() => connected,
            () = self.renewed_for_silence(*to.ip()) => dial().await,
        }
    }

    pub(crate) async fn listen(&self, port: u16) -> io::Result<TcpListener> {
        socket::listen(self.privileged.as_ref(), self.mark, self.address, port).await
    }

    /// Makes peers and routes exactly these. After a failure the next call begins from nothing.
    pub(crate) async fn set_peers(&self, wanted: Vec<Peer>) -> Result<(), Error> {
        let wanted = peers::by_key(wanted);
        let mut known = self.known.lock().await;
        let before = std::mem::take(&mut *known);
        if let Known::Exactly(present) = &before
            && *present == wanted
        {
            *known = before;
            return Ok(());
        }
        self.change_peers(before, &wanted).await?;
        self.set_routes(peers::addresses(&wanted)).await?;
        *known = Known::Exactly(wanted);
        Ok(())
    }

    pub(crate) async fn status(&self) -> Result<Vec<PeerStatus>, Error> {
        let device = self.device;
        self.on_device(move || device.status()).await
    }

    /// Routes a whole prefix to the interface.
    pub(crate) async fn route_prefix(&self, prefix: Ipv6Addr, length: u8) -> Result<(), Error> {
        let index = self.index;
        let routed = move || Netlink::new().add_route(index, prefix, length);
        Ok(privileged::run(self.privileged.as_ref(), routed).await??)
    }

    /// Waits until the interface is no longer the one that was opened. An open TUN device does not tell of that.
    pub(crate) async fn vanished(&self) -> Error {
        let mut tick = time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let name = self.name.clone();
            let found = task::spawn_blocking(move || Netlink::new().link(&name)).await;
            // Where the kernel cannot be asked now, it is asked again.
            if let Ok(Ok(link)) = found
                && link.map(|link| link.index) != Some(self.index)
            {
                return Error::Vanished(self.name.clone());
            }
        }
    }

    /// Removes the interface.
    pub(crate) async fn remove(&self) -> Result<(), Error> {
        let name = self.name.clone();
        let removed = move || Netlink::new().delete_link(&name);
        Ok(privileged::run(self.privileged.as_ref(), removed).await??)
    }

    /// Waits until nothing has come from the peer at `address` for a while, and its session has begun anew.
    async fn renewed_for_silence(&self, address: Ipv6Addr) {
        sleep(GRACE).await;
        let mut before = self.received(address).await;
        loop {
            sleep(SILENCE).await;
            let now = self.received(address).await;
            if now.is_some() && now == before && self.renew(address).await {
                return;
            }
            before = now;
        }
    }

    /// Bytes that came from the peer at `at` in its session, if that can be told.
    async fn received(&self, at: Ipv6Addr) -> Option<u64> {
        let peers = self.status().await.ok()?;
        peers.iter().find(|peer| address(&peer.key) == at).map(|peer| peer.rx)
    }

    /// Makes the session of the peer at `at` begin anew, and tells whether it does. Its route stays.
    async fn renew(&self, at: Ipv6Addr) -> bool {
        let mut known = Arc::clone(&self.known).lock_owned().await;
        let Known::Exactly(peers) = &*known else { return false };
        let Some(peer) = peers.values().find(|peer| address(&peer.key) == at).cloned() else { return false };
        if !self.renewed.lock().await.may(peer.key) {
            return false;
        }
        let device = self.device;
        let renewed =
            self.on_device(move || device.renew_peer(peer).inspect_err(|_| *known = Known::Unknown));
        match renewed.await {
            Ok(()) => tracing::debug!(peer = %at, "nothing comes from this peer; its session begins anew"),
            Err(error) => tracing::warn!(%error, peer = %at, "a session cannot begin anew"),
        }
        true
    }

    async fn change_peers(&self, before: Known, wanted: &Peers) -> Result<(), Error> {
        let (changes, afresh) = match &before {
            Known::Exactly(present) => (peers::changes(present, wanted), false),
            Known::Unknown => (peers::changes(&Peers::new(), wanted), true),
        };
        let device = self.device;
        self.on_device(move || device.change_peers(&changes, afresh)).await
    }

    async fn set_routes(&self, wanted: BTreeSet<Ipv6Addr>) -> Result<(), Error> {
        let index = self.index;
        let set = move || Netlink::new().set_host_routes(index, &wanted);
        Ok(privileged::run(self.privileged.as_ref(), set).await??)
    }

    /// The kernel's device is configured with privilege, the userspace one over a socket that may make us wait.
    async fn on_device<T, W>(&self, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce() -> Result<T, Error> + Send + 'static,
    {
        match self.backend {
            Backend::Kernel => privileged::run(self.privileged.as_ref(), work).await?,
            Backend::Tun => match task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(error) => Err(Error::device(&error)),
            },
        }
    }
}
