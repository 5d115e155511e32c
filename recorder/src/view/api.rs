//! `GET /api/v1/sessions` and `GET /api/v1/sessions/{id}/cast`.
//!
//! Who may ask is decided by who reaches the pod's loopback: `kubectl port-forward`, that is the cluster's own
//! authorisation. A page in the auditor's browser reaches it too while a port is forwarded, so that a request has to
//! name a loopback host, and no other origin can read an answer.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{
    Catalogue,
    cast::Joined,
    catalogue::Page,
    session::{Filter, Summary},
};

mod range;

use range::Wanted;

/// Sessions of a page unless asked otherwise, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
const CAST: &str = "application/x-asciicast";

/// The query of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    namespace: Option<String>,
    pod: Option<String>,
    user: Option<String>,
    since: Option<i64>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct List {
    sessions: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    truncated: bool,
}

/// What went wrong, as JSON.
struct Failure(StatusCode, String);

/// The API over a catalogue.
pub fn router(catalogue: Arc<Catalogue>) -> Router {
    Router::new()
        .route("/api/v1/sessions", get(list))
        .route("/api/v1/sessions/{id}/cast", get(cast))
        .fallback(async || Failure(StatusCode::NOT_FOUND, "there is nothing here".to_owned()))
        .layer(middleware::from_fn(loopback_host))
        .with_state(catalogue)
}

async fn list(
    State(catalogue): State<Arc<Catalogue>>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<List>, Failure> {
    let Query(query) = query.map_err(|bad| Failure(StatusCode::BAD_REQUEST, bad.body_text()))?;
    let limit = query.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let filter = Filter { namespace: query.namespace, pod: query.pod, user: query.user, since: query.since };
    let page = blocking(move || catalogue.page(&filter, query.after.as_deref(), limit)).await?;
    let Page { sessions, next, truncated } = page;
    Ok(Json(List { sessions, next, truncated }))
}

async fn cast(
    State(catalogue): State<Arc<Catalogue>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let joined = blocking(move || catalogue.cast(&id)).await?;
    let joined =
        joined.ok_or_else(|| Failure(StatusCode::NOT_FOUND, "there is no such session".to_owned()))?;
    let length = joined.length();
    let (status, bytes) = match range::wanted(&headers, length) {
        Wanted::All => (StatusCode::OK, 0..length),
        Wanted::Part(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Wanted::Nothing => return Ok(unsatisfiable(length)),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CAST));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, bytes.end.saturating_sub(bytes.start).into());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = bytes.end.saturating_sub(1);
        let range = format!("bytes {}-{last}/{length}", bytes.start);
        headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(range).map_err(internal)?);
    }
    *response.body_mut() = body(joined, bytes.start, bytes.end);
    Ok(response)
}

/// Reads as fast as the client does, a chunk at a time.
fn body(joined: Joined, start: u64, end: u64) -> Body {
    Body::from_stream(stream::try_unfold((joined, start), move |(mut joined, at)| async move {
        if at >= end {
            return Ok::<_, io::Error>(None);
        }
        let (joined, read) = spawn_blocking(move || {
            let read = joined.read(at);
            (joined, read)
        })
        .await
        .map_err(io::Error::other)?;
        let mut bytes: Bytes = read?;
        if bytes.is_empty() {
            return Ok(None);
        }
        bytes.truncate(usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX));
        let next = at.saturating_add(bytes.len() as u64);
        Ok(Some((bytes, (joined, next))))
    }))
}

fn unsatisfiable(length: u64) -> Response {
    let mut response = Failure(StatusCode::RANGE_NOT_SATISFIABLE, "no such range".to_owned()).into_response();
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{length}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

/// Refuses requests that name another host: a page whose name was made to point at loopback (DNS rebinding).
async fn loopback_host(request: Request, next: Next) -> Response {
    let host = request.uri().host().or_else(|| host_of(request.headers()));
    let known = host.is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    });
    if !known {
        let message = "the viewer answers to localhost only; use kubectl port-forward".to_owned();
        return Failure(StatusCode::FORBIDDEN, message).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn host_of(headers: &HeaderMap) -> Option<&str> {
    let authority = headers.get(header::HOST)?.to_str().ok()?;
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(host),
        _ => Some(authority),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(internal)?.map_err(internal)
}

fn internal(error: impl std::fmt::Display) -> Failure {
    tracing::warn!(%error, "a request failed");
    Failure(StatusCode::INTERNAL_SERVER_ERROR, "the store cannot be read".to_owned())
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

#[cfg(test)]
mod tests;
