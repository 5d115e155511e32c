//! The first moments of an intercepted connection: terminate it, pass it on raw, or close it.
//!
//! Towards an address that is the API server's nothing but TLS is served, under every policy: what does not begin with
//! a whole ClientHello in time is closed with an alert, because a server may understand what a detector does not. At
//! other addresses what an API server of this cluster answers is terminated; the rest is spliced raw, which is counted.
//! What name a client asks for decides nothing there: API servers of other clusters have the same names.

mod distrust;
mod raw;
mod server_probe;
mod sniff;

pub(crate) use distrust::Distrust;
pub(crate) use server_probe::ServerProbe;

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use podwitness_core::{
    control::{Netmap, Notice},
    failure::OnUnknown,
};
use podwitness_wire::hello::{ClientHello, HelloError};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncWriteExt as _, copy, sink},
    time::{Duration, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    BoxedStream, Intercepted, Proxy, ServerNames, Stream, ca, enforce,
    memory::{
        CONNECTION,
        meter::{Meter, Metered},
    },
    metrics::Connection,
    serve,
    stream::{Bulk, Lenient, Rewound, TOGETHER},
    target::Target,
};
use distrust::Ends;
use raw::RawConnection;
use server_probe::ServerKind;
use sniff::Opening;

/// How long a client of the API server may take for its first message and for its handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long anyone else may be silent before the connection is passed on: its server may have to speak first.
const SILENCE: Duration = Duration::from_secs(1);
/// Of a connection that is passed on raw: what is read of either side.
const SPLICED: usize = CONNECTION + 4 * TOGETHER;
/// How long an alert may take, and how long the client is read after it.
const FAREWELL: Duration = Duration::from_secs(1);

/// A terminated connection.
pub(crate) type ServerIo = Metered<Terminated>;
/// The same, before what it holds is counted.
pub(crate) type Terminated = Lenient<TlsStream<Bulk<Rewound<BoxedStream>>>>;

/// The client's end, from its first byte on.
type Client = Rewound<BoxedStream>;

