//! A connection is busy while a request on it is answered: from the end of its head to the end of the answer's body.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    service::{Service, service_fn},
};

use crate::connection::{BusyGuard, ConnectionHandle};

/// A body that keeps its connection busy until it has been handed on.
#[derive(Debug)]
pub struct TrackedBody<B> {
    body: B,
    _busy: BusyGuard,
}

impl<B> TrackedBody<B> {
    /// `body`, during which the connection is busy.
    pub const fn new(body: B, busy: BusyGuard) -> Self {
        Self { body, _busy: busy }
    }
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// `service` with `connection` busy while it answers. For clients whose requests are worth waiting for: one that
/// sends half a request, or does not read its answer, keeps its connection for as long as the service lets it.
pub fn tracked<S, B>(
    service: S,
    connection: &ConnectionHandle,
) -> impl Service<
    Request<Incoming>,
    Response = Response<TrackedBody<B>>,
    Error = Infallible,
    Future: Send + 'static,
> + Send
+ use<S, B>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send,
    S::Future: Send + 'static,
    B: Body + Send + Unpin + 'static,
{
    let connection = connection.clone();
    service_fn(move |request| {
        let busy = connection.busy();
        let answer = service.call(request);
        async move { Ok(answer.await?.map(|body| TrackedBody::new(body, busy))) }
    })
}
