//! The webhook's HTTP side: decodes, asks for a verdict, encodes.
//!
//! Anybody in the cluster may call it; all that a stranger learns is how a pod of theirs would be patched, which holds
//! no secret.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONNECTION, CONTENT_TYPE},
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::post,
};
use kube::core::admission::AdmissionRequest;
use podwitness_core::inject::Inject;
use podwitness_runtime::{
    clock::{Clock as _, SystemClock},
    metrics::SharedRegistry,
    readiness::Readiness,
};
use tokio::time::Instant;

use super::{
    body::{BodyLimiter, MAX_BODY, limit_body},
    decide::Verdict,
    events::Events,
    labelled,
    metrics::Metrics,
    refusal::Refusal,
    review::{self, Object},
    world::World,
};

/// What a path is asked about.
#[derive(Clone, Copy)]
enum What {
    /// A pod; with the mode of the webhook entry.
    Pod(Option<Inject>),
    Namespace,
    /// Pods, and what makes pods, with keys that may have no effect.
    Keys,
    Grant,
}

#[derive(Clone)]
struct Shared {
    world: Arc<World>,
    metrics: Metrics,
    events: Events,
}

/// `POST /mutate/required`, `/mutate/optional`: what the webhook entry is for; `/mutate`: what the namespace's label
/// says; `POST /namespaces` for namespaces themselves, `/keys` for pods and workloads with keys of ours, `/grants` for
/// grants: these three only warn.
pub(super) fn router(
    world: Arc<World>,
    events: Events,
    registry: &SharedRegistry,
    readiness: Readiness,
) -> Router {
    let shared = Shared { world, metrics: Metrics::register(registry), events };
    let bodies = BodyLimiter::register(registry);
    Router::new()
        .route("/mutate", post(by_label))
        .route("/mutate/{mode}", post(by_entry))
        .route("/namespaces", post(namespaces))
        .route("/keys", post(keys))
        .route("/grants", post(grants))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(bodies, limit_body))
        .layer(from_fn_with_state(readiness, last_unless_ready))
        .with_state(shared)
}

/// What a replica answers while it is not ready is the last on its connection: a review on the next one goes to a replica
/// that is, and none is on its way when this one ends.
async fn last_unless_ready(State(readiness): State<Readiness>, request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    if !readiness.is_ready() {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

async fn by_label(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    shared.review(What::Pod(None), &headers, &body).await
}

async fn namespaces(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    shared.review(What::Namespace, &headers, &body).await
}

async fn keys(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    shared.review(What::Keys, &headers, &body).await
}

async fn grants(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    shared.review(What::Grant, &headers, &body).await
}

async fn by_entry(
    State(shared): State<Shared>,
    Path(mode): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match Inject::parse(&mode) {
        Some(mode) => shared.review(What::Pod(Some(mode)), &headers, &body).await,
        None => (StatusCode::NOT_FOUND, "the entries are required and optional\n").into_response(),
    }
}

impl Shared {
    async fn review(&self, what: What, headers: &HeaderMap, body: &[u8]) -> Response {
        let begun = Instant::now();
        if !is_json(headers) {
            self.metrics.malformed();
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json\n").into_response();
        }
        let request = match review::read(body) {
            Ok(request) => request,
            Err(error) => {
                self.metrics.malformed();
                return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response();
            }
        };
        let verdict = match what {
            What::Pod(mode) => review::judge(&request, mode, &self.world).await,
            What::Namespace => labelled::judge(&request, &self.world, SystemClock.now_unix()).await,
            What::Keys => super::keys::judge(&request),
            What::Grant => super::grants::judge(&request, &self.world),
        };
        let namespace = request.namespace.as_deref().unwrap_or_default();
        log(&verdict, namespace, &request.name, request.dry_run);
        if let (Verdict::LetThrough(refusal), false) = (&verdict, request.dry_run) {
            self.say(namespace, &request, refusal).await;
        }
        let answer = Json(review::answer(&request, &verdict)).into_response();
        self.metrics.judged(&verdict, begun.elapsed());
        answer
    }
}

impl Shared {
    /// A pod is let through. Who calls this may be anybody, so the namespace has to be one that is labelled so.
    async fn say(&self, name: &str, request: &AdmissionRequest<Object>, refusal: &Refusal) {
        let Some(object) = &request.object else { return };
        let namespace = self.world.namespace(name).await;
        if namespace.is_ok_and(|namespace| namespace.inject() == Some(Inject::Optional)) {
            self.events.let_through(name, &object.value, refusal);
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = media_type.split(|byte| *byte == b';').next();
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(b"application/json"))
}

fn log(verdict: &Verdict, namespace: &str, name: &str, dry_run: bool) {
    let (decision, reason) = (verdict.as_str(), verdict.reason());
    match verdict {
        Verdict::Refused(refusal) | Verdict::LetThrough(refusal) => {
            tracing::info!(namespace, name, dry_run, decision, reason, message = %refusal, "review");
        }
        _ => tracing::debug!(namespace, name, dry_run, decision, reason, "review"),
    }
}

#[cfg(test)]
mod tests;
