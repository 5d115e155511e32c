//! The first moments of an intercepted connection: terminate it, pass it on raw, or close it.
//!
//! Towards an address that is the API server's nothing but TLS is served, under every policy: what does not begin with
//! a whole ClientHello in time is closed with an alert, because a server may understand what a detector does not. At
//! other addresses what asks for the API server by name is terminated, and the rest is spliced raw, which is counted.

mod distrust;
mod sniff;

pub(crate) use distrust::Distrust;

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use podwitness_core::{
    control::{Netmap, Notice},
    failure::OnUnknown,
};
use podwitness_wire::hello::HelloError;
use tokio::{
    io::{AsyncWriteExt as _, copy, sink},
    time::{Duration, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    BoxedStream, Intercepted, Proxy, Stream, enforce,
    memory::{
        CONNECTION,
        meter::{Meter, Metered},
    },
    metrics::Connection,
    serve::{self, Client},
    stream::{Bulk, Lenient, Rewound, TOGETHER, pass_both},
    target::Target,
};
use sniff::Opening;

/// How long a client of the API server may take for its first message and for its handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long anyone else may be silent before the connection is passed on: its server may have to speak first.
const SILENCE: Duration = Duration::from_secs(1);
/// How long the destination of a raw connection may take to answer.
const DIAL: Duration = Duration::from_secs(10);
/// Of a connection that is passed on raw: what is read of either side.
const SPLICED: usize = CONNECTION + 4 * TOGETHER;
/// How long an alert may take, and how long the client is read after it.
const FAREWELL: Duration = Duration::from_secs(1);

/// A terminated connection.
pub(crate) type ServerIo = Metered<Terminated>;
/// The same, before what it holds is counted.
pub(crate) type Terminated = Lenient<TlsStream<Bulk<Rewound<BoxedStream>>>>;

/// What to do with a connection.
enum Way {
    Terminate(Arc<Target>),
    Splice(Connection),
    /// With an alert, where the client may understand one.
    Close(Connection, Option<HelloError>),
}

/// Serves one intercepted connection to its end.
pub(crate) async fn serve<S: Stream + 'static>(proxy: &Arc<Proxy>, intercepted: Intercepted<S>) {
    let Intercepted { stream, client, original, connection } = intercepted;
    if proxy.memory.hold(&connection, CONNECTION).is_err() {
        proxy.metrics.connection(Connection::NoMemory);
        return;
    }
    let mut stream: BoxedStream = Box::new(stream);
    let netmap = proxy.netmap();
    let netmap = netmap.as_deref();
    let to = proxy.targets.destination(original);
    let bypassed = is_bypassed(netmap, proxy.clock.now_unix());
    let (way, first) = if bypassed {
        proxy.notices.give(Notice::Bypassed);
        (Way::Splice(Connection::Bypass), Bytes::new())
    } else {
        let known = proxy.targets.is_known(to, netmap);
        let (opening, first) =
            sniff::sniff(&mut stream, if known { PATIENCE } else { SILENCE }, PATIENCE, |seen| {
                proxy.memory.hold(&connection, CONNECTION.saturating_add(seen)).is_ok()
            })
            .await;
        let way = match way(proxy, &opening, to, known, netmap) {
            Way::Terminate(_) if proxy.distrust.covers(client, original) => {
                unread(proxy, netmap, Connection::Distrusted)
            }
            way => way,
        };
        (way, first)
    };
    let stream = Rewound::new(first, stream);
    match way {
        Way::Terminate(target) => {
            if let Err(error) = terminate(proxy, stream, Arc::clone(&target), netmap, connection).await {
                no_handshake(proxy, &target, (client, original), netmap, &error).await;
            }
        }
        Way::Splice(why) => {
            proxy.metrics.connection(why);
            tracing::debug!(%to, ?why, "connection passed on raw");
            let _busy = connection.busy();
            if proxy.memory.hold(&connection, SPLICED).is_err() {
                proxy.metrics.connection(Connection::NoMemory);
                return;
            }
            if let Err(error) = splice(proxy, stream, to).await {
                tracing::debug!(%to, %error, "raw connection ended");
            }
        }
        Way::Close(why, alert) => {
            proxy.metrics.connection(why);
            tracing::info!(%to, ?why, error = alert.map(tracing::field::display), "connection closed");
            if let Some(error) = alert {
                close(stream, error).await;
            }
        }
    }
}

/// Recording is suspended until a time in the netmap.
fn is_bypassed(netmap: Option<&Netmap>, now: i64) -> bool {
    netmap.and_then(|map| map.bypass_until).is_some_and(|until| now < until)
}

