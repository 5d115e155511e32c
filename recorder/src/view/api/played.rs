//! Recordings as answers, in the form that players read: of unknown length, read as fast as the client does.

use std::io;

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use futures_util::stream;
use podwitness_wire::cast::Playable;
use tokio::task::spawn_blocking;

use super::super::readable::Readable;

/// A recording that is being filtered.
struct Played<R> {
    recording: R,
    at: u64,
    /// None behind the end.
    filter: Option<Playable>,
}

/// The whole of `recording`, as it plays.
pub(super) fn answer(kind: &'static str, recording: impl Readable) -> Response {
    let played = Played { recording, at: 0, filter: Some(Playable::new()) };
    let body = stream::try_unfold(played, |mut played| async move {
        let read = move || played.next().map(|lines| lines.map(|lines| (lines, played)));
        spawn_blocking(read).await.map_err(io::Error::other)?
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl<R: Readable> Played<R> {
    /// Some lines; none behind the end. Blocks.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut lines = Vec::new();
        while let Some(mut filter) = self.filter.take() {
            let bytes = self.recording.read(self.at)?;
            if bytes.is_empty() {
                filter.finish(&mut lines);
                break;
            }
            self.at = self.at.saturating_add(bytes.len() as u64);
            filter.push(&bytes, &mut lines);
            self.filter = Some(filter);
            if !lines.is_empty() {
                break;
            }
        }
        Ok((!lines.is_empty()).then(|| lines.into()))
    }
}
