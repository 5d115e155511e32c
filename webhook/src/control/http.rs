//! The control API over HTTPS: three paths, small bodies, and an answer to everything else.
//!
//! Whatever a stranger sends costs him more than us: connections and requests are counted by source before anything
//! is looked at, bodies are capped and have to come in time.

use std::{
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{Body, to_bytes},
    extract::State,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use http_body_util::LengthLimitError;
use hyper_util::service::TowerToHyperService;
use podwitness_core::{
    assertion,
    control::{ENROL, EnrolRequest, EnrolResponse, NETMAP, NOTICE, Notice, NoticeRequest, Taking},
};
use podwitness_runtime::{
    clock::Clock,
    drain,
    http::{Limits, serve_connection},
    tls::listener,
};
use rustls::ServerConfig;
use serde::de::DeserializeOwned;
use tokio::{net::TcpListener, time::timeout};

use super::{
    access::{Access, Caller},
    connections::Connections,
    enrolments::Enrol,
    events::Events,
    feed::Feeds,
    limits::{Buckets, Rate},
    metrics::Metrics,
    refusal::Refusal,
    streams::Streams,
};

/// Connections at a time; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 16_384;
/// Connections of one source; further ones are closed at once. A node that masquerades counts as one.
const MAX_PER_SOURCE: usize = 256;
/// Requests of one source: a node full of pods that start together, then fifty a second.
const SOURCE_RATE: Rate = Rate { burst: 512, every: Duration::from_millis(20) };
/// Sources that are told apart.
const SOURCE_CAP: usize = 16_384;
/// Notices of one pod; there are few kinds, and most are an Event that somebody has to read.
const NOTICE_RATE: Rate = Rate { burst: 8, every: Duration::from_secs(60) };
/// Pods whose notices are told apart.
const NOTICE_CAP: usize = 16_384;
/// In which a connection has to say something: agents keep theirs, over HTTP/2, and say so at once.
const HEAD: Duration = Duration::from_secs(10);
/// An enrolment is a key in JSON, a notice a word.
const MAX_BODY: usize = 4 << 10;
/// In which a body has to come.
const BODY_LIMIT: Duration = Duration::from_secs(5);

/// What answers requests. Clones are the same.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    access: Access,
    enrol: Enrol,
    feeds: Feeds,
    streams: Streams,
    events: Events,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    sources: Mutex<Buckets<IpAddr>>,
    noticed: Mutex<Buckets<String>>,
}

/// What a server needs.
pub struct Parts {
    /// Checks callers.
    pub access: Access,
    /// Enrols them.
    pub enrol: Enrol,
    /// Makes their streams.
    pub feeds: Feeds,
    /// Tells people.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
    /// Says how long a token lives.
    pub clock: Arc<dyn Clock>,
}

#[derive(Clone, Copy)]
struct Peer(IpAddr);

