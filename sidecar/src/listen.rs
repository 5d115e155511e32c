//! The listener to which connections are redirected: loopback only, both families, so that nothing outside the pod
//! reaches it. Its port is drawn at each start, so that no program of the pod waits for it, and its sockets carry our
//! mark, without which the rules let no socket on that port answer.
//!
//! Invariant: at most as many connections of both families as [`places`](crate::memory::places) says. They all come from
//! the pod's own containers; above the cap the one that is idle for the longest time is ended for the next, and where all
//! are busy, the next is closed. A connection that was not redirected has the listener itself as its destination.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use podwitness_proxy::Intercepted;
use podwitness_runtime::{
    accept::{accept, is_without_ipv6},
    connection::{ConnectionHandle, ConnectionLimiter},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};

use crate::kernel::{Kernel, KernelError, selftest::Probe};

/// What the kernel may keep of a connection in each direction, doubled by it for its own (socket(7)): it is memory of this
/// container, and grows to megabytes otherwise. A segment on loopback has 64 KiB, of which two have to fit.
const BUFFER: usize = 128 << 10;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Ports that are tried, where one is free in one family only, or declared by a container.
const ATTEMPTS: usize = 32;

/// The open sockets.
#[derive(Debug)]
pub struct Listener {
    v4: TcpListener,
    v6: Option<TcpListener>,
    addresses: Vec<SocketAddr>,
}

/// The listener cannot be opened.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The kernel gives no socket.
    #[error("cannot listen on {ip} for redirected connections; do programs of the pod use up its ports?")]
    Socket {
        /// Where.
        ip: IpAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The privileged thread opens none.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl Listener {
    /// Opens both sockets on one port that the kernel draws and no container has `declared`; that of IPv6 only where the
    /// pod has IPv6.
    ///
    /// # Errors
    /// Where the kernel gives no port that is free in both families.
    pub async fn bind(kernel: &Kernel, declared: Vec<u16>) -> Result<Self, ListenError> {
        let mark = kernel.mark();
        let (v4, v6) = kernel.run(move |_| bind_both(mark, &declared)).await??;
        Self::adopt(v4, v6).map_err(failed(Ipv4Addr::LOCALHOST.into()))
    }

    fn adopt(v4: Socket, v6: Option<Socket>) -> io::Result<Self> {
        let v4 = TcpListener::from_std(v4.into())?;
        let v6 = v6.map(|v6| TcpListener::from_std(v6.into())).transpose()?;
        let addresses = std::iter::once(&v4).chain(&v6).map(TcpListener::local_addr);
        let addresses = addresses.collect::<io::Result<_>>()?;
        Ok(Self { v4, v6, addresses })
    }

    /// The port of both.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addresses.first().map_or(0, SocketAddr::port)
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Hands each redirected connection that `limiter` admits to `handle`, except our own probe, until `until`
    /// completes. Connections in flight go on.
    pub async fn serve<U, F, H>(
        self,
        limiter: ConnectionLimiter,
        probe: Arc<Probe>,
        until: impl Fn() -> U,
        handle: H,
    ) where
        U: Future<Output = ()> + Send,
        F: Future<Output = ()> + Send + 'static,
        H: Fn(Intercepted<TcpStream>) -> F,
    {
        let take = |stream: TcpStream, peer, connection| {
            let intercepted = (!is_probe(&probe, &stream, peer))
                .then(|| intercepted(stream, peer, connection))
                .map(&handle);
            async move {
                if let Some(work) = intercepted {
                    work.await;
                }
            }
        };
        let v4 = accept(self.v4, limiter.clone(), until(), take);
        match self.v6 {
            Some(v6) => {
                tokio::join!(v4, accept(v6, limiter, until(), take));
            }
            None => v4.await,
        }
    }
}

/// One port in both families. Should all that are drawn be declared, the last one has to do.
fn bind_both(mark: u32, declared: &[u16]) -> Result<(Socket, Option<Socket>), ListenError> {
    let mut attempts = 1..=ATTEMPTS;
    loop {
        let last = attempts.next().is_none_or(|attempt| attempt == ATTEMPTS);
        let v4 = bind(Ipv4Addr::LOCALHOST.into(), 0, mark)?;
        let port = port_of(&v4).map_err(failed(Ipv4Addr::LOCALHOST.into()))?;
        if declared.contains(&port) && !last {
            continue;
        }
        match bind(Ipv6Addr::LOCALHOST.into(), port, mark) {
            Ok(v6) => return Ok((v4, Some(v6))),
            Err(ListenError::Socket { source, .. }) if is_without_ipv6(&source) => {
                tracing::debug!("the pod has no IPv6");
                return Ok((v4, None));
            }
            Err(ListenError::Socket { source, .. }) if source.kind() == io::ErrorKind::AddrInUse && !last => {
            }
            Err(error) => return Err(error),
        }
    }
}

fn bind(ip: IpAddr, port: u16, mark: u32) -> Result<Socket, ListenError> {
    listening(SocketAddr::new(ip, port), mark).map_err(failed(ip))
}

fn listening(address: SocketAddr, mark: u32) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted connections have these too.
    socket.set_mark(mark)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn port_of(socket: &Socket) -> io::Result<u16> {
    socket
        .local_addr()?
        .as_socket()
        .map(|address| address.port())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

const fn failed(ip: IpAddr) -> impl FnOnce(io::Error) -> ListenError {
    move |source| ListenError::Socket { ip, source }
}

fn is_probe(probe: &Probe, stream: &TcpStream, peer: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|local| probe.claims(peer, original(stream), local))
}

fn intercepted(
    stream: TcpStream,
    client: SocketAddr,
    connection: ConnectionHandle,
) -> Intercepted<TcpStream> {
    let original = original(&stream);
    Intercepted { stream, client, original, connection }
}

/// Where the client wanted to go. Without an entry of connection tracking that is where it is.
fn original(stream: &TcpStream) -> SocketAddr {
    let Ok(local) = stream.local_addr() else { return (Ipv4Addr::UNSPECIFIED, 0).into() };
    let socket = SockRef::from(stream);
    let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    original.ok().and_then(|address| address.as_socket()).unwrap_or(local)
}
