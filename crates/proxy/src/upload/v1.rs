//! One part of a recording to a recorder of version 1: `POST /record` over HTTP/1.1, on a connection of its own.
//!
//! `100 Continue` says that the recorder takes it, and the response after the end that it has. In between it says
//! nothing, so lines count as recorded once the connection has taken them and [`UNCONFIRMED`] bytes after them, or the
//! response has come after the end: that is enough for fail open alone.

use std::{collections::VecDeque, net::SocketAddr, pin::Pin, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, client::conn::http1, ext::on_informational};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    body::{Chunk, UploadBody},
    connection::assert_with,
    error::UploadError,
    part::{End, Progress, known},
};
use crate::{
    BoxedStream,
    journal::{Journal, Next},
};

/// How long a recorder may take to say that it takes a recording.
const CONTINUE: Duration = Duration::from_secs(10);
/// How long the connection may take nothing, and how long the response may take after the end.
const WINDOW: Duration = Duration::from_secs(30);

/// Bytes that the connection has taken last, and that go to the next recorder where the upload breaks off: what was read
/// of them is not known. More would fill the disks of pods with long sessions.
const UNCONFIRMED: u64 = 1 << 20;
/// Bytes between two places that are remembered.
const SPACING: u64 = UNCONFIRMED / 16;

type Answer = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

/// An open upload, of which nothing was sent.
pub(crate) struct Upload {
    recorder: SocketAddr,
    body: mpsc::Sender<Chunk>,
    answer: Answer,
}

impl Upload {
    /// Opens an upload on a new connection: the recorder has said that it takes it.
    pub(super) async fn open(
        stream: BoxedStream,
        recorder: SocketAddr,
        assertion: Option<&str>,
    ) -> Result<Self, UploadError> {
        let (body, fed) = UploadBody::fed();
        let mut request = request(recorder, assertion, fed).map_err(UploadError::Request)?;
        let (go, mut goes) = watch::channel(false);
        on_informational(&mut request, move |interim| {
            if interim.status() == StatusCode::CONTINUE {
                go.send_replace(true);
            }
        });
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(UploadError::Http)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a recorder of version 1 ended");
            }
        });
        let mut answer: Answer = Box::pin(async move { sender.send_request(request).await });
        let went = tokio::select! {
            biased;
            early = &mut answer => return Err(early_end(early)),
            went = timeout(CONTINUE, goes.wait_for(|goes| *goes)) => went.map(|went| went.is_ok()),
        };
        match went {
            Ok(true) => Ok(Self { recorder, body, answer }),
            Ok(false) => Err(UploadError::Early),
            Err(_) => Err(UploadError::Slow("100 Continue")),
        }
    }

    /// The recorder.
    pub(super) const fn address(&self) -> SocketAddr {
        self.recorder
    }

    /// Uploads what was not sent to anybody yet, and what comes, until the journal ends.
    pub(super) async fn run(
        mut self,
        journal: &Journal,
        progress: &mut Progress,
    ) -> Result<End, UploadError> {
        let mut cursor = journal.acked();
        let mut taken = Taken::default();
        self.send(Chunk::Lines(progress.next_part(cursor, false)?.into())).await?;
        loop {
            let next = tokio::select! {
                next = journal.next(cursor) => next.map_err(UploadError::Spool)?,
                early = &mut self.answer => return Err(early_end(early)),
            };
            match next {
                Next::Lines(lines) => {
                    cursor += lines.len() as u64;
                    let lines = known(lines);
                    if !lines.is_empty() {
                        self.send(Chunk::Lines(lines)).await?;
                    }
                    if let Some(place) = taken.note(cursor) {
                        journal.ack(place);
                    }
                }
                Next::End => {
                    self.finish().await?;
                    journal.ack(cursor);
                    return Ok(End::Complete);
                }
                Next::Discarded => return Ok(End::Discarded),
            }
        }
    }

    /// Waits until the connection has taken the chunk.
    async fn send(&mut self, chunk: Chunk) -> Result<(), UploadError> {
        let Self { body, answer, .. } = self;
        let ends = matches!(chunk, Chunk::End);
        let taken = async {
            body.send(chunk).await.ok()?;
            if !ends {
                return body.reserve().await.ok().map(drop);
            }
            // What takes the end takes nothing more.
            body.closed().await;
            Some(())
        };
        tokio::select! {
            biased;
            early = answer => Err(early_end(early)),
            taken = timeout(WINDOW, taken) => match taken {
                Ok(Some(())) => Ok(()),
                Ok(None) => Err(UploadError::Early),
                Err(_) => Err(UploadError::Silent(WINDOW)),
            },
        }
    }

    async fn finish(mut self) -> Result<(), UploadError> {
        self.send(Chunk::End).await?;
        let answer = timeout(WINDOW, self.answer).await.map_err(|_| UploadError::Silent(WINDOW))?;
        match answer.map_err(UploadError::Http)?.status() {
            StatusCode::OK => Ok(()),
            status => Err(UploadError::Status(status)),
        }
    }
}

/// Places in the journal that the connection has taken.
#[derive(Default)]
struct Taken(VecDeque<u64>);

impl Taken {
    /// Notes the end of what was taken last, and tells up to where all counts as recorded from now on.
    fn note(&mut self, place: u64) -> Option<u64> {
        let places = &mut self.0;
        if places.len() > 1 && places.get(places.len() - 2).is_some_and(|before| place - before < SPACING) {
            places.pop_back();
        }
        places.push_back(place);
        let mut believed = None;
        while let Some(first) = places.pop_front_if(|first| place - *first >= UNCONFIRMED) {
            believed = Some(first);
        }
        believed
    }
}

/// An answer before the end is a refusal, whatever it says.
fn early_end(answer: hyper::Result<Response<Incoming>>) -> UploadError {
    match answer {
        Ok(answer) if answer.status() == StatusCode::OK => UploadError::Early,
        Ok(answer) => UploadError::Status(answer.status()),
        Err(error) => UploadError::Http(error),
    }
}

fn request(
    recorder: SocketAddr,
    assertion: Option<&str>,
    body: UploadBody,
) -> Result<Request<UploadBody>, http::Error> {
    let mut request = Request::post("/record").header(header::HOST, recorder.to_string()).body(body)?;
    request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    if let Some(assertion) = assertion {
        assert_with(&mut request, assertion)?;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_bytes_are_not_believed_and_few_places_are_kept(
            lengths in prop::collection::vec(1u64..200_000, 0..200)
        ) {
            let (mut taken, mut place, mut believed, mut places) = (Taken::default(), 0, 0, vec![0]);
            for length in lengths {
                place += length;
                places.push(place);
                believed = taken.note(place).unwrap_or(believed);
                prop_assert!(places.contains(&believed));
                prop_assert!(believed == 0 || place - believed >= UNCONFIRMED);
                prop_assert!(place - believed <= UNCONFIRMED + 2 * SPACING + 200_000);
                prop_assert!(taken.0.len() <= 2 * 16 + 2);
            }
        }
    }
}