impl Server {
    /// A server.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { access, enrol, feeds, events, metrics, clock } = parts;
        let streams = Streams::new(metrics.streams.clone());
        let sources = Mutex::new(Buckets::new(SOURCE_RATE, SOURCE_CAP));
        let noticed = Mutex::new(Buckets::new(NOTICE_RATE, NOTICE_CAP));
        Self(Arc::new(Inner { access, enrol, feeds, streams, events, metrics, clock, sources, noticed }))
    }

    /// Serves connections until the drain.
    pub async fn serve(self, listener: TcpListener, tls: Arc<ServerConfig>, drain: drain::Watch) {
        let limits =
            Limits { header_timeout: HEAD, max_streams: 16, max_header_bytes: 32 << 10, ..Limits::default() };
        let connections = Connections::new(MAX_PER_SOURCE);
        let during = drain.clone();
        listener::serve(listener, tls, drain, MAX_CONNECTIONS, move |stream, peer| {
            let (router, drain, place) = (self.router(peer), during.clone(), connections.open(peer.ip()));
            async move {
                let Some(_place) = place else { return };
                let served = serve_connection(stream, TowerToHyperService::new(router), &limits, &drain);
                if let Err(error) = served.await {
                    tracing::debug!(%peer, error, "a connection broke");
                }
            }
        })
        .await;
    }

    /// The routes, for requests of `peer`.
    fn router(&self, peer: SocketAddr) -> Router {
        Router::new()
            .route(ENROL, post(enrol))
            .route(NETMAP, get(netmap))
            .route(NOTICE, post(notice))
            .fallback(nothing)
            .method_not_allowed_fallback(nothing)
            .layer(Extension(Peer(peer.ip().to_canonical())))
            .with_state(self.clone())
    }

    async fn caller(&self, Peer(source): Peer, headers: &HeaderMap) -> Result<Caller, Refusal> {
        take(&self.0.sources, source)?;
        self.0.access.caller(headers).await
    }

    async fn enrol(&self, peer: Peer, headers: &HeaderMap, body: Body) -> Result<EnrolResponse, Refusal> {
        let caller = self.caller(peer, headers).await?;
        let request: EnrolRequest = read(body).await?;
        let proof = headers.get(assertion::HEADER).and_then(|value| value.to_str().ok());
        match self.0.enrol.enrol(&caller, &request, proof) {
            Ok((response, claimed)) => {
                if claimed.replaces() {
                    self.0.events.key_replaced(&caller.pod, claimed);
                }
                self.0.metrics.enrolment(&caller.role, claimed);
                Ok(response)
            }
            Err(refusal @ Refusal::Conflict(_)) => {
                self.0.events.key_refused(&caller.pod);
                Err(refusal)
            }
            Err(refusal) => Err(refusal),
        }
    }

    async fn notice(&self, peer: Peer, headers: &HeaderMap, body: Body) -> Result<StatusCode, Refusal> {
        let caller = self.caller(peer, headers).await?;
        let NoticeRequest { notice } = read(body).await?;
        if matches!(notice, Notice::Recorder(_)) && caller.role.recorder().is_none() {
            return Err(Refusal::Forbidden("the pod is no replica of a recorder".to_owned()));
        }
        take(&self.0.noticed, caller.pod.uid().to_owned())?;
        match notice {
            Notice::Recorder(taking) => self.takes(&caller, taking),
            notice => self.0.events.noticed(&caller.pod, notice),
        }
        Ok(StatusCode::NO_CONTENT)
    }

    /// It is in the status of its Recorder soon. Only a change is an Event, and that all is well at first is none.
    fn takes(&self, caller: &Caller, taking: Taking) {
        let Some(before) = self.0.enrol.enrolments.lock().takes(caller.pod.uid(), taking) else { return };
        self.0.enrol.changed.notify_one();
        if before.is_some() || taking != Taking::Accepting {
            self.0.events.noticed(&caller.pod, Notice::Recorder(taking));
        }
    }

    async fn netmap(&self, peer: Peer, headers: &HeaderMap) -> Result<Response, Refusal> {
        let caller = self.caller(peer, headers).await?;
        let uid = caller.pod.uid();
        let key = self.0.enrol.enrolments.key_of(uid).ok_or(NOT_ENROLLED)?;
        let place = self.0.streams.open(uid)?;
        let life = caller.bound.exp.saturating_sub(self.0.clock.now_unix());
        let life = Duration::from_secs(u64::try_from(life).unwrap_or_default());
        let feed = self.0.feeds.open(caller, key, place, life);
        let mut response = Response::new(Body::from_stream(feed.lines()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        self.0.metrics.refusal(&refusal);
        tracing::debug!(reason = refusal.label(), %refusal, "refused");
        refusal.into_response()
    }
}

/// The pod has no key here: after a restart of the control plane, or because it never enrolled.
const NOT_ENROLLED: Refusal = Refusal::Conflict("the pod has not enrolled; POST /v1/enrol first");

async fn enrol(
    State(server): State<Server>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match server.enrol(peer, &headers, body).await {
        Ok(response) => Json(response).into_response(),
        Err(refusal) => server.refuse(refusal),
    }
}

async fn netmap(
    State(server): State<Server>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    server.netmap(peer, &headers).await.unwrap_or_else(|refusal| server.refuse(refusal))
}

async fn notice(
    State(server): State<Server>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match server.notice(peer, &headers, body).await {
        Ok(code) => code.into_response(),
        Err(refusal) => server.refuse(refusal),
    }
}

async fn nothing(State(server): State<Server>) -> Response {
    server.refuse(Refusal::NotFound)
}

/// Takes one from the bucket of `key`.
fn take<K: Eq + Hash>(buckets: &Mutex<Buckets<K>>, key: K) -> Result<(), Refusal> {
    buckets.lock().unwrap_or_else(PoisonError::into_inner).take(key).map_err(Refusal::TooMany)
}

async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let body = timeout(BODY_LIMIT, to_bytes(body, MAX_BODY)).await;
    let body = body.map_err(|_| Refusal::BadRequest("the body does not come in time".to_owned()))?;
    let body = body.map_err(|error| match std::error::Error::source(&error) {
        Some(source) if source.is::<LengthLimitError>() => Refusal::TooLarge(MAX_BODY),
        _ => Refusal::BadRequest("the body broke off".to_owned()),
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| Refusal::BadRequest(format!("the body is not what this path takes: {error}")))
}

#[cfg(test)]
mod tests;
