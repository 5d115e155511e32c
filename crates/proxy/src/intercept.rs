//! The first moments of an intercepted connection: terminate it, pass it on raw, or close it.
//!
//! What is meant for the API server and speaks TLS is terminated. What turns out to be none of ours is spliced raw,
//! which is counted. Where the policy is to refuse what cannot be looked into, nothing is spliced that might reach
//! the API server.

mod sniff;

use std::{io, sync::Arc};

use bytes::Bytes;
use podwitness_core::{control::Netmap, failure::OnUnknown};
use tokio::time::{Duration, timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    BoxedStream, Intercepted, Proxy, Stream, enforce,
    metrics::Connection,
    serve::{self, Client},
    stream::{Bulk, Lenient, Rewound, pass_both},
    target::Target,
};
use sniff::Opening;

/// How long a client of the API server may take for its first message and for its handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long anyone else may be silent before the connection is passed on: its server may have to speak first.
const SILENCE: Duration = Duration::from_secs(1);
/// How long the destination of a raw connection may take to answer.
const DIAL: Duration = Duration::from_secs(10);

/// A terminated connection.
pub(crate) type ServerIo = Lenient<TlsStream<Bulk<Rewound<BoxedStream>>>>;

/// What to do with a connection.
enum Way {
    Terminate(Arc<Target>),
    Splice(Connection),
    Close(Connection),
}

/// Serves one intercepted connection to its end.
pub(crate) async fn serve<S: Stream + 'static>(proxy: &Arc<Proxy>, intercepted: Intercepted<S>) {
    let mut stream: BoxedStream = Box::new(intercepted.stream);
    let netmap = proxy.netmap();
    let netmap = netmap.as_deref();
    let to = proxy.targets.destination(intercepted.original);
    let bypassed = is_bypassed(netmap, proxy.clock.now_unix());
    let (way, first) = if bypassed {
        (Way::Splice(Connection::Bypass), Bytes::new())
    } else {
        let known = proxy.targets.is_known(to, netmap);
        let (opening, first) =
            sniff::sniff(&mut stream, if known { PATIENCE } else { SILENCE }, PATIENCE).await;
        (way(proxy, &opening, to, known, netmap), first)
    };
    let stream = Rewound::new(first, stream);
    match way {
        Way::Terminate(target) => terminate(proxy, stream, target, netmap).await,
        Way::Splice(why) => {
            proxy.metrics.connection(why);
            tracing::debug!(%to, ?why, "connection passed on raw");
            if let Err(error) = splice(proxy, stream, to).await {
                tracing::debug!(%to, %error, "raw connection ended");
            }
        }
        Way::Close(why) => {
            proxy.metrics.connection(why);
            tracing::info!(%to, ?why, "connection closed");
        }
    }
}

/// Recording is suspended until a time in the netmap.
fn is_bypassed(netmap: Option<&Netmap>, now: i64) -> bool {
    netmap.and_then(|map| map.bypass_until).is_some_and(|until| now < until)
}

fn way(
    proxy: &Proxy,
    opening: &Opening,
    to: std::net::SocketAddr,
    known: bool,
    netmap: Option<&Netmap>,
) -> Way {
    match opening {
        Opening::Tls(name) if known || proxy.targets.is_name(name.as_deref()) => {
            Way::Terminate(proxy.targets.api(to, name.as_deref()))
        }
        Opening::Gone => Way::Close(Connection::Silent),
        Opening::Silent if known => Way::Close(Connection::Silent),
        // Without a netmap nobody can tell whether this is an API server.
        _ if known || netmap.is_none() => {
            match enforce::on_unreadable(
                netmap,
                proxy.config.until_netmap,
                "a connection that cannot be looked into",
            ) {
                OnUnknown::Forward => {
                    Way::Splice(if known { Connection::Plain } else { Connection::Foreign })
                }
                OnUnknown::Refuse(_) => Way::Close(Connection::Refused),
            }
        }
        _ => Way::Splice(Connection::Foreign),
    }
}

async fn terminate(
    proxy: &Arc<Proxy>,
    stream: Rewound<BoxedStream>,
    target: Arc<Target>,
    netmap: Option<&Netmap>,
) {
    let tls = match proxy.leaves.serving(&proxy.targets.addresses(netmap), proxy.clock.now_unix()) {
        Ok(tls) => tls,
        Err(error) => {
            return tracing::error!(error = &error as &dyn std::error::Error, "no certificate to serve");
        }
    };
    match timeout(PATIENCE, TlsAcceptor::from(tls).accept(Bulk::new(stream))).await {
        Ok(Ok(stream)) => {
            proxy.metrics.connection(Connection::Terminated);
            let client = Arc::new(Client { target, has_certificate: has_certificate(&stream) });
            serve::serve(proxy, Lenient(stream), client).await;
        }
        failed => {
            proxy.metrics.connection(Connection::Handshake);
            let error = failed.map_or_else(
                |_| io::ErrorKind::TimedOut.into(),
                |done| done.err().unwrap_or_else(|| io::ErrorKind::Other.into()),
            );
            tracing::info!(to = %target.to, %error, "no TLS with a client; it may not trust the in-pod CA in its mounted ca.crt");
        }
    }
}

fn has_certificate(stream: &TlsStream<Bulk<Rewound<BoxedStream>>>) -> bool {
    stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty())
}

/// Passes bytes in both directions until both have ended or the drain is over.
async fn splice(proxy: &Proxy, mut client: Rewound<BoxedStream>, to: std::net::SocketAddr) -> io::Result<()> {
    let mut server = timeout(DIAL, proxy.upstream_dial.dial(to)).await??;
    tokio::select! {
        passed = pass_both(&mut client, &mut server) => passed,
        () = proxy.drain.over() => Ok(()),
    }
}
