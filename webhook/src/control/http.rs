//! The control API over HTTPS: four paths, small bodies, and an answer to everything else.
//!
//! A connection counts to the address it comes from until it shows a token whose signature holds, and to the token's pod
//! from then on. All containers of a pod have one address, so that connections without a token are limited in number and
//! time and give way to newer ones: the other containers do not keep the sidecar out. Bodies are capped and have to come
//! in time, and are read only where there is a token.

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
    control::{
        CERTIFICATE, CertificateRequest, CertificateResponse, ENROL, EnrolRequest, EnrolResponse,
        MAX_CERTIFICATE_REQUEST, NETMAP, NOTICE, Notice, NoticeRequest, Taking,
    },
};
use podwitness_runtime::{
    clock::Clock,
    connection::{BusyGuard, ConnectionHandle, ConnectionLimiter},
    drain,
    http::{Limits, TrackedBody, serve_connection},
    quota::{Quota, QuotaKey, QuotaLimits},
    tls::listener,
};
use rustls::ServerConfig;
use serde::de::DeserializeOwned;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

use super::{
    access::{Access, Caller},
    certificates::Certificates,
    enrolments::Enrol,
    events::Events,
    feed::Feeds,
    limits::{Buckets, Rate},
    metrics::Metrics,
    refusal::Refusal,
    streams::Streams,
};

/// Connections that have shown no token yet, in all and from one source. A node that masquerades counts as one, and its
/// pods may start together.
pub const UNAUTHENTICATED: QuotaLimits = QuotaLimits { total: 1024, per_key: 128 };
/// Connections of pods, in all and of one pod: an agent has one, and for a moment another.
const PODS: QuotaLimits = QuotaLimits { total: 16_384, per_key: 4 };
/// Until a pod with too many connections may try again.
const TOO_MANY: Duration = Duration::from_secs(5);
/// Requests of one source that show no token which holds: a mistake of a node full of pods, then fifty a second.
const SOURCE_RATE: Rate = Rate { burst: 512, every: Duration::from_millis(20) };
/// Sources that are told apart.
const SOURCE_CAP: usize = 16_384;
/// Notices of one pod; there are few kinds, and most are an Event that somebody has to read.
const NOTICE_RATE: Rate = Rate { burst: 8, every: Duration::from_secs(60) };
/// Pods whose notices are told apart.
const NOTICE_CAP: usize = 16_384;
/// Certificates of one pod: a start, a few attempts, and then one a minute.
const CERTIFICATE_RATE: Rate = Rate { burst: 4, every: Duration::from_secs(60) };
/// Pods whose certificates are told apart.
const CERTIFICATE_CAP: usize = 16_384;
/// In which a connection has to say something, and to show a token: agents do so at once.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection without a request is kept; that of an agent has its stream. It is over HTTP/2, where nothing is
/// lost when it ends.
const IDLE: Duration = Duration::from_secs(30);
/// An enrolment is a key in JSON, a notice a word.
const MAX_BODY: usize = 4 << 10;
/// A certificate request is base64, in JSON.
const MAX_REQUEST_BODY: usize = MAX_CERTIFICATE_REQUEST / 3 * 4 + 256;
/// In which a body has to come.
const BODY_LIMIT: Duration = Duration::from_secs(5);

/// What answers requests. Clones are the same.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    access: Access,
    enrol: Enrol,
    feeds: Feeds,
    certificates: Option<Certificates>,
    streams: Streams,
    events: Events,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    pods: Quota,
    sources: Mutex<Buckets<IpAddr>>,
    noticed: Mutex<Buckets<String>>,
    certified: Mutex<Buckets<String>>,
}

/// What a server needs.
pub struct Parts {
    /// Checks callers.
    pub access: Access,
    /// Enrols them.
    pub enrol: Enrol,
    /// Makes their streams.
    pub feeds: Feeds,
    /// Gets certificates of the cluster's CA, where the installation may.
    pub certificates: Option<Certificates>,
    /// Tells people.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
    /// Says how long a token lives.
    pub clock: Arc<dyn Clock>,
}

