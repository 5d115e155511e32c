//! Connections that are passed on raw, for as long as they may be.
//!
//! Invariant: what lets a connection pass is judged again with every netmap, because a connection can last longer than
//! the rule that let it pass. What was said on it cannot be recorded any more, so it ends; its client connects anew.

mod activity;

use std::{io, net::SocketAddr, pin::pin};

use futures_util::{FutureExt as _, future::FusedFuture as _};
use podwitness_core::control::Netmap;
use podwitness_runtime::connection::ConnectionHandle;
use tokio::{
    io::{AsyncWriteExt as _, split},
    time::{Duration, sleep, timeout},
};

use super::{Judged, Way, bypass_left, judge, server_probe::ServerKind, sniff::Opening};
use crate::{BoxedStream, Proxy, metrics::Connection, stream::pass};
use activity::{Activity, CountedReads};

/// How long the destination of a raw connection may take to answer.
const DIAL: Duration = Duration::from_secs(10);
/// How long a connection that may no longer be passed on has for what its server has still to say.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The wall clock can be set: the end of a bypass is looked at again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A connection that is passed on raw.
pub(super) struct RawConnection {
    /// What lets it pass.
    pub(super) why: Connection,
    /// How it opened and what answers; not looked at while recording is suspended.
    pub(super) seen: Option<(Opening, Option<ServerKind>)>,
    /// Where it goes.
    pub(super) to: SocketAddr,
}

impl RawConnection {
    /// Passes bytes in both directions until both have ended, the connection may no longer be passed on, or the drain
    /// is over. It is busy while something passes.
    pub(super) async fn splice(
        &self,
        proxy: &Proxy,
        client: super::Client,
        connection: &ConnectionHandle,
    ) -> io::Result<()> {
        let busy = connection.busy();
        let server: BoxedStream = timeout(DIAL, proxy.upstream_dial.dial(self.to)).await??;
        let activity = Activity::default();
        let (client_read, client_write) = split(client);
        let (server_read, mut server_write) = split(server);
        let (client_read, server_read) =
            (CountedReads::new(client_read, &activity), CountedReads::new(server_read, &activity));
        let mut down = pin!(pass(server_read, client_write).fuse());
        {
            let up = pass(client_read, &mut server_write);
            tokio::select! {
                passed = async { tokio::try_join!(up, down.as_mut()) } => return passed.map(drop),
                () = proxy.drain.over() => return Ok(()),
                () = self.no_longer_allowed(proxy) => {}
                never = activity.keep_busy(connection, busy) => match never {},
            }
        }
        proxy.metrics.raw_ended(self.why);
        tracing::info!(to = %self.to, why = ?self.why, "raw connection ended: it is no longer allowed");
        let last_words = async {
            // Nothing more goes to the server, which so learns that it is over.
            server_write.shutdown().await?;
            if down.is_terminated() { Ok(()) } else { down.await }
        };
        tokio::select! {
            passed = timeout(LAST_WORDS, last_words) => passed.unwrap_or(Ok(())),
            () = proxy.drain.over() => Ok(()),
        }
    }

    /// Completes when the netmap, or the end of a bypass, no longer lets this connection pass.
    async fn no_longer_allowed(&self, proxy: &Proxy) {
        let mut netmaps = proxy.netmap.clone();
        loop {
            let netmap = netmaps.borrow_and_update().clone();
            if !self.is_allowed(proxy, netmap.as_deref()) {
                return;
            }
            let left = bypass_left(netmap.as_deref(), proxy.clock.now_unix());
            tokio::select! {
                changed = netmaps.changed() => if changed.is_err() {
                    // No netmap will ever come again.
                    std::future::pending::<()>().await;
                },
                () = sleep(left.unwrap_or_default().min(LOOK_AGAIN)), if left.is_some() => {}
            }
        }
    }

    fn is_allowed(&self, proxy: &Proxy, netmap: Option<&Netmap>) -> bool {
        if bypass_left(netmap, proxy.clock.now_unix()).is_some() {
            return true;
        }
        // What passed unseen under a bypass may be anything: it ends with it.
        let Some((opening, answer)) = &self.seen else { return false };
        let distrusted = self.why == Connection::Distrusted;
        let judged = Judged { opening, to: self.to, answer: answer.as_ref(), distrusted };
        matches!(judge(proxy, &judged, netmap), Way::Splice(_))
    }
}
