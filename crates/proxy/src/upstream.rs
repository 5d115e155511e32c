//! Connections to the API server: a pool of HTTP/2 connections for ordinary requests, one HTTP/1.1 connection for
//! each upgrade.
//!
//! A pooled connection serves one credential only: the API server closes a connection over which it refused a
//! credential, and that must touch nobody else. Before the peer's limit of concurrent streams is reached another
//! connection is opened, because the request above it would wait for ever behind watches that never end.

mod connect;
mod connection;
mod form;
mod pool;

pub use connect::ConnectError;
pub use pool::PoolLimits;

use std::{sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use rustls::RootCertStore;
use thiserror::Error;

use crate::{
    Dial,
    body::{Body, full},
    metrics::Metrics,
    target::Target,
};
use connect::Connector;
pub(crate) use connect::Io;
pub(crate) use connection::Slot;
use pool::{Key, Pool};

/// How often a request is sent that never reached the wire, or was not looked at there.
const MAX_ATTEMPTS: usize = 4;
/// How long a connection may take, with its handshakes.
const CONNECT: Duration = Duration::from_secs(10);

/// Requests that share connections with others of their kind: an answer that nobody reads holds back only those
/// whose windows are as small as its own.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Lane {
    /// Answers that end.
    Bulk,
    /// Watches and logs.
    Endless,
}

/// The way to the API server.
#[derive(Clone)]
pub struct Upstream {
    pool: Arc<Pool>,
    connector: Arc<Connector>,
}

/// Why the API server gave no answer.
#[derive(Clone, Debug, Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("cannot connect to the API server")]
    Connect(#[from] Arc<ConnectError>),
    /// More connections than are allowed in all would be needed, and none is idle.
    #[error("all connections of this pod's sidecar to the API server are in use")]
    Full,
    /// More connections than one credential may have would be needed.
    #[error("this credential uses all connections to the API server that one may have")]
    CredentialFull,
    /// The server ended the connection, or refused the stream, before it looked at the request.
    #[error("the API server ended the connection before it looked at the request")]
    Unprocessed(#[source] Arc<hyper::Error>),
    /// The connection broke before an answer came; the request may have been carried out.
    #[error("no answer from the API server")]
    Lost(#[source] Arc<hyper::Error>),
}

impl UpstreamError {
    /// Whether the request certainly had no effect, so that a client may repeat it.
    #[must_use]
    pub const fn is_harmless(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Unprocessed(_)) || self.is_full()
    }

    /// Whether there was no place for a connection.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full | Self::CredentialFull)
    }

    /// What became of a request that was sent. After a 401 the API server ends the connection
    /// (`k8s.io/apiserver/pkg/endpoints/filters/authentication.go`), under whatever is on its way there.
    fn after_sending(error: hyper::Error) -> Self {
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        let unprocessed = cause.is_some_and(|cause| {
            // RFC 9113 §6.8 and §8.7. Streams that were looked at go on to their end, or fail otherwise.
            let is_left = cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR);
            let is_refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
            cause.is_remote() && (is_left || is_refused)
        });
        let error = Arc::new(error);
        if unprocessed { Self::Unprocessed(error) } else { Self::Lost(error) }
    }
}

/// The same request once more, where it has no body that would be gone.
fn copy_of(request: &Request<Body>) -> Option<Request<Body>> {
    let (head, ()) = request.body().is_end_stream().then(|| {
        let mut copy = Request::new(());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        copy.into_parts()
    })?;
    Some(Request::from_parts(head, full("")))
}

impl Upstream {
    /// Dials through `dial` and trusts `roots` alone.
    ///
    /// # Errors
    /// Where the TLS library refuses the configuration.
    pub fn new(
        roots: RootCertStore,
        dial: Arc<dyn Dial>,
        limits: PoolLimits,
        metrics: Metrics,
    ) -> Result<Self, rustls::Error> {
        let connector = Arc::new(Connector::new(roots, dial, metrics)?);
        Ok(Self { pool: Pool::new(Arc::clone(&connector), limits), connector })
    }

    /// Sends an ordinary request, again where the server has not looked at it and it has no body. The slot belongs to
    /// the answer: it is free when the answer has ended.
    ///
    /// # Errors
    /// Where no answer comes.
    pub async fn send(
        &self,
        target: &Arc<Target>,
        credential: [u8; 32],
        lane: Lane,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, Slot), UpstreamError> {
        let key = Key { target: Arc::clone(target), credential, lane };
        for _ in 1..MAX_ATTEMPTS {
            let copy = copy_of(&request);
            match self.attempt(&key, request).await {
                Ok(answered) => return Ok(answered),
                Err((_, Some(unsent))) => request = unsent,
                Err((error, None)) => {
                    let is_unprocessed = matches!(error, UpstreamError::Unprocessed(_));
                    request = copy.filter(|_| is_unprocessed).ok_or(error)?;
                }
            }
        }
        self.attempt(&key, request).await.map_err(|(error, _)| error)
    }

    /// Sends a request over an HTTP/1.1 connection of its own, which may be upgraded.
    ///
    /// # Errors
    /// Where no answer comes.
    pub async fn send_alone(
        &self,
        target: &Target,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut sender = self.connector.connect_alone(target).await.map_err(Arc::new)?;
        let request = form::for_http1(request, target);
        sender.send_request(request).await.map_err(|error| UpstreamError::Lost(Arc::new(error)))
    }

    async fn attempt(
        &self,
        key: &Key,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, Slot), (UpstreamError, Option<Request<Body>>)> {
        let slot = self.pool.reserve(key).await.map_err(|error| (error, None))?;
        match slot.send(request, &key.target).await {
            Ok(response) => {
                if response.status() == StatusCode::UNAUTHORIZED {
                    self.pool.retire(key, &slot);
                }
                Ok((response, slot))
            }
            Err(mut error) => {
                self.pool.retire(key, &slot);
                let unsent = error.take_message();
                Err((UpstreamError::after_sending(error.into_error()), unsent))
            }
        }
    }
}
