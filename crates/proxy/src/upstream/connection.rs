//! One pooled connection and the slots that requests take on it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};

use tokio::time::Instant;

use super::form;
use crate::{body::Body, target::Target};

/// A connection, shared by the requests on it.
pub(super) struct Connection {
    sender: Sender,
    /// Requests at a time, as the peer allows it now.
    limit: Arc<AtomicUsize>,
    in_flight: AtomicUsize,
    /// Requests ever; tells whether the connection was idle.
    served: AtomicU64,
    /// When a request on it has last ended.
    used: Mutex<Instant>,
    retired: AtomicBool,
}

enum Sender {
    Http1(Mutex<http1::SendRequest<Body>>),
    Http2(http2::SendRequest<Body>),
}

/// A place for one request on a connection, free when dropped.
pub(crate) struct Slot(Arc<Connection>);

impl Connection {
    pub(super) fn http1(sender: http1::SendRequest<Body>) -> Self {
        Self::new(Sender::Http1(Mutex::new(sender)), Arc::new(AtomicUsize::new(1)))
    }

    pub(super) fn http2(sender: http2::SendRequest<Body>, limit: Arc<AtomicUsize>) -> Self {
        Self::new(Sender::Http2(sender), limit)
    }

    fn new(sender: Sender, limit: Arc<AtomicUsize>) -> Self {
        Self {
            sender,
            limit,
            in_flight: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            used: Mutex::new(Instant::now()),
            retired: AtomicBool::new(false),
        }
    }

    /// Takes a slot if there is one. The pool's lock is held, so that nobody else takes one meanwhile.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Slot> {
        let free = self.in_flight.load(Ordering::Acquire) < self.limit.load(Ordering::Acquire);
        (free && self.is_usable()).then(|| Slot::first(self))
    }

    /// Takes no further request; those on it are not touched.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether nothing more can be sent on it.
    pub(super) fn is_dead(&self) -> bool {
        self.retired.load(Ordering::Acquire)
            || match &self.sender {
                Sender::Http1(sender) => sender.lock().unwrap_or_else(PoisonError::into_inner).is_closed(),
                Sender::Http2(sender) => sender.is_closed(),
            }
    }

    /// The number of requests ever served, if none is in flight.
    pub(super) fn idle_mark(&self) -> Option<u64> {
        (self.in_flight.load(Ordering::Acquire) == 0).then(|| self.served.load(Ordering::Relaxed))
    }

    /// Since when no request is on it. The pool's lock is held, so that none comes meanwhile.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let used = || *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        (self.in_flight.load(Ordering::Acquire) == 0).then(used)
    }

    fn is_usable(&self) -> bool {
        !self.retired.load(Ordering::Acquire)
            && match &self.sender {
                Sender::Http1(sender) => sender.lock().unwrap_or_else(PoisonError::into_inner).is_ready(),
                Sender::Http2(sender) => sender.is_ready(),
            }
    }
}

impl Slot {
    /// Takes a slot without asking: for the request for which the connection was opened.
    pub(super) fn first(connection: &Arc<Connection>) -> Self {
        connection.in_flight.fetch_add(1, Ordering::AcqRel);
        connection.served.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connection))
    }

    /// Sends a request on this slot. The error gives back a request that never reached the wire.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
        target: &Target,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match &self.0.sender {
            Sender::Http1(sender) => {
                let request = form::for_http1(request, target);
                let sent = sender.lock().unwrap_or_else(PoisonError::into_inner).try_send_request(request);
                sent.await
            }
            Sender::Http2(sender) => sender.clone().try_send_request(form::for_http2(request, target)).await,
        }
    }

    pub(super) const fn connection(&self) -> &Arc<Connection> {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
