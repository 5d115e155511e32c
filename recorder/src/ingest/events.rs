//! `/v2/event`: API events, one a request as the reference has it, or a stream of them.
//!
//! `HEAD` says that events are taken, and, by `Podwitness-Accept-Events`, that streams of them are. `POST` with one
//! JSON object is answered 200 and its id once it is durable. `POST` with `application/x-ndjson` is answered at once;
//! the body of the answer are acknowledgements as those of `/v2/record`, which count the bytes of whole lines.
//!
//! A stream is one client's: its events become durable in the order in which they came.

mod line;
mod stream;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::{
    Ingest, RequestPeer, Upload, Version,
    answer::{Answer, NDJSON, acknowledging, announce, empty, text},
    body::BodyReader,
    unfinished::{UnfinishedError, UnfinishedInput},
};
use crate::{peers::Work, store::ShareKey};
use line::{EventRefusal, MAX_EVENT, admit};
use writer::Batch;
pub(super) use writer::{Batches, Writer};

impl Ingest {
    /// Answers `POST /v2/event`.
    pub(super) async fn events(
        self: &Arc<Self>,
        sender: &RequestPeer,
        request: Request<Incoming>,
    ) -> Response<Answer> {
        if !is_stream(request.headers()) {
            return match self.begin(sender, request.headers(), Version::One, Work::Event).await {
                Ok(upload) => self.event(upload, request.into_body()).await,
                Err(response) => response,
            };
        }
        match self.begin(sender, request.headers(), Version::Two, sender.session()).await {
            Ok(upload) => {
                let (acks, response) = acknowledging(self.parts.ack);
                tokio::spawn(stream::Stream::new(self, upload, acks).run(request.into_body()));
                response
            }
            Err(response) => response,
        }
    }

    /// One event.
    async fn event(self: &Arc<Self>, mut upload: Upload, body: Incoming) -> Response<Answer> {
        let body = match gather(body, &mut upload.reader, &mut upload.held).await {
            Ok(body) => body,
            Err(Unread::Long) => return self.unfit(&EventRefusal::TooLong),
            Err(Unread::Unfinished(error)) => {
                self.parts.metrics.refused(error.reason());
                let status = match error {
                    UnfinishedError::Late => StatusCode::REQUEST_TIMEOUT,
                    UnfinishedError::Memory(_) => StatusCode::TOO_MANY_REQUESTS,
                };
                return text(status, format!("{error}\n"));
            }
            Err(Unread::Broken) => return empty(StatusCode::BAD_REQUEST),
        };
        let Some(taken) = upload.waiting.take(body.len()).await else {
            return empty(StatusCode::SERVICE_UNAVAILABLE);
        };
        let admitted = admit(&body, &upload.owner, self.parts.clock.now_unix_millis());
        let events = match admitted {
            Ok(event) => vec![event],
            Err(refusal) => return self.unfit(&refusal),
        };
        let (done, stored) = oneshot::channel();
        // A writer that is gone leaves `stored` unanswered.
        let owner = ShareKey::of(&upload.owner);
        let _ = self.events.send(Batch { owner, events, taken, done }).await;
        match stored.await {
            Ok(Ok(ids)) => {
                let id = serde_json::json!({ "id": ids.first() });
                let mut response = text(StatusCode::OK, format!("{id}\n"));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                announce(&mut response, self.parts.ack);
                response
            }
            Ok(Err(error)) => text(StatusCode::INSUFFICIENT_STORAGE, format!("{error}\n")),
            Err(_) => empty(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    fn unfit(&self, refusal: &EventRefusal) -> Response<Answer> {
        self.parts.metrics.refused("bad_event");
        let status = match refusal {
            EventRefusal::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            EventRefusal::Form(_) | EventRefusal::Depth => StatusCode::BAD_REQUEST,
            EventRefusal::Identity(_) => StatusCode::FORBIDDEN,
        };
        text(status, format!("{refusal}\n"))
    }
}

/// Why the body of an event is not there.
enum Unread {
    Long,
    Unfinished(UnfinishedError),
    Broken,
}

/// The whole body, counted as it comes.
async fn gather(
    mut body: Incoming,
    reader: &mut BodyReader,
    held: &mut UnfinishedInput,
) -> Result<Bytes, Unread> {
    let mut text = Vec::new();
    loop {
        let frame = tokio::select! {
            biased;
            error = held.expired() => return Err(Unread::Unfinished(error)),
            frame = reader.next(&mut body) => frame,
        };
        let Some(frame) = frame else { return Ok(text.into()) };
        let (frame, _memory) = frame.map_err(|_| Unread::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > MAX_EVENT.saturating_sub(text.len()) {
            return Err(Unread::Long);
        }
        text.extend_from_slice(&data);
        held.set(text.capacity(), 0).map_err(Unread::Unfinished)?;
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = kind.split(|byte| *byte == b';').next();
    essence.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(NDJSON.as_bytes()))
}
