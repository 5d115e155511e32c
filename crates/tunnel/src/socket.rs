//! Sockets on the tunnel's address.
//!
//! Setting a mark needs `CAP_NET_ADMIN`, so that a marked socket is made as a privileged job; connecting and accepting
//! need nothing and happen on the runtime.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6, TcpListener as StdListener},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::privileged::{self, Privileged};

/// Connections that wait to be accepted; further ones are retried by the caller's TCP.
const BACKLOG: i32 = 1024;

/// Connects from `from` to `to`.
pub(crate) async fn dial(
    privileged: &dyn Privileged,
    mark: u32,
    from: Ipv6Addr,
    to: SocketAddrV6,
) -> io::Result<TcpStream> {
    let socket = made(privileged, mark, from, 0).await?;
    TcpSocket::from_std_stream(socket.into()).connect(to.into()).await
}

/// Listens on `address`.
pub(crate) async fn listen(
    privileged: &dyn Privileged,
    mark: u32,
    address: Ipv6Addr,
    port: u16,
) -> io::Result<TcpListener> {
    let socket = made(privileged, mark, address, port).await?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(StdListener::from(socket))
}

async fn made(privileged: &dyn Privileged, mark: u32, address: Ipv6Addr, port: u16) -> io::Result<Socket> {
    let local = SockAddr::from(SocketAddrV6::new(address, port, 0, 0));
    privileged::run(privileged, move || make(mark, &local)).await.map_err(io::Error::other)?
}

fn make(mark: u32, local: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if mark != 0 {
        socket.set_mark(mark)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(local)?;
    Ok(socket)
}
