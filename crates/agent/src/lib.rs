//! Client of the control API, shared by sidecar and recorder: enrols a tunnel key, follows the netmap stream, and
//! publishes what it learns as snapshots.
//!
//! Invariant: a snapshot is only ever replaced by a newer one; losing the control plane changes nothing that is
//! already known. Nothing here depends on privilege or on a pod: bytes come through [`Dial`].
//!
//! ```no_run
//! # async fn example(options: podwitness_agent::Options) -> Result<(), podwitness_agent::AgentError> {
//! let (agent, driver) = podwitness_agent::new(options)?;
//! tokio::spawn(driver.run());
//! let mut netmap = agent.netmap.clone();
//! netmap.changed().await.ok();
//! # Ok(()) }
//! ```

mod backoff;
mod cache;
mod client;
mod driver;
mod error;
mod lines;
mod trust;

#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use driver::Driver;
pub use error::AgentError;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use podwitness_core::{
    control::{CertificateResponse, Netmap, Notice},
    inject::ControlAddress,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
};

/// A byte stream to the control API, before TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A [`Stream`] behind a pointer.
pub type BoxedStream = Box<dyn Stream>;
/// Opens a byte stream to an address: a marked socket in a sidecar, a plain one in a recorder, a pipe in tests.
pub type Dial = Arc<dyn Fn(SocketAddr) -> BoxFuture<'static, io::Result<BoxedStream>> + Send + Sync>;

/// What an agent needs to know.
pub struct Options {
    /// Where the control API is. Without addresses the name is resolved at each connection.
    pub control: ControlAddress,
    /// PEM roots under which its certificate stands; those that a netmap names are added.
    pub roots: String,
    /// File of the service-account token; read again for each request, because the kubelet replaces it.
    pub token: PathBuf,
    /// WireGuard public key to enrol, base64.
    pub public_key: String,
    /// File that keeps the last snapshot over a restart; it holds the assertion, so its directory has to be private.
    pub cache: Option<PathBuf>,
    /// Opens connections.
    pub dial: Dial,
    /// What to tell the control plane, as soon as there is a connection; what it does not take is lost.
    pub notices: Option<mpsc::Receiver<Notice>>,
    /// Certificates to ask for, as soon as there is a connection.
    pub certificates: Option<mpsc::Receiver<CertificateOrder>>,
}

/// A certificate of the cluster's CA that is wanted. One that is no longer waited for is not asked for.
pub struct CertificateOrder {
    /// PKCS#10 in DER, as [`podwitness_core::control::CertificateRequest`] says.
    pub request: Vec<u8>,
    /// Takes what comes of it.
    pub answer: oneshot::Sender<Result<CertificateResponse, AgentError>>,
}

/// How the agent stands with the control plane.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Link {
    /// No connection; what is known may be old.
    #[default]
    Offline,
    /// The key is enrolled, the stream not open yet.
    Enrolled,
    /// The netmap stream is open.
    Following,
}

/// What an agent knows, as watch channels that hold the latest value only.
#[derive(Clone, Debug)]
pub struct Agent {
    /// The last netmap; `None` until there was one, never `None` again.
    pub netmap: watch::Receiver<Option<Arc<Netmap>>>,
    /// The last assertion for the enrolled key.
    pub assertion: watch::Receiver<Option<Arc<str>>>,
    /// State of the connection.
    pub link: watch::Receiver<Link>,
}

/// Prepares an agent: what it knows, and the driver that has to be run for it to learn.
///
/// # Errors
/// Where the roots hold no certificate or the control API's name is none.
pub fn new(options: Options) -> Result<(Agent, Driver), AgentError> {
    Driver::new(options)
}

/// A [`Dial`] over ordinary sockets.
#[must_use]
pub fn dial_direct() -> Dial {
    Arc::new(|to| {
        Box::pin(async move {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    })
}
