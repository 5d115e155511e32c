//! Files as answers: whole or a range of them, read as fast as the client does.

use std::io;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use tokio::task::spawn_blocking;

use super::{
    super::readable::Readable,
    Failure, internal,
    range::{self, Wanted},
};

/// What `headers` want of `file`.
pub(super) fn answer(
    headers: &HeaderMap,
    kind: &'static str,
    file: impl Readable,
) -> Result<Response, Failure> {
    let length = file.length();
    let (status, bytes) = match range::wanted(headers, length) {
        Wanted::All => (StatusCode::OK, 0..length),
        Wanted::Part(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Wanted::Nothing => return Ok(unsatisfiable(length)),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, bytes.end.saturating_sub(bytes.start).into());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = bytes.end.saturating_sub(1);
        let range = format!("bytes {}-{last}/{length}", bytes.start);
        headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(range).map_err(internal)?);
    }
    *response.body_mut() = body(file, bytes.start, bytes.end);
    Ok(response)
}

/// Reads as fast as the client does, a chunk at a time.
fn body(file: impl Readable, start: u64, end: u64) -> Body {
    Body::from_stream(stream::try_unfold((file, start), move |(mut file, at)| async move {
        if at >= end {
            return Ok::<_, io::Error>(None);
        }
        let (file, read) = spawn_blocking(move || {
            let read = file.read(at);
            (file, read)
        })
        .await
        .map_err(io::Error::other)?;
        let mut bytes: Bytes = read?;
        if bytes.is_empty() {
            return Ok(None);
        }
        bytes.truncate(usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX));
        let next = at.saturating_add(bytes.len() as u64);
        Ok(Some((bytes, (file, next))))
    }))
}

fn unsatisfiable(length: u64) -> Response {
    let mut response = Failure(StatusCode::RANGE_NOT_SATISFIABLE, "no such range".to_owned()).into_response();
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{length}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}
