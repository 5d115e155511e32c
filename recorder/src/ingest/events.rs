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

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::{
    Door, Ingest, Upload, Version,
    answer::{Answer, NDJSON, acknowledging, announce, empty, text},
};
use line::{EventRefusal, MAX_EVENT, admit};
use writer::Batch;
pub(super) use writer::{Batches, Writer};

impl Ingest {
    /// Answers `POST /v2/event`.
    pub(super) async fn events(
        self: &Arc<Self>,
        door: &Door,
        from: IpAddr,
        request: Request<Incoming>,
    ) -> Response<Answer> {
        if !is_stream(request.headers()) {
            return match self.begin(door, from, request.headers(), Version::One).await {
                Ok(upload) => self.event(upload, request.into_body()).await,
                Err(response) => response,
            };
        }
        match self.begin(door, from, request.headers(), Version::Two).await {
            Ok(upload) => {
                let (acks, response) = acknowledging(self.parts.ack);
                tokio::spawn(stream::Stream::new(self, upload, acks).run(request.into_body()));
                response
            }
            Err(response) => response,
        }
    }

    /// One event.
    async fn event(self: &Arc<Self>, upload: Upload, body: Incoming) -> Response<Answer> {
        let Some(taken) = self.room.take(MAX_EVENT).await else {
            return empty(StatusCode::SERVICE_UNAVAILABLE);
        };
        let body = match Limited::new(body, MAX_EVENT).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return self.unfit(&EventRefusal::TooLong),
            Err(_) => return empty(StatusCode::BAD_REQUEST),
        };
        let admitted = admit(&body, &upload.owner, self.parts.clock.now_unix_millis());
        let events = match admitted {
            Ok(event) => vec![event],
            Err(refusal) => return self.unfit(&refusal),
        };
        let (done, stored) = oneshot::channel();
        // A writer that is gone leaves `stored` unanswered.
        let _ = self.events.send(Batch { events, taken, done }).await;
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
            EventRefusal::Form(_) => StatusCode::BAD_REQUEST,
            EventRefusal::Identity(_) => StatusCode::FORBIDDEN,
        };
        text(status, format!("{refusal}\n"))
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = kind.split(|byte| *byte == b';').next();
    essence.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(NDJSON.as_bytes()))
}
