//! Answers: bodies that are empty from the start, and the stream of acknowledgements.
//!
//! Invariant: the refusal of a recording has no body, not even an empty one that ends later: the reference client waits
//! for ever on a response that is not 200 and not over with its headers. Of an event's it reads the text.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{Either, Empty, Full};
use podwitness_core::grant::AckLevel;
use podwitness_wire::{ack::Ack, pack};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

/// What a response carries.
pub(super) type Answer = Either<Either<Empty<Bytes>, Full<Bytes>>, AckBody>;

/// Announces what an acknowledgement survives.
const ACK_LEVEL: HeaderName = HeaderName::from_static("podwitness-ack");
/// Announces that uploads may be compressed, and how.
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static(pack::ACCEPT_ENCODING);
/// Announces that streams of API events are taken, and in which form.
const ACCEPT_EVENTS: HeaderName = HeaderName::from_static("podwitness-accept-events");
/// Media type of a stream of events.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// Longest pause between two frames; the protocol asks for 5 s.
const EVERY: Duration = Duration::from_secs(4);
/// Frames that wait for the client to read. Acknowledgements above it are left out: a later one says more.
const FRAMES: usize = 16;
/// How long a last frame waits for a client that reads nothing.
const LAST: Duration = Duration::from_secs(5);
/// Cap on the text of an error, well below that of a frame.
const MAX_TEXT: usize = 1024;

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Either::Left(Empty::new())));
    *response.status_mut() = status;
    response
}

/// A response that is whole.
pub(super) fn text(status: StatusCode, text: String) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Either::Right(Full::from(text))));
    *response.status_mut() = status;
    response
}

/// The response to an upload, its headers sent at once, and the end that feeds it.
pub(super) fn acknowledging(level: AckLevel) -> (Acks, Response<Answer>) {
    let (sender, receiver) = mpsc::channel(FRAMES);
    let mut response = Response::new(Either::Right(AckBody(receiver)));
    announce(&mut response, level);
    (Acks::new(Some(sender)), response)
}

/// States what this recorder does beyond the reference.
pub(super) fn announce<T>(response: &mut Response<T>, level: AckLevel) {
    let headers = response.headers_mut();
    headers.insert(ACK_LEVEL, level_value(level));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(pack::ENCODING));
    headers.insert(ACCEPT_EVENTS, HeaderValue::from_static(NDJSON));
}

const fn level_value(level: AckLevel) -> HeaderValue {
    HeaderValue::from_static(match level {
        AckLevel::Process => "process",
        AckLevel::Volume => "volume",
        AckLevel::Object => "object",
    })
}

/// Tells a client how far its upload is safe.
#[derive(Debug)]
pub(super) struct Acks {
    frames: Option<mpsc::Sender<Bytes>>,
    safe: u64,
    due: Instant,
}

impl Acks {
    fn new(frames: Option<mpsc::Sender<Bytes>>) -> Self {
        Self { frames, safe: 0, due: Instant::now() + EVERY }
    }

    /// For a protocol without acknowledgements.
    pub(super) fn none() -> Self {
        Self::new(None)
    }

    /// When the next frame is due even if nothing new is safe.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// `bytes` of the upload are safe.
    pub(super) fn safe(&mut self, bytes: u64) {
        self.safe = bytes;
        self.repeat();
    }

    /// Says again what is safe, so that the client knows us alive.
    pub(super) fn repeat(&mut self) {
        self.due = Instant::now() + EVERY;
        if let Some(frames) = &self.frames {
            // Full: the client does not read, and what it reads later will say more. Closed: the upload ends too.
            let _ = frames.try_send(Ack::Received(self.safe).to_line().into());
        }
    }

    /// The last frame of an upload that failed.
    pub(super) async fn fail(self, text: &str) {
        let text = text.chars().take(MAX_TEXT / 4).collect();
        if let Some(frames) = self.frames {
            // A client that reads nothing learns it by the end of the response.
            let _ = timeout(LAST, frames.send(Ack::Failed(text).to_line().into())).await;
        }
    }
}

/// The frames as a response body; it ends when its [`Acks`] is dropped.
#[derive(Debug)]
pub(super) struct AckBody(mpsc::Receiver<Bytes>);

impl Body for AckBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}
