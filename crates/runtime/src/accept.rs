//! A bounded accept loop.
//!
//! At most `max` connections are handled at a time; above that nothing is accepted, and callers wait in the kernel's
//! backlog. Errors of a single connection are passed over; where the process is out of descriptors or memory, the
//! loop pauses instead of spinning.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Pause after an error that concerns more than one connection.
const PAUSE: Duration = Duration::from_millis(200);

/// Listens on `addr`. The unspecified IPv6 address means every address of both families; where the machine has no IPv6
/// it means every IPv4 address.
///
/// # Errors
/// Where the address cannot be listened on.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(addr).await {
        Err(error) if addr.ip() == Ipv6Addr::UNSPECIFIED && no_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port())).await
        }
        bound => bound,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no kind of its own; EADDRNOTAVAIL is what a disabled but compiled-in IPv6 answers.
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Handles connections, each in a task of its own, until `until` completes. Tasks in flight go on.
pub async fn accept<H, F>(listener: TcpListener, max: usize, until: impl Future<Output = ()>, handle: H)
where
    H: Fn(TcpStream, SocketAddr) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(max));
    let mut until = std::pin::pin!(until);
    loop {
        let (permit, accepted) = tokio::select! {
            biased;
            () = &mut until => return,
            next = next(&listener, &permits) => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let session = handle(stream, peer);
                tokio::spawn(async move {
                    session.await;
                    drop(permit);
                });
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn next(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (Option<OwnedSemaphorePermit>, io::Result<(TcpStream, SocketAddr)>) {
    // The semaphore is never closed, so that there always is a permit.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    let accepted = listener.accept().await;
    if let Ok((stream, _)) = &accepted {
        // Only a hint: a connection that is gone already shows at its first read.
        let _ = stream.set_nodelay(true);
    }
    (permit, accepted)
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::Notify,
    };

    use super::*;

    #[tokio::test]
    async fn the_unspecified_address_is_reached_over_ipv4() {
        let listener = bind("[::]:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    }

    #[tokio::test]
    async fn above_the_cap_connections_wait_until_another_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = Arc::new(Notify::new());
        let until = Arc::clone(&stop);
        let server =
            tokio::spawn(accept(listener, 1, async move { until.notified().await }, |mut s, _| async move {
                s.write_all(b"x").await.unwrap();
                let _ = s.read(&mut [0]).await;
            }));
        let mut first = TcpStream::connect(addr).await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), b'x');
        let mut second = TcpStream::connect(addr).await.unwrap();
        // Nothing serves the second connection while the first lives: its read stays pending.
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(50), second.read(&mut byte)).await;
        assert!(early.is_err());
        drop(first);
        assert_eq!(second.read_u8().await.unwrap(), b'x');
        stop.notify_one();
        server.await.unwrap();
        assert!(TcpStream::connect(addr).await.is_err());
    }
}
