//! The tunnel of this pod: opened in the background, kept open, its peers those of the netmap.
//!
//! Invariant: nothing waits for it but a dial through it, whose caller bounds the time.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use podwitness_core::{control::Netmap, inject};
use podwitness_proxy::{BoxedStream, Dial};
use podwitness_tunnel::{Options, PrivateKey, Tunnel};
use tokio::{sync::watch, time::sleep};

use crate::{kernel::Kernel, metrics::Metrics, netmap};

/// Pauses after the tunnel could not be opened.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pause after its peers could not be set.
const PEERS_PAUSE: Duration = Duration::from_secs(5);

type Published = watch::Sender<Option<Arc<Tunnel>>>;

/// Keeps the tunnel open.
pub struct Keeper {
    options: Options,
    kernel: Arc<Kernel>,
    netmap: watch::Receiver<Option<Arc<Netmap>>>,
    tunnel: Published,
    metrics: Metrics,
}

/// Dials recorders through the tunnel, as soon as there is one.
#[derive(Clone)]
pub struct Recorders(watch::Receiver<Option<Arc<Tunnel>>>);

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
        let recorders = Recorders(tunnel.subscribe());
        (Self { options, kernel: Arc::new(kernel.clone()), netmap, tunnel, metrics }, recorders)
    }

    /// Opens the tunnel, again if it breaks, and follows the netmap; for as long as it runs.
    pub async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match Tunnel::open(&self.options, Arc::<Kernel>::clone(&self.kernel)).await {
                Ok(tunnel) => {
                    pause = FIRST_PAUSE;
                    self.keep(Arc::new(tunnel)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, ?pause, "no tunnel; recordings wait in the spool where their grant allows it");
                }
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    async fn keep(&mut self, tunnel: Arc<Tunnel>) {
        self.tunnel.send_replace(Some(Arc::clone(&tunnel)));
        self.metrics.tunnel.set(1);
        self.netmap.mark_changed();
        let broken = tokio::select! {
            error = tunnel.failed() => error,
            () = follow(&tunnel, &mut self.netmap) => return,
        };
        tracing::warn!(error = %broken, "the tunnel broke; it is opened anew");
        self.metrics.tunnel.set(0);
        self.tunnel.send_replace(None);
    }
}

/// Sets the peers at each change; ends only when no netmap will come any more.
async fn follow(tunnel: &Tunnel, netmaps: &mut watch::Receiver<Option<Arc<Netmap>>>) {
    while netmaps.changed().await.is_ok() {
        let Some(netmap) = netmaps.borrow_and_update().clone() else { continue };
        if let Err(error) = tunnel.set_peers(netmap::peers(&netmap)).await {
            tracing::warn!(%error, "the tunnel does not take its peers; trying again");
            sleep(PEERS_PAUSE).await;
            netmaps.mark_changed();
        }
    }
}

impl Dial for Recorders {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<BoxedStream>> {
        let mut tunnels = self.0.clone();
        Box::pin(async move {
            let SocketAddr::V6(to) = to else {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a tunnel address is of IPv6"));
            };
            let tunnel = tunnels.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
            let tunnel = tunnel.ok_or(io::ErrorKind::NotConnected)?;
            let stream = tunnel.dial(to).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}
