//! A bounded accept loop.
//!
//! Connections are accepted as they come and counted before anything is read from them. Where a cap is reached, an
//! idle connection is ended for the new one, or the new one is closed: none waits in the kernel's backlog behind others.
//! Errors of a single connection are passed over; where the process is out of descriptors or memory, an idle connection
//! is ended and the loop pauses instead of spinning.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

use crate::connection::{ConnectionHandle, ConnectionLimiter};

/// Pause after an error that concerns more than one connection.
const PAUSE: Duration = Duration::from_millis(50);

/// Listens on `addr`. The unspecified IPv6 address means every address of both families; where the machine has no IPv6
/// it means every IPv4 address.
///
/// # Errors
/// Where the address cannot be listened on.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(addr).await {
        Err(error) if addr.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port())).await
        }
        bound => bound,
    }
}

/// The same, but on a port that the kernel draws where somebody else listens on that one.
///
/// # Errors
/// Where no port of the address can be listened on.
pub async fn bind_elsewhere(addr: SocketAddr) -> io::Result<TcpListener> {
    match bind(addr).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bind(SocketAddr::new(addr.ip(), 0)).await,
        bound => bound,
    }
}

/// Whether an address of IPv6 cannot be listened on because the machine has no IPv6.
#[must_use]
pub fn is_without_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no kind of its own; EADDRNOTAVAIL is what a disabled but compiled-in IPv6 answers.
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Handles connections that `limiter` admits, each in a task of its own, until `until` completes. A connection whose
/// place is given to another ends where its handler waits. Tasks in flight go on.
pub async fn accept<H, F>(
    listener: TcpListener,
    limiter: ConnectionLimiter,
    until: impl Future<Output = ()>,
    handle: H,
) where
    H: Fn(TcpStream, SocketAddr, ConnectionHandle) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut until = std::pin::pin!(until);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut until => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match limiter.open(peer.ip()) {
                Ok(connection) => begin(stream, peer, connection, &handle),
                Err(exceeded) => tracing::debug!(%peer, %exceeded, "a connection is refused"),
            },
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                let ended_idle = limiter.shed();
                tracing::warn!(%error, ended_idle, "cannot accept connections; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn begin<H, F>(stream: TcpStream, peer: SocketAddr, connection: ConnectionHandle, handle: &H)
where
    H: Fn(TcpStream, SocketAddr, ConnectionHandle) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    // Only a hint: a connection that is gone already shows at its first read.
    let _ = stream.set_nodelay(true);
    let handled = handle(stream, peer, connection.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = handled => {}
            () = connection.revoked() => tracing::debug!(%peer, "an idle connection is ended for another"),
        }
    });
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::Notify,
    };

    use super::*;
    use crate::quota::{QuotaLimits, QuotaMetrics};

    #[tokio::test]
    async fn the_unspecified_address_is_reached_over_ipv4() {
        let listener = bind("[::]:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    }

    struct Server {
        addr: SocketAddr,
        stop: Arc<Notify>,
        task: tokio::task::JoinHandle<()>,
    }

    /// Greets with `x`, and echoes one byte; busy from the greeting on where the cap says so.
    async fn serve(total: usize, busy: bool) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let limiter = ConnectionLimiter::with(QuotaLimits { total, per_key: total }, QuotaMetrics::default());
        let stop = Arc::new(Notify::new());
        let until = Arc::clone(&stop);
        let task = tokio::spawn(accept(
            listener,
            limiter,
            async move { until.notified().await },
            move |mut s, _, connection| {
                let busy = busy.then(|| connection.busy());
                async move {
                    s.write_all(b"x").await.unwrap();
                    let mut byte = [0];
                    let _ = s.read_exact(&mut byte).await;
                    let _ = s.write_all(&byte).await;
                    drop(busy);
                }
            },
        ));
        Server { addr, stop, task }
    }

    async fn greeted(addr: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        stream
    }

    #[tokio::test]
    async fn however_many_connections_are_idle_the_next_one_is_served_at_once() {
        let server = serve(4, false).await;
        let mut idle = Vec::new();
        for _ in 0..600 {
            idle.push(TcpStream::connect(server.addr).await.unwrap());
        }
        let mut rightful = greeted(server.addr).await;
        rightful.write_all(b"y").await.unwrap();
        assert_eq!(rightful.read_u8().await.unwrap(), b'y');
        // All but the newest were ended.
        let mut rest = Vec::new();
        idle[0].read_to_end(&mut rest).await.unwrap();
        server.stop.notify_one();
        server.task.await.unwrap();
        assert!(TcpStream::connect(server.addr).await.is_err());
    }

    #[tokio::test]
    async fn where_all_are_busy_the_next_one_is_closed_and_none_is_ended() {
        let server = serve(1, true).await;
        let mut first = greeted(server.addr).await;
        let mut second = TcpStream::connect(server.addr).await.unwrap();
        assert!(second.read_u8().await.is_err());
        first.write_all(b"y").await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), b'y');
        // Its end is seen before its place is free.
        while first.read(&mut [0]).await.unwrap() != 0 {}
        for _ in 0..100 {
            let mut third = TcpStream::connect(server.addr).await.unwrap();
            if third.read_u8().await.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the place stays taken");
    }
}
