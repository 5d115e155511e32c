//! Byte streams in and out: the seams by which the proxy runs in a pod, in a gateway or on duplex pipes.

use std::{io, net::SocketAddr};

use futures_util::future::BoxFuture;
use podwitness_runtime::connection::ConnectionHandle;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Any byte stream.
pub type BoxedStream = Box<dyn Stream>;

/// A connection that was meant for somebody else.
pub struct Intercepted<S> {
    /// The client's end.
    pub stream: S,
    /// Where the client is.
    pub client: SocketAddr,
    /// Where the client wanted to go.
    pub original: SocketAddr,
    /// Its place among the listener's: busy while a request on it is answered, and while it is passed on raw.
    pub connection: ConnectionHandle,
}

/// Knows whose a connection is.
pub trait Owners: Send + Sync + 'static {
    /// The user id of the process at `client` that is connected to `original`; `None` where that cannot be told.
    fn uid(&self, client: SocketAddr, original: SocketAddr) -> Option<u32>;
}

/// Opens byte streams.
pub trait Dial: Send + Sync + 'static {
    /// Connects to an address. The caller bounds the time.
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<BoxedStream>>;
}
