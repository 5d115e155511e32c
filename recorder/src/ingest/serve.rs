//! Connections: accepted within caps, served over h2c or HTTP/1.1, ended by the drain.
//!
//! A connection counts to its address among the strangers until its peer is admitted, and among the peers from then on.
//! On the plain listener everybody is. BusyGuard is one on which a request is answered, and an upload is one for as long as
//! it lasts.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use hyper::service::service_fn;
use podwitness_runtime::{
    accept::accept,
    connection::{ConnectionHandle, ConnectionLimiter},
    http::{Limits, serve_connection, tracked},
    quota::{Quota, QuotaExceeded, QuotaKey, QuotaLease, QuotaLimits},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use super::{Door, Ingest, RequestPeer, authorise::Standing, body::CHUNK};
use crate::{metrics::Metrics, peers::Work};

/// Connections of admitted peers, in all and of one. A sidecar has one for each 32 of its 2048 sessions.
const PEERS: QuotaLimits = QuotaLimits { total: 8192, per_key: 256 };
/// Connections at the plain listener, where an address may be a proxy for many users, each with a connection a session.
/// The least windows of one address are then an eighth of the memory of a shipped recorder.
const PLAIN: QuotaLimits = QuotaLimits { total: 8192, per_key: 1024 };
/// Connections of peers that have shown no assertion yet.
const UNAUTHENTICATED: QuotaLimits = QuotaLimits { total: 1024, per_key: 4 };
/// How long a stranger may keep a connection; the tunnel forgets it after the same time.
const STRANGER: Duration = Duration::from_secs(10);
/// How long a connection may be without a request. Sidecars end theirs after 30 s.
const IDLE: Duration = Duration::from_secs(60);
/// HTTP/2 window of a connection in bytes, while there is memory for all, and at least.
const WINDOW: usize = 4 << 20;
const LEAST_WINDOW: usize = 128 << 10;
/// The same of a stream.
const STREAM_WINDOW: usize = 1 << 20;
/// A connection gets this part of what its peer may still have.
const PART: usize = 8;

impl RequestPeer {
    /// What a session from there is.
    pub(super) const fn session(&self) -> Work {
        match self.door {
            Door::Tunnel(_) => Work::Session,
            Door::Plain => Work::SharedSession,
        }
    }
}

/// The places of connections.
#[derive(Debug)]
pub(super) struct ConnectionQuotas {
    unauthenticated: ConnectionLimiter,
    plain: ConnectionLimiter,
    peers: Quota,
    windows: Quota,
}

impl ConnectionQuotas {
    pub(super) fn new(windows: QuotaLimits, metrics: &Metrics) -> Self {
        Self {
            unauthenticated: ConnectionLimiter::with(UNAUTHENTICATED, metrics.listener("tunnel")),
            plain: ConnectionLimiter::with(PLAIN, metrics.listener("plain"))
                .telling(metrics.limited_connections()),
            peers: Quota::new(PEERS, metrics.listener("tunnel-peers")),
            windows: Quota::new(windows, metrics.windows()),
        }
    }

    fn of(&self, door: &Door) -> &ConnectionLimiter {
        match door {
            Door::Tunnel(_) => &self.unauthenticated,
            Door::Plain => &self.plain,
        }
    }

    /// The connection's peer is admitted. One whose peer has too many stays where it is, and goes first.
    pub(super) fn admit(&self, sender: &RequestPeer) -> Result<(), QuotaExceeded> {
        match sender.door {
            Door::Tunnel(_) => sender.connection.authenticate(&self.peers, QuotaKey::source(sender.address)),
            Door::Plain => Ok(()),
        }
    }

    /// The HTTP/2 windows of a connection: less, the more its peer and all others have.
    fn windows(&self, from: IpAddr) -> (Limits, QuotaLease) {
        let key = QuotaKey::source(from);
        let window = (self.windows.free(&key) / PART).clamp(LEAST_WINDOW, WINDOW);
        let lease = self.windows.open(key, CancellationToken::new());
        lease.set_busy(true);
        // The least is given whether there is room or not: without it a peer could not send at all.
        let _ = lease.take(window);
        (limits(window), lease)
    }
}

fn limits(window: usize) -> Limits {
    let bytes = |bytes: usize| u32::try_from(bytes).ok();
    Limits {
        header_timeout: Duration::from_secs(10),
        idle: Some(IDLE),
        max_headers: 100,
        max_header_bytes: 64 << 10,
        max_streams: 256,
        // A packed frame of what cannot be compressed, and its headers.
        max_frame: bytes(CHUNK),
        stream_window: bytes(window.min(STREAM_WINDOW)),
        connection_window: bytes(window),
        ping: Some(Duration::from_secs(20)),
    }
}

impl Ingest {
    /// Serves connections until the drain begins; those that live then go on until their uploads have ended.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, door: Door) {
        let draining = self.parts.drain.clone();
        let until = async move { draining.draining().await };
        let limiter = self.quotas.of(&door).clone();
        accept(listener, limiter, until, |stream, peer, connection| {
            Arc::clone(&self).accepted(stream, peer.ip(), door.clone(), connection)
        })
        .await;
    }

    /// Serves one connection that another listener has accepted, which came from `from` through `door`.
    pub async fn connection<I>(self: Arc<Self>, stream: I, from: IpAddr, door: Door)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connection = match self.quotas.of(&door).open(from) {
            Ok(connection) => connection,
            Err(exceeded) => return tracing::debug!(%from, %exceeded, "a connection is refused"),
        };
        let place = connection.clone();
        tokio::select! {
            () = self.accepted(stream, from, door, connection) => {}
            () = place.revoked() => tracing::debug!(%from, "an idle connection is ended for another"),
        }
    }

    /// Finds the connection's place at once, and then serves it.
    fn accepted<I>(
        self: Arc<Self>,
        stream: I,
        from: IpAddr,
        door: Door,
        connection: ConnectionHandle,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let sender = RequestPeer { door, address: from, connection };
        let refused = match sender.door.standing(from) {
            Standing::Foreign => Some("foreign"),
            Standing::Strange => None,
            Standing::Admitted => self.quotas.admit(&sender).err().map(|_| "connections"),
        };
        async move {
            match refused {
                Some(reason) => {
                    tracing::debug!(%from, reason, "a connection is refused");
                    match reason {
                        "connections" => self.parts.metrics.limited(from, reason),
                        reason => self.parts.metrics.refused(reason),
                    }
                }
                None => self.serve_one(stream, sender).await,
            }
        }
    }

    async fn serve_one<I>(self: Arc<Self>, stream: I, sender: RequestPeer)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let from = sender.address;
        let (limits, windows) = self.quotas.windows(from);
        // The drain waits until the last frame of every upload is on its way, not only until uploads have ended.
        let guard = self.parts.drain.guard();
        let (ingest, asking) = (Arc::clone(&self), sender.clone());
        let service = service_fn(move |request| {
            let answer = Arc::clone(&ingest).answer(asking.clone(), request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let service = tracked(service, &sender.connection);
        tokio::select! {
            served = serve_connection(stream, service, &limits, &self.parts.drain, &sender.connection) => {
                if let Err(error) = served {
                    tracing::debug!(%from, error, "a connection ended badly");
                }
            }
            () = stays_strange(&sender) => {
                tracing::debug!(%from, "a connection brought no assertion in time");
                self.parts.metrics.refused("stranger");
            }
        }
        drop((windows, guard));
    }
}

/// Completes where a peer is not admitted within its time.
async fn stays_strange(sender: &RequestPeer) {
    tokio::time::sleep(STRANGER).await;
    if sender.door.admits(sender.address) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use podwitness_runtime::quota::QuotaMetrics;

    use super::*;
    use crate::memory::MemoryBudget;

    #[test]
    fn windows_shrink_before_there_is_no_memory_for_them() {
        let budget = MemoryBudget::default().windows;
        let limiter = |limits| ConnectionLimiter::with(limits, QuotaMetrics::default());
        let quotas = ConnectionQuotas {
            unauthenticated: limiter(UNAUTHENTICATED),
            plain: limiter(PLAIN),
            peers: Quota::new(PEERS, QuotaMetrics::default()),
            windows: Quota::new(budget, QuotaMetrics::default()),
        };
        let window = |limits: &Limits| limits.connection_window.unwrap() as usize;
        let (first, _lease) = quotas.windows([10, 0, 0, 1].into());
        assert_eq!((window(&first), first.stream_window), (WINDOW, Some(STREAM_WINDOW as u32)));
        // One peer with all connections that it may have.
        let one: Vec<_> = (1..PEERS.per_key).map(|_| quotas.windows([10, 0, 0, 1].into())).collect();
        let sum: usize = one.iter().map(|(limits, _)| window(limits)).sum();
        assert!(sum <= budget.per_key + PEERS.per_key * LEAST_WINDOW, "{sum}");
        let (other, _lease) = quotas.windows([10, 0, 0, 2].into());
        assert_eq!(window(&other), WINDOW);
        // Many peers with one each.
        let many: Vec<_> =
            (0..1000_u16).map(|n| quotas.windows([10, 1, (n >> 8) as u8, n as u8].into())).collect();
        assert!(quotas.windows.used() <= budget.total);
        assert_eq!(window(&many.last().unwrap().0), LEAST_WINDOW);
        drop((one, many));
        assert_eq!(window(&quotas.windows([10, 0, 0, 3].into()).0), WINDOW);
    }
}
