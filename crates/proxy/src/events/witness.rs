//! The witness of one request: from before it goes upstream until its answer has ended.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http::{HeaderMap, Response, StatusCode, header::CONTENT_TYPE};
use podwitness_core::{
    event::{Answered, Event, Sent, Stage, touched},
    status::Status,
};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::time::{Duration, Instant};
use ulid::Ulid;

use super::{Addressee, Events, body, recorded, text};
use crate::body::Body;

/// What an answer is expected to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Opens {
    /// Something that ends by itself.
    Answer,
    /// A watch, a log stream or a session.
    Stream,
}

/// What is counted of events.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    written: Counter,
    dropped: Counter,
    refused: Counter,
}

/// Sees a request through. Dropped, it writes the request's last event.
pub(crate) struct Witness {
    events: Events,
    addressee: Addressee,
    id: Ulid,
    event: Event,
    opens: Opens,
    began: Instant,
    received: Arc<body::Received>,
    sent: Arc<AtomicU64>,
    content_type: String,
    answer: Option<Answered>,
    /// Said of an answer that did not come to its end.
    reason: &'static str,
}

impl Counters {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let counters = Self::default();
        let Self { written, dropped, refused } = counters.clone();
        let registry = registry.sub_registry_with_prefix("podwitness_events");
        registry.register("written", "API events on their way to a recorder", written);
        registry.register("dropped", "API events that found no room", dropped);
        registry.register("refused", "Requests refused because their event could not be recorded", refused);
        counters
    }

    pub(super) fn written(&self) {
        self.written.inc();
    }

    pub(super) fn dropped(&self) {
        self.dropped.inc();
    }
}

impl Witness {
    pub(super) fn new(
        events: Events,
        addressee: Addressee,
        id: Ulid,
        event: Event,
        opens: Opens,
        headers: &HeaderMap,
    ) -> Self {
        let content_type = media_type(headers);
        let looks = matches!(event.kubernetes.verb.as_str(), "create" | "update" | "patch")
            && event.kubernetes.is_resource_request;
        Self {
            events,
            addressee,
            id,
            event,
            opens,
            began: Instant::now(),
            received: Arc::new(body::Received::new(looks)),
            sent: Arc::default(),
            content_type,
            answer: None,
            reason: "client-left",
        }
    }

    /// Id of the event, which is that of the session that the request opens.
    pub(crate) const fn id(&self) -> Ulid {
        self.id
    }

    /// The request opens a session of which there is a recording.
    pub(crate) fn opens_session(&mut self) {
        self.event.podwitness.session = self.id.to_string();
    }

    /// Writes the first event and waits for it, where the policy wants it recorded before the request goes on.
    pub(super) async fn required(&mut self) -> Result<(), Status> {
        let Addressee::Known(obligation) = self.addressee.clone() else { return Ok(()) };
        if !obligation.enforce {
            return Ok(());
        }
        let standing = self.write(Stage::Requested);
        let recorded = recorded(&obligation, standing).await;
        if let Err(status) = &recorded {
            self.events.0.counters.refused.inc();
            self.refused(status);
        }
        recorded
    }

    /// The request was answered by us.
    pub(crate) fn refused(&mut self, status: &Status) {
        let (code, reason) = (status.code, status.reason.clone());
        self.answer = Some(Answered { code, reason, latency: self.elapsed(), ..Answered::default() });
    }

    /// The body of the request, seen on its way.
    pub(crate) fn sees(&self, body: Body) -> Body {
        body::received(body, Arc::clone(&self.received))
    }

    /// The answer, seen to its end.
    pub(crate) fn answered(mut self, answer: Response<Body>) -> Response<Body> {
        self.head(answer.status(), answer.headers());
        answer.map(|body| body::sent(body, self))
    }

    /// The head of the answer came.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.answer = Some(Answered {
            code: status.as_u16(),
            latency: self.elapsed(),
            content_type: media_type(headers),
            ..Answered::default()
        });
        let begins = status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS;
        if self.opens == Opens::Stream && begins && self.is_first() {
            self.write(Stage::Started);
        }
    }

    /// Whether the answer says what went wrong.
    pub(super) fn failed(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.code >= 400)
    }

    /// What went wrong, in the answer's own word.
    pub(super) fn gives_reason(&mut self, reason: String) {
        if let Some(answer) = &mut self.answer {
            answer.reason = reason;
        }
    }

    /// The answer has come to its end.
    pub(crate) const fn ended(&mut self) {
        self.reason = "";
    }

    /// The API server broke off its answer.
    pub(super) const fn broke_off(&mut self) {
        self.reason = "server-left";
    }

    /// Counts what the client gets.
    pub(crate) fn sent(&self) -> &Arc<AtomicU64> {
        &self.sent
    }

    /// Counts what the client sends.
    pub(crate) fn received(&self) -> &Arc<body::Received> {
        &self.received
    }

    fn is_first(&self) -> bool {
        !self.event.podwitness.first
    }

    fn elapsed(&self) -> u64 {
        millis(self.began.elapsed())
    }

    fn write(&mut self, stage: Stage) -> Option<super::lanes::Standing> {
        // In the template, the flag says that there was a first one.
        let first = self.is_first();
        self.event.podwitness.first = true;
        let mut event = self.event.clone();
        event.podwitness.first = first;
        event.podwitness.stage = stage;
        event.podwitness.answer.clone_from(&self.answer);
        self.events.write(&self.addressee, event)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let duration = self.elapsed();
        let answer = self.answer.get_or_insert_with(Answered::default);
        answer.duration = duration;
        answer.bytes = self.sent.load(Ordering::Relaxed);
        if answer.reason.is_empty() {
            self.reason.clone_into(&mut answer.reason);
        }
        let (bytes, json) = self.received.take();
        if bytes > 0 || !self.content_type.is_empty() {
            self.event.podwitness.body = Some(Sent {
                content_type: std::mem::take(&mut self.content_type),
                bytes,
                touched: json.as_ref().map(touched).unwrap_or_default(),
            });
        }
        self.write(Stage::Complete);
    }
}

/// What stands behind the type may be any text, and is not kept.
fn media_type(headers: &HeaderMap) -> String {
    text(headers, &CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