fn way(proxy: &Proxy, opening: &Opening, to: SocketAddr, known: bool, netmap: Option<&Netmap>) -> Way {
    match opening {
        Opening::Tls(name) if known || proxy.targets.is_name(name.as_deref()) => {
            Way::Terminate(proxy.targets.api(to, name.as_deref()))
        }
        Opening::Gone => Way::Close(Connection::Silent, None),
        Opening::Silent if known => Way::Close(Connection::Silent, Some(HelloError::Unfinished)),
        Opening::Other(error) if known => Way::Close(Connection::Plain, Some(*error)),
        // Without a netmap it is not known whether this is an API server.
        _ if netmap.is_none() => unread(proxy, netmap, Connection::Foreign),
        _ => Way::Splice(Connection::Foreign),
    }
}

/// What the policy wants of a connection that cannot be looked into, for that reason.
fn unread(proxy: &Proxy, netmap: Option<&Netmap>, why: Connection) -> Way {
    let until = proxy.config.until_netmap;
    match enforce::on_unreadable(netmap, until, "a connection that cannot be looked into") {
        OnUnknown::Forward => Way::Splice(why),
        OnUnknown::Refuse(_) => Way::Close(Connection::Refused, None),
    }
}

/// Terminates a connection and serves it to its end; an error is a handshake that failed.
async fn terminate(
    proxy: &Arc<Proxy>,
    stream: Rewound<BoxedStream>,
    target: Arc<Target>,
    netmap: Option<&Netmap>,
    connection: podwitness_runtime::connection::ConnectionHandle,
) -> io::Result<()> {
    let tls = match proxy.leaves.serving(&proxy.targets.addresses(netmap), proxy.clock.now_unix()) {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no certificate to serve");
            return Ok(());
        }
    };
    let stream = timeout(PATIENCE, TlsAcceptor::from(tls).accept(Bulk::new(stream))).await??;
    proxy.metrics.connection(Connection::Terminated);
    // The hello is gone: less than before is always had.
    let _ = proxy.memory.hold(&connection, CONNECTION);
    let has_certificate = has_certificate(&stream);
    let stream = Lenient(stream);
    let meter = Meter::new(Arc::clone(&proxy.memory), connection.clone(), serve::is_http2(&stream));
    let stream = Metered::new(stream, Arc::clone(&meter));
    let client = Arc::new(Client { target, has_certificate, connection, meter });
    serve::serve(proxy, stream, client).await;
    Ok(())
}

async fn no_handshake(
    proxy: &Proxy,
    target: &Target,
    (client, original): (SocketAddr, SocketAddr),
    netmap: Option<&Netmap>,
    error: &io::Error,
) {
    proxy.metrics.connection(Connection::Handshake);
    let passes = matches!(unread(proxy, netmap, Connection::Distrusted), Way::Splice(_));
    match proxy.distrust.note(client, original, error).await.filter(|_| passes) {
        Some(uid) => {
            proxy.notices.give(Notice::SteppedAside);
            tracing::warn!(
                to = %target.to, %error, uid,
                "a client does not trust the in-pod CA: what its user sends passes unrecorded for 10 minutes; let it read the mounted ca.crt"
            );
        }
        None => {
            if distrust::is_distrust(error) {
                proxy.notices.give(Notice::CertificateRefused);
            }
            tracing::info!(
                to = %target.to, %error,
                "no TLS with a client; it may not trust the in-pod CA in its mounted ca.crt"
            );
        }
    }
}

fn has_certificate(stream: &TlsStream<Bulk<Rewound<BoxedStream>>>) -> bool {
    stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty())
}

/// Closes a connection with an alert. Bytes left unread would make the client's system throw the alert away.
async fn close(mut stream: Rewound<BoxedStream>, error: HelloError) {
    let farewell = async {
        stream.write_all(&error.alert()).await?;
        stream.shutdown().await?;
        copy(&mut stream, &mut sink()).await
    };
    // A client that has left needs no alert.
    let _ = timeout(FAREWELL, farewell).await;
}

/// Passes bytes in both directions until both have ended or the drain is over.
async fn splice(proxy: &Proxy, mut client: Rewound<BoxedStream>, to: SocketAddr) -> io::Result<()> {
    let mut server = timeout(DIAL, proxy.upstream_dial.dial(to)).await??;
    tokio::select! {
        passed = pass_both(&mut client, &mut server) => passed,
        () = proxy.drain.over() => Ok(()),
    }
}
