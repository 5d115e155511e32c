//! The tunnel of this pod: opened in the background, kept open, its peers those of the netmap.
//!
//! Recorders that a netmap says to be outside it are dialled past it, and nobody else is.
//!
//! Invariant: nothing waits for it but a dial through it, whose caller bounds the time.

mod leaving;

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use podwitness_core::{control::Netmap, inject};
use podwitness_proxy::{BoxedStream, Dial};
use podwitness_tunnel::{Error, Options, Peer, PrivateKey, Tunnel, address};
use tokio::{sync::watch, time::sleep};

use crate::{kernel::Kernel, metrics::Metrics, netmap};
use leaving::Leaving;

/// Pauses after the tunnel could not be opened.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pause after its peers could not be set.
const PEERS_PAUSE: Duration = Duration::from_secs(5);

/// A tunnel with the addresses that it leads to.
#[derive(Clone)]
struct Open {
    tunnel: Arc<Tunnel>,
    peers: Arc<BTreeSet<Ipv6Addr>>,
}

type Published = watch::Sender<Option<Open>>;

/// Keeps the tunnel open.
pub struct Keeper {
    options: Options,
    kernel: Arc<Kernel>,
    netmap: watch::Receiver<Option<Arc<Netmap>>>,
    tunnel: Published,
    metrics: Metrics,
}

/// Dials recorders through the tunnel, as soon as it leads to them.
#[derive(Clone)]
pub struct Recorders {
    tunnels: watch::Receiver<Option<Open>>,
    netmap: watch::Receiver<Option<Arc<Netmap>>>,
    kernel: Kernel,
}

impl Keeper {
    /// A keeper, and the way through the tunnel that it will keep.
    #[must_use]
    pub fn new(
        key: PrivateKey,
        kernel: &Kernel,
        netmap: watch::Receiver<Option<Arc<Netmap>>>,
        metrics: Metrics,
    ) -> (Self, Recorders) {
        let options = Options { mark: kernel.mark(), ..Options::new(inject::INTERFACE, key) };
        let tunnel = Published::new(None);
        let recorders =
            Recorders { tunnels: tunnel.subscribe(), netmap: netmap.clone(), kernel: kernel.clone() };
        (Self { options, kernel: Arc::new(kernel.clone()), netmap, tunnel, metrics }, recorders)
    }

    /// Opens the tunnel, again if it breaks, and follows the netmap; for as long as it runs.
    pub async fn run(mut self) {
        let (mut pause, mut told) = (FIRST_PAUSE, String::new());
        loop {
            match Tunnel::open(&self.options, Arc::<Kernel>::clone(&self.kernel)).await {
                Ok(tunnel) => {
                    (pause, told) = (FIRST_PAUSE, String::new());
                    self.keep(Arc::new(tunnel)).await;
                }
                Err(error) => tell(error.to_string(), &mut told),
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    async fn keep(&mut self, tunnel: Arc<Tunnel>) {
        self.metrics.tunnel.set(1);
        self.netmap.mark_changed();
        let broken = tokio::select! {
            error = tunnel.failed() => error,
            () = follow(&tunnel, &mut self.netmap, &self.tunnel) => return,
        };
        tracing::warn!(error = %broken, "the tunnel broke; it is opened anew");
        self.metrics.tunnel.set(0);
        self.tunnel.send_replace(None);
    }
}

/// Tells why there is no tunnel when that is new, not each time.
fn tell(error: String, told: &mut String) {
    if error != *told {
        tracing::warn!(error, "no tunnel yet; recordings wait in the spool where their grant allows it");
        *told = error;
    }
}

/// Sets the peers at each change; ends only when no netmap will come any more.
async fn follow(
    tunnel: &Arc<Tunnel>,
    netmaps: &mut watch::Receiver<Option<Arc<Netmap>>>,
    published: &Published,
) {
    let mut leaving = Leaving::default();
    loop {
        tokio::select! {
            changed = netmaps.changed() => if changed.is_err() { return },
            () = leaving.over() => {}
        }
        let Some(netmap) = netmaps.borrow_and_update().clone() else { continue };
        let peers = netmap::peers(&netmap);
        let addresses = peers.iter().map(|peer| address(&peer.key)).collect();
        match set(tunnel, leaving.join(peers)).await {
            Ok(()) => {
                let open = Open { tunnel: Arc::clone(tunnel), peers: Arc::new(addresses) };
                published.send_replace(Some(open));
            }
            Err(error) => {
                tracing::warn!(%error, "the tunnel does not take its peers; trying again");
                sleep(PEERS_PAUSE).await;
                netmaps.mark_changed();
            }
        }
    }
}

async fn set(tunnel: &Tunnel, steps: Vec<Vec<Peer>>) -> Result<(), Error> {
    for peers in steps {
        tunnel.set_peers(peers).await?;
    }
    Ok(())
}

impl Open {
    fn leads_to(&self, to: SocketAddrV6) -> bool {
        self.peers.contains(to.ip())
    }
}

impl Dial for Recorders {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<BoxedStream>> {
        if self.netmap.borrow().as_ref().is_some_and(|netmap| netmap::in_plaintext(netmap, to)) {
            let connecting = self.kernel.dial(to);
            return Box::pin(async move { Ok(Box::new(connecting.await?) as BoxedStream) });
        }
        let mut tunnels = self.tunnels.clone();
        Box::pin(async move {
            let SocketAddr::V6(to) = to else {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a tunnel address is of IPv6"));
            };
            let leads_there = |open: &Option<Open>| open.as_ref().is_some_and(|open| open.leads_to(to));
            let open = tunnels.wait_for(leads_there).await.map_err(io::Error::other)?.clone();
            let stream = open.ok_or(io::ErrorKind::NotConnected)?.tunnel.dial(to).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}
