//! API events to a recorder that knows nothing of us: one `POST /v2/event` an event over HTTP/1.1, after a `HEAD` that
//! says whether it takes any (`tailscale/tailscale:sessionrecording/connect.go`, `SendEvent`).
//!
//! Such a recorder gets the reference's keys alone, and of each request its first event, as it would from the
//! reference. Only 200 says that it has one.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use podwitness_core::event::{Event, Witness};
use tokio::time::timeout;

use super::{
    connection::{EVENT, assert_with},
    error::UploadError,
    part::End,
};
use crate::{
    BoxedStream,
    journal::{Journal, Next},
};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How much of an answer is read, so that the connection can be used again.
const MAX_ANSWER: usize = 64 << 10;

/// A recorder that takes events.
pub(crate) struct Upload {
    recorder: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    assertion: Option<String>,
}

impl Upload {
    /// Asks the recorder on a new connection whether it takes events.
    pub(super) async fn open(
        stream: BoxedStream,
        recorder: SocketAddr,
        assertion: Option<&str>,
    ) -> Result<Self, UploadError> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(UploadError::Http)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection for events to a recorder ended");
            }
        });
        let mut upload = Self { recorder, sender, assertion: assertion.map(str::to_owned) };
        let head = upload.request(http::Method::HEAD, Bytes::new()).map_err(UploadError::Request)?;
        match upload.ask(head).await?.status() {
            StatusCode::OK => Ok(upload),
            StatusCode::NOT_FOUND => Err(UploadError::NoEvents),
            status => Err(UploadError::Probe(status)),
        }
    }

    /// The recorder.
    pub(super) const fn address(&self) -> SocketAddr {
        self.recorder
    }

    /// Sends what nobody has taken yet, and what comes, until the journal ends.
    pub(super) async fn run(mut self, journal: &Journal) -> Result<End, UploadError> {
        let mut cursor = journal.acked();
        loop {
            match journal.next(cursor).await.map_err(UploadError::Spool)? {
                Next::End => return Ok(End::Complete),
                Next::Discarded => return Ok(End::Discarded),
                Next::Lines(lines) => {
                    for line in lines.split_inclusive(|byte| *byte == b'\n') {
                        if let Some(event) = plain(line) {
                            self.post(event).await?;
                        }
                        cursor += line.len() as u64;
                        journal.ack(cursor);
                    }
                }
            }
        }
    }

    async fn post(&mut self, event: Bytes) -> Result<(), UploadError> {
        let request = self.request(http::Method::POST, event).map_err(UploadError::Request)?;
        let answer = self.ask(request).await?;
        let status = answer.status();
        // Read to its end, or the connection takes no other.
        let read = timeout(ANSWER, Limited::new(answer.into_body(), MAX_ANSWER).collect()).await;
        if status != StatusCode::OK {
            return Err(UploadError::Status(status));
        }
        match read {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(UploadError::Early),
            Err(_) => Err(UploadError::Slow("answer")),
        }
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, UploadError> {
        let asking = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        timeout(ANSWER, asking).await.map_err(|_| UploadError::Slow("answer"))?.map_err(UploadError::Http)
    }

    fn request(&self, method: http::Method, event: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder().method(method).uri(EVENT).body(Full::new(event))?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::try_from(self.recorder.to_string())?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(assertion) = &self.assertion {
            assert_with(&mut request, assertion)?;
        }
        Ok(request)
    }
}

/// An event as the reference has it; `None` for one that the reference would not send.
fn plain(line: &[u8]) -> Option<Bytes> {
    let event: Event = serde_json::from_slice(line).ok()?;
    let Witness { first: true, .. } = event.podwitness else { return None };
    let mut event = serde_json::to_value(event).ok()?;
    event.as_object_mut()?.remove("podwitness");
    let mut text = serde_json::to_vec(&event).ok()?;
    text.push(b'\n');
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_recorder_gets_the_first_event_with_the_keys_it_knows() {
        let mut event = Event::default();
        event.podwitness.first = true;
        event.podwitness.pod = "till".into();
        let text = plain(&event.clone().into_line()).unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.ends_with("}\n") && !text.contains("till") && !text.contains("podwitness"), "{text}");
        event.podwitness.first = false;
        assert_eq!(plain(&event.into_line()), None);
    }
}
