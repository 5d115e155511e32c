//! Bodies whose memory is counted while they pass.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Response, request::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use podwitness_core::status::Status;

use super::{
    Flight, SILENT,
    meter::{Meter, Requested},
};
use crate::{
    body::{Body, BoxError},
    refusal,
};

/// Of each header beside its name and value, in memory and in HTTP/1.1.
const ENTRY: usize = 104;
const SEPARATORS: usize = 4;

/// What a client gets where there is no memory for its request.
pub(crate) fn refused() -> Response<Body> {
    refusal::answer(&Status::unavailable(
        "podwitness: requests and connections of this pod use up the memory of its sidecar",
        1,
    ))
}

/// Bytes of a request's head in memory.
pub(crate) fn request_size(head: &Parts) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    target.saturating_add(headers_size(&head.headers, ENTRY))
}

fn headers_size(headers: &HeaderMap, beside: usize) -> usize {
    headers.iter().fold(0, |sum, (name, value)| {
        sum.saturating_add(beside).saturating_add(name.as_str().len()).saturating_add(value.len())
    })
}

/// A body on its way from the client.
pub(crate) struct FromClient<B> {
    body: B,
    flight: Flight,
}

impl<B> FromClient<B> {
    pub(crate) const fn new(body: B, flight: Flight) -> Self {
        Self { body, flight }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for FromClient<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.flight.waits_to_send(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for FromClient<B> {
    fn drop(&mut self) {
        self.flight.waits_to_send(false);
    }
}

/// An answer on its way to the client.
struct ToClient {
    body: Body,
    flight: Flight,
    meter: Arc<Meter>,
    _requested: Requested,
    /// Bytes that it holds while the API server speaks.
    moving: usize,
    silent: bool,
    /// Bytes that were handed on.
    given: usize,
    ended: bool,
}

/// The answer, of which what is not yet sent is counted. While the API server speaks, it holds `moving` bytes.
pub(crate) fn to_client(
    answer: Response<Body>,
    flight: Flight,
    (meter, requested): (&Arc<Meter>, Requested),
    moving: usize,
) -> Response<Body> {
    let head = headers_size(answer.headers(), SEPARATORS);
    let answer = if meter.given_head(head).is_ok() { answer } else { refused() };
    // Less than before is always had: the request's head is gone.
    let _ = flight.resize(moving);
    let meter = Arc::clone(meter);
    let (silent, given, ended) = (false, 0, false);
    answer.map(|body| {
        ToClient { body, flight, meter, _requested: requested, moving, silent, given, ended }.boxed_unsync()
    })
}

impl ToClient {
    /// What is counted of a frame before it is handed on.
    fn count(&mut self, frame: &Frame<Bytes>) -> Result<(), BoxError> {
        if std::mem::take(&mut self.silent) {
            self.flight.resize(self.moving)?;
        }
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.meter.given(bytes)?;
        self.given = self.given.saturating_add(bytes);
        self.flight.waits_to_read(true);
        Ok(())
    }
}

impl HttpBody for ToClient {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.flight.waits_to_read(false);
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let counted = self.count(&frame);
                Poll::Ready(Some(counted.map(|()| frame)))
            }
            Poll::Pending => {
                if !self.silent {
                    // Less than before is always had.
                    self.silent = self.flight.resize(SILENT.min(self.moving)).is_ok();
                }
                Poll::Pending
            }
            ended => {
                self.ended = true;
                ended
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ToClient {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.meter.cancelled(self.given);
        }
    }
}
