//! `GET /api/v1/sessions`, `GET /api/v1/sessions/{id}/cast`, `GET /api/v1/events`, `GET /api/v1/events/{file}`.
//!
//! Who may ask is decided by who reaches the pod's loopback: `kubectl port-forward`, that is the cluster's own
//! authorisation. A page in the auditor's browser reaches it too while a port is forwarded, so that a request has to
//! name a loopback host, and no other origin can read an answer.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{
    Catalogue, EventTable,
    bucket_index::BucketStatus,
    catalogue::{Lookup, MAX_LISTED, Page},
    events::{EventFile, Files},
    session::{Filter, Summary},
};

mod played;
mod range;
mod ranged;

/// Sessions of a page unless asked otherwise, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
const CAST: &str = "application/x-asciicast";
/// RFC 8878 §7.1.
const ZSTD: &str = "application/zstd";

/// The query of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    session: Option<String>,
    namespace: Option<String>,
    pod: Option<String>,
    user: Option<String>,
    #[serde(rename = "authenticatedUser")]
    authenticated_user: Option<String>,
    since: Option<i64>,
    after: Option<String>,
    limit: Option<usize>,
}

/// The query of a recording.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CastQuery {
    /// The bytes as they were stored; the value says nothing.
    raw: Option<String>,
}

#[derive(Serialize)]
struct List {
    sessions: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Whether older sessions are left out. They open by their id.
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bucket: Option<BucketStatus>,
    /// What is to be known of it, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// The query of a listing of files of events.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    date: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct EventList {
    files: Vec<EventFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// What went wrong, as JSON.
struct Failure(StatusCode, String);

/// What the API is over.
#[derive(Clone)]
struct Views {
    catalogue: Arc<Catalogue>,
    events: EventTable,
}

/// The API over a catalogue and a table of events.
pub fn router(catalogue: Arc<Catalogue>, events: EventTable) -> Router {
    Router::new()
        .route("/api/v1/sessions", get(list))
        .route("/api/v1/sessions/{id}/cast", get(cast))
        .route("/api/v1/events", get(list_events))
        .route("/api/v1/events/{*path}", get(event_file))
        .fallback(async || {
            Failure(StatusCode::NOT_FOUND, "not found; see /api/v1/sessions and /api/v1/events".to_owned())
        })
        .layer(middleware::from_fn(loopback_host))
        .with_state(Views { catalogue, events })
}

async fn list(
    State(Views { catalogue, .. }): State<Views>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<List>, Failure> {
    let Query(query) = query.map_err(|bad| Failure(StatusCode::BAD_REQUEST, bad.body_text()))?;
    let limit = query.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let filter = Filter {
        session: query.session,
        namespace: query.namespace,
        pod: query.pod,
        user: query.user,
        authenticated_user: query.authenticated_user,
        since: query.since,
    };
    let page = blocking(move || catalogue.page(&filter, query.after.as_deref(), limit)).await?;
    let Page { sessions, next, truncated, bucket } = page;
    let warnings = warnings(truncated, bucket.as_ref());
    Ok(Json(List { sessions, next, truncated, bucket, warnings }))
}

fn warnings(truncated: bool, bucket: Option<&BucketStatus>) -> Vec<String> {
    let mut warnings = Vec::new();
    if truncated {
        warnings.push(format!(
            "only the newest {MAX_LISTED} parts of recordings are listed; older ones open by the id of their session"
        ));
    }
    if let Some(BucketStatus { stale: true, error, .. }) = bucket {
        let why = error.as_deref().unwrap_or("it has not been read for minutes");
        warnings.push(format!("sessions that are only in the bucket may be missing here: {why}"));
    }
    warnings
}

async fn cast(
    State(Views { catalogue, .. }): State<Views>,
    Path(id): Path<String>,
    query: Result<Query<CastQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|bad| Failure(StatusCode::BAD_REQUEST, bad.body_text()))?;
    let joined = match blocking(move || catalogue.cast(&id)).await? {
        Lookup::Found(joined) => joined,
        Lookup::Unknown => return Err(Failure(StatusCode::NOT_FOUND, "there is no such session".to_owned())),
        Lookup::Unread(why) => {
            let message = format!("the volume has no such session, and the bucket cannot be asked: {why}");
            return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        Lookup::Several(ids) => {
            let ids = ids.join(", ");
            let message = format!("several senders have a session with this id; take one of {ids}");
            return Err(Failure(StatusCode::CONFLICT, message));
        }
    };
    if query.raw.is_some() {
        ranged::answer(&headers, CAST, joined)
    } else {
        Ok(played::answer(CAST, joined))
    }
}

async fn list_events(
    State(Views { events, .. }): State<Views>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<EventList>, Failure> {
    let Query(query) = query.map_err(|bad| Failure(StatusCode::BAD_REQUEST, bad.body_text()))?;
    let limit = query.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let found = blocking(move || events.list(query.date.as_deref(), query.after.as_deref(), limit + 1));
    let Files { mut files, unread } = found.await?;
    let more = files.len() > limit;
    files.truncate(limit);
    let next = files.last().filter(|_| more).map(|last| last.path.clone());
    let missing = |why| format!("files that are only in the bucket are not listed here: {why}");
    let warnings = unread.map(missing).into_iter().collect();
    Ok(Json(EventList { files, next, warnings }))
}

async fn event_file(
    State(Views { events, .. }): State<Views>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let file = blocking(move || events.open(&path)).await?;
    let file = file.ok_or_else(|| Failure(StatusCode::NOT_FOUND, "there is no such file".to_owned()))?;
    ranged::answer(&headers, ZSTD, file)
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