/// What is known of a connection when it is judged.
struct Judged<'a> {
    opening: &'a Opening,
    to: SocketAddr,
    /// What answers there, where that is not known without asking.
    answer: Option<&'a ServerKind>,
    /// Interception steps aside for its client.
    distrusted: bool,
}

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
        no_memory(proxy);
        return;
    }
    let mut stream: BoxedStream = Box::new(stream);
    let netmap = proxy.netmap();
    let netmap = netmap.as_deref();
    let to = proxy.targets.destination(original);
    let ends = Ends { client, original, to };
    let (way, seen, first) = if bypass_left(netmap, proxy.clock.now_unix()).is_some() {
        proxy.notices.give(Notice::Bypassed);
        (Way::Splice(Connection::Bypass), None, Bytes::new())
    } else {
        let silence = if proxy.targets.is_known(to, netmap) { PATIENCE } else { SILENCE };
        let hold = |seen| proxy.memory.hold(&connection, CONNECTION.saturating_add(seen)).is_ok();
        let (opening, first) = sniff::sniff(&mut stream, silence, PATIENCE, hold).await;
        let answer = ask(proxy, &opening, to, netmap).await;
        let distrusted = match opening.hello() {
            Some(hello) => proxy.distrust.covers(ends, hello).await,
            None => false,
        };
        let judged = Judged { opening: &opening, to, answer: answer.as_ref(), distrusted };
        (judge(proxy, &judged, netmap), Some((opening, answer)), first)
    };
    let stream = Rewound::new(first, stream);
    match way {
        Way::Terminate(target) => {
            let hello = seen.as_ref().and_then(|(opening, _)| opening.hello());
            let wanted = ca::wanted(hello.and_then(|hello| hello.server_name.as_deref()), original.ip());
            if let Err(error) = terminate(proxy, stream, (target, &wanted), netmap, connection).await {
                no_handshake(proxy, (ends, hello), netmap, &error).await;
            }
        }
        Way::Splice(why) => {
            proxy.metrics.connection(why);
            if why == Connection::Unclear {
                proxy.notices.give(Notice::UnknownServer(to));
            }
            tracing::debug!(%to, ?why, "connection passed on raw");
            if proxy.memory.hold(&connection, SPLICED).is_err() {
                no_memory(proxy);
                return;
            }
            if let Err(error) = (RawConnection { why, seen, to }).splice(proxy, stream, &connection).await {
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

fn no_memory(proxy: &Proxy) {
    proxy.metrics.connection(Connection::NoMemory);
    proxy.notices.give(Notice::ConnectionsExhausted);
}

/// How long recording is still suspended by the netmap.
fn bypass_left(netmap: Option<&Netmap>, now: i64) -> Option<Duration> {
    let left = netmap?.bypass_until?.saturating_sub(now);
    u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs)
}

/// Asks what answers, unless it makes no difference. An address of the API server is asked as well for the names of its
/// certificate.
async fn ask(
    proxy: &Proxy,
    opening: &Opening,
    to: SocketAddr,
    netmap: Option<&Netmap>,
) -> Option<ServerKind> {
    let name = match opening {
        Opening::Tls(hello) => hello.server_name.as_deref(),
        Opening::Other(_) | Opening::Silent if !proxy.targets.is_known(to, netmap) => None,
        Opening::Other(_) | Opening::Silent | Opening::Gone => return None,
    };
    if proxy.targets.is_service(to) && name.is_none_or(|name| proxy.targets.is_fixed(name)) {
        return None;
    }
    Some(proxy.server_probe.ask(to, name, || proxy.targets.names(netmap)).await)
}

/// Names and addresses of the certificate that the API server shows at the address of its Service.
pub(crate) async fn server_names(proxy: &Proxy) -> Option<Arc<ServerNames>> {
    let netmap = proxy.netmap();
    let names = || proxy.targets.names(netmap.as_deref());
    match proxy.server_probe.ask(proxy.config.api_server, None, names).await {
        ServerKind::ApiServer { names, .. } => Some(names),
        ServerKind::Other | ServerKind::NoTls | ServerKind::Unclear => None,
    }
}

/// What becomes of a connection while recording is not suspended.
fn judge(proxy: &Proxy, judged: &Judged<'_>, netmap: Option<&Netmap>) -> Way {
    match way(proxy, judged, netmap) {
        Way::Terminate(_) if judged.distrusted => unread(proxy, netmap, Connection::Distrusted),
        way => way,
    }
}

fn way(proxy: &Proxy, judged: &Judged<'_>, netmap: Option<&Netmap>) -> Way {
    let to = judged.to;
    let found = match judged.answer {
        Some(ServerKind::ApiServer { name, .. }) => Some(name),
        _ => None,
    };
    let known = found.is_some() || proxy.targets.is_known(to, netmap);
    let by_name = |hello: &ClientHello| Way::Terminate(proxy.targets.api(to, hello.server_name.as_deref()));
    match (judged.opening, judged.answer) {
        (Opening::Tls(hello), _) if known => match found {
            Some(name) => Way::Terminate(Arc::new(Target { to, name: name.clone() })),
            None => by_name(hello),
        },
        // It may be a slow API server.
        (Opening::Tls(hello), Some(ServerKind::Unclear))
            if proxy.targets.is_name(hello.server_name.as_deref()) =>
        {
            by_name(hello)
        }
        (Opening::Gone, _) => Way::Close(Connection::Silent, None),
        (Opening::Silent, _) if known => Way::Close(Connection::Silent, Some(HelloError::Unfinished)),
        (Opening::Other(error), _) if known => Way::Close(Connection::Plain, Some(*error)),
        // A server that knows no TLS is none for clients that speak it, and one that is slow may be an API server.
        (Opening::Tls(_), Some(ServerKind::NoTls)) | (_, Some(ServerKind::Unclear)) => {
            unread(proxy, netmap, Connection::Unclear)
        }
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

/// Terminates a connection of a client that wants a server of this name, and serves it to its end; an error is a
/// handshake that failed.
async fn terminate(
    proxy: &Arc<Proxy>,
    stream: Client,
    (target, wanted): (Arc<Target>, &ServerName<'_>),
    netmap: Option<&Netmap>,
    connection: podwitness_runtime::connection::ConnectionHandle,
) -> io::Result<()> {
    let now = proxy.clock.now_unix();
    let of_pod_ca = || {
        let mut names: ServerNames = proxy.targets.addresses(netmap).into_iter().collect();
        proxy.server_probe.add_names(&mut names);
        proxy.leaves.serving(&names, now)
    };
    let tls = match proxy.cluster_certificate.serving(wanted, now).map_or_else(of_pod_ca, Ok) {
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
    let client = Arc::new(serve::Client { target, has_certificate, connection, meter });
    serve::serve(proxy, stream, client).await;
    Ok(())
}

async fn no_handshake(
    proxy: &Proxy,
    (ends, hello): (Ends, Option<&ClientHello>),
    netmap: Option<&Netmap>,
    error: &io::Error,
) {
    proxy.metrics.connection(Connection::Handshake);
    let to = ends.to;
    let server_name = hello.and_then(|hello| hello.server_name.as_deref());
    let passes = matches!(unread(proxy, netmap, Connection::Distrusted), Way::Splice(_));
    let noted = match hello {
        Some(hello) => proxy.distrust.note(ends, hello, error).await,
        None => None,
    };
    match noted.filter(|_| passes) {
        Some(uid) => {
            proxy.notices.give(Notice::SteppedAside);
            tracing::warn!(
                %to, server_name, %error, uid,
                "a client does not trust the in-pod CA: what it sends there passes unrecorded for 10 minutes; let it read the mounted ca.crt"
            );
        }
        None => {
            if distrust::is_distrust(error) {
                proxy.notices.give(Notice::CertificateRefused);
            }
            tracing::info!(
                %to, server_name, %error,
                "no TLS with a client; it may not trust the in-pod CA in its mounted ca.crt"
            );
        }
    }
}

fn has_certificate(stream: &TlsStream<Bulk<Rewound<BoxedStream>>>) -> bool {
    stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty())
}

/// Closes a connection with an alert. Bytes left unread would make the client's system throw the alert away.
async fn close(mut stream: Client, error: HelloError) {
    let farewell = async {
        stream.write_all(&error.alert()).await?;
        stream.shutdown().await?;
        copy(&mut stream, &mut sink()).await
    };
    // A client that has left needs no alert.
    let _ = timeout(FAREWELL, farewell).await;
}
