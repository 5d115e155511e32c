//! Bodies and streams that are counted on their way, and what is looked at of them.
//!
//! Of a request's body as much is kept as [`MAX_JSON`] says, until its end, to name the fields that it touches; all
//! requests together keep at most [`MAX_KEPT`]. Of an answer that failed the Status is read for its reason.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Witness;
use crate::{
    BoxedStream,
    body::{Body, BoxError},
};

/// Longest JSON that is looked into.
const MAX_JSON: usize = 1 << 20;
/// Bytes of all bodies that are kept at a time, of all proxies of the process.
const MAX_KEPT: usize = 16 << 20;
/// How much of an answer is kept to find its reason.
const MAX_STATUS: usize = 16 << 10;

static KEPT: AtomicUsize = AtomicUsize::new(0);

/// What was seen of a request's body.
#[derive(Debug)]
pub(crate) struct Received {
    bytes: AtomicU64,
    /// The body so far, while it may be JSON that is looked into.
    kept: Mutex<Option<Kept>>,
}

/// Bytes that are counted in [`KEPT`].
#[derive(Debug, Default)]
struct Kept(BytesMut);

impl Kept {
    /// Whether there was room.
    fn extend(&mut self, bytes: &[u8]) -> bool {
        let fits = self.0.len().saturating_add(bytes.len()) <= MAX_JSON;
        let room = fits && KEPT.fetch_add(bytes.len(), Ordering::Relaxed) < MAX_KEPT;
        if room {
            self.0.extend_from_slice(bytes);
        } else if fits {
            KEPT.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
        room
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

impl Received {
    /// `looks` into the body.
    pub(super) fn new(looks: bool) -> Self {
        Self { bytes: AtomicU64::new(0), kept: Mutex::new(looks.then(Kept::default)) }
    }

    /// So many bytes came; what they were is of no interest.
    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn add(&self, bytes: &[u8]) {
        self.count(bytes.len());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_mut().is_some_and(|kept| !kept.extend(bytes)) {
            *kept = None;
        }
    }

    /// Bytes that came, and the body where it is JSON that is looked into.
    pub(super) fn take(&self) -> (u64, Option<Value>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let json =
            kept.filter(|kept| !kept.0.is_empty()).and_then(|kept| serde_json::from_slice(&kept.0).ok());
        (self.bytes.load(Ordering::Relaxed), json)
    }
}

/// A request's body that is seen by `received`.
pub(super) fn received(body: Body, received: Arc<Received>) -> Body {
    if body.is_end_stream() {
        return body;
    }
    ReceivedBody { body, received }.boxed_unsync()
}

struct ReceivedBody {
    body: Body,
    received: Arc<Received>,
}

impl HttpBody for ReceivedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.received.add(data);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body that keeps its witness until its end.
pub(super) fn sent(body: Body, mut witness: Witness) -> Body {
    if body.is_end_stream() {
        witness.ended();
        return body;
    }
    let status = witness.failed().then(BytesMut::new);
    SentBody { body, witness: Some(witness), status }.boxed_unsync()
}

struct SentBody {
    body: Body,
    witness: Option<Witness>,
    /// The beginning of an answer that failed.
    status: Option<BytesMut>,
}

impl SentBody {
    fn saw(&mut self, data: &[u8]) {
        if let Some(witness) = &self.witness {
            witness.sent().fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        if let Some(status) = &mut self.status {
            let room = MAX_STATUS.saturating_sub(status.len()).min(data.len());
            status.extend_from_slice(data.get(..room).unwrap_or_default());
        }
    }

    fn is_over(&mut self) {
        let Some(mut witness) = self.witness.take() else { return };
        if let Some(reason) = self.status.take().and_then(|status| reason(&status)) {
            witness.gives_reason(reason);
        }
        witness.ended();
    }
}

impl HttpBody for SentBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.saw(data);
                }
                // Nobody asks a body for more that says that it is over.
                if self.body.is_end_stream() {
                    self.is_over();
                }
            }
            Poll::Ready(None) => self.is_over(),
            Poll::Ready(Some(Err(_))) => {
                if let Some(mut witness) = self.witness.take() {
                    witness.broke_off();
                }
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The reason in a `metav1.Status`.
fn reason(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Status {
        kind: String,
        reason: String,
    }
    let status: Status = serde_json::from_slice(body).ok()?;
    // A word of the API's; a longer text would be something else.
    (status.kind == "Status" && status.reason.len() <= 64).then_some(status.reason)
}

/// A client's stream of which the bytes of both directions are counted.
pub(crate) fn metered(stream: BoxedStream, witness: &Witness) -> BoxedStream {
    Box::new(Metered { stream, received: Arc::clone(witness.received()), sent: Arc::clone(witness.sent()) })
}

struct Metered {
    stream: BoxedStream,
    received: Arc<Received>,
    sent: Arc<AtomicU64>,
}

impl Metered {
    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = polled {
            self.sent.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.received.count(buf.filled().len().saturating_sub(before));
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