/// Who sends a request.
#[derive(Clone)]
struct Peer {
    source: IpAddr,
    connection: ConnectionHandle,
}

impl Server {
    /// A server.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { access, enrol, feeds, certificates, events, metrics, clock } = parts;
        let streams = Streams::new(metrics.streams.clone());
        let sources = Mutex::new(Buckets::new(SOURCE_RATE, SOURCE_CAP));
        let noticed = Mutex::new(Buckets::new(NOTICE_RATE, NOTICE_CAP));
        let certified = Mutex::new(Buckets::new(CERTIFICATE_RATE, CERTIFICATE_CAP));
        let pods = Quota::new(PODS, metrics.pods.clone());
        Self(Arc::new(Inner {
            access,
            enrol,
            feeds,
            certificates,
            streams,
            events,
            metrics,
            clock,
            pods,
            sources,
            noticed,
            certified,
        }))
    }

    /// Serves connections that `limiter` admits until the drain.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        limiter: ConnectionLimiter,
        drain: drain::Watch,
    ) {
        let during = drain.clone();
        listener::serve(listener, tls, drain, limiter, move |stream, peer, connection| {
            let (router, drain) = (self.router(peer, connection.clone()), during.clone());
            async move {
                let (service, limits) = (TowerToHyperService::new(router), limits());
                tokio::select! {
                    served = serve_connection(stream, service, &limits, &drain, &connection) => {
                        if let Err(error) = served {
                            tracing::debug!(%peer, error, "a connection broke");
                        }
                    }
                    () = unauthenticated_deadline(&connection) => tracing::debug!(%peer, "a connection shows no token in time"),
                }
            }
        })
        .await;
    }

    /// The routes, for requests of `peer`.
    fn router(&self, peer: SocketAddr, connection: ConnectionHandle) -> Router {
        let peer = Peer { source: peer.ip().to_canonical(), connection };
        Router::new()
            .route(ENROL, post(enrol))
            .route(NETMAP, get(netmap))
            .route(NOTICE, post(notice))
            .route(CERTIFICATE, post(certificate))
            .fallback(nothing)
            .method_not_allowed_fallback(nothing)
            .layer(Extension(peer))
            .with_state(self.clone())
    }

    /// The caller of a request. Its connection counts to its pod from then on, and is busy while it is answered.
    async fn caller(&self, peer: &Peer, headers: &HeaderMap) -> Result<(Caller, BusyGuard), Refusal> {
        let token = match self.0.access.verify(headers).await {
            Ok(token) => token,
            Err(refusal) => {
                // Only requests without a token are slowed by the rate of their address.
                take(&self.0.sources, peer.source)?;
                return Err(refusal);
            }
        };
        let pod = QuotaKey::Name(token.pod_uid().into());
        peer.connection.authenticate(&self.0.pods, pod).map_err(|_| Refusal::TooMany(TOO_MANY))?;
        let busy = peer.connection.busy();
        Ok((self.0.access.confirm(token).await?, busy))
    }

    async fn enrol(&self, peer: &Peer, headers: &HeaderMap, body: Body) -> Result<EnrolResponse, Refusal> {
        let (caller, _busy) = self.caller(peer, headers).await?;
        let request: EnrolRequest = read(body, MAX_BODY).await?;
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

    async fn notice(&self, peer: &Peer, headers: &HeaderMap, body: Body) -> Result<StatusCode, Refusal> {
        let (caller, _busy) = self.caller(peer, headers).await?;
        let NoticeRequest { notice } = read(body, MAX_BODY).await?;
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

    async fn netmap(&self, peer: &Peer, headers: &HeaderMap) -> Result<Response, Refusal> {
        let (caller, busy) = self.caller(peer, headers).await?;
        let uid = caller.pod.uid();
        let key = self.0.enrol.enrolments.key_of(uid).ok_or(NOT_ENROLLED)?;
        let place = self.0.streams.open(uid)?;
        let life = caller.bound.exp.saturating_sub(self.0.clock.now_unix());
        let life = Duration::from_secs(u64::try_from(life).unwrap_or_default());
        let feed = self.0.feeds.open(caller, key, place, life);
        let lines = TrackedBody::new(Body::from_stream(feed.lines()), busy);
        let mut response = Response::new(Body::new(lines));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// A certificate of the cluster's CA for a sidecar, for the names that its netmap has.
    async fn certificate(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<CertificateResponse, Refusal> {
        let (caller, _busy) = self.caller(peer, headers).await?;
        let certificates = self.0.certificates.as_ref().ok_or(Refusal::NotFound)?;
        let names = self.0.feeds.serving(&caller).ok_or(NO_CERTIFICATE)?;
        take(&self.0.certified, caller.pod.uid().to_owned())?;
        let request: CertificateRequest = read(body, MAX_REQUEST_BODY).await?;
        let outcome = certificates.get(caller.pod.uid(), &request, &names).await;
        self.0.metrics.certificate(outcome.as_ref().err());
        outcome.map_err(|error| {
            tracing::warn!(
                namespace = caller.pod.namespace(),
                pod = caller.pod.name(),
                reason = error.label(),
                error = &error as &dyn std::error::Error,
                "a sidecar gets no certificate of the cluster's CA"
            );
            self.0.events.no_certificate(&caller.pod, &error);
            error.into()
        })
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        self.0.metrics.refusal(&refusal);
        tracing::debug!(reason = refusal.label(), %refusal, "refused");
        refusal.into_response()
    }
}

fn limits() -> Limits {
    let idle = Some(IDLE);
    Limits { header_timeout: HEAD, idle, max_streams: 16, max_header_bytes: 32 << 10, ..Limits::default() }
}

/// Completes where a connection has shown no token within its time.
async fn unauthenticated_deadline(connection: &ConnectionHandle) {
    sleep(HEAD).await;
    if connection.is_authenticated() {
        std::future::pending::<()>().await;
    }
}

/// The pod has no key here: after a restart of the control plane, or because it never enrolled.
const NOT_ENROLLED: Refusal = Refusal::Conflict("the pod has not enrolled; POST /v1/enrol first");

/// The same to a pod that may have no certificate and to one that asks before the names are known.
const NO_CERTIFICATE: Refusal =
    Refusal::Conflict("the pod may have no certificate of the cluster's CA; its netmap would name one");

async fn enrol(
    State(server): State<Server>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match server.enrol(&peer, &headers, body).await {
        Ok(response) => Json(response).into_response(),
        Err(refusal) => server.refuse(refusal),
    }
}

async fn netmap(
    State(server): State<Server>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    server.netmap(&peer, &headers).await.unwrap_or_else(|refusal| server.refuse(refusal))
}

async fn notice(
    State(server): State<Server>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match server.notice(&peer, &headers, body).await {
        Ok(code) => code.into_response(),
        Err(refusal) => server.refuse(refusal),
    }
}

async fn certificate(
    State(server): State<Server>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match server.certificate(&peer, &headers, body).await {
        Ok(response) => Json(response).into_response(),
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

/// A body of at most `cap` bytes.
async fn read<T: DeserializeOwned>(body: Body, cap: usize) -> Result<T, Refusal> {
    let body = timeout(BODY_LIMIT, to_bytes(body, cap)).await;
    let body = body.map_err(|_| Refusal::BadRequest("the body does not come in time".to_owned()))?;
    let body = body.map_err(|error| match std::error::Error::source(&error) {
        Some(source) if source.is::<LengthLimitError>() => Refusal::TooLarge(cap),
        _ => Refusal::BadRequest("the body broke off".to_owned()),
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| Refusal::BadRequest(format!("the body is not what this path takes: {error}")))
}

#[cfg(test)]
mod tests;
