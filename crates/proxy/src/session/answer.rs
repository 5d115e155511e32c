//! A session that is one request and its answer, such as the kubelet's `run`: what the command says is the body.

use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use podwitness_core::{outcome::End, status::Status};
use podwitness_runtime::drain;
use podwitness_wire::{channel::Event, ws::Payload};

use super::{Recording, tap::Tap};
use crate::{
    body::{Body, BoxError},
    journal::Journal,
};

/// Records an answer on its way to the client.
pub(crate) fn answered(answer: Response<Incoming>, recording: Recording) -> Response<Body> {
    let open = &recording.0;
    open.ledger.started();
    let tap = Tap::new(open.meta.clone(), open.origin.clone(), None, open.journal.clone());
    let (journal, guard, status) = (open.journal.clone(), open.drain.guard(), answer.status());
    let answering = Answering { journal, status, tap: Some(tap), recording: Some((recording, guard)) };
    answer.map(|body| {
        let frames = stream::unfold(Some((body, answering)), |open| async {
            let (body, answering) = open?;
            answering.next(body).await
        });
        StreamBody::new(frames).boxed_unsync()
    })
}

/// An answer under way. Dropped before its end, it is one whose client has left.
struct Answering {
    journal: Journal,
    status: StatusCode,
    /// These are taken when the recording is closed.
    tap: Option<Tap>,
    recording: Option<(Recording, drain::Guard)>,
}

/// The next of an answer, and what is left of it.
type Next = Option<(Result<Frame<Bytes>, BoxError>, Option<(Incoming, Answering)>)>;

impl Answering {
    async fn next(mut self, mut body: Incoming) -> Next {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Err(status) = self.record(&frame).await {
                    self.close(End::Policy);
                    return Some((Err(status.message.into()), None));
                }
                // Whoever knows the length of a body does not ask for what follows its last byte.
                if body.is_end_stream() {
                    self.complete();
                }
                Some((Ok(frame), Some((body, self))))
            }
            Some(Err(error)) => {
                self.close(End::ServerLeft);
                Some((Err(error.into()), None))
            }
            None => {
                self.complete();
                None
            }
        }
    }

    async fn record(&mut self, frame: &Frame<Bytes>) -> Result<(), Status> {
        if let (Some(tap), Some(bytes)) = (&mut self.tap, frame.data_ref().filter(|bytes| !bytes.is_empty()))
        {
            tap.see(Event::Stdout(Payload::plain(bytes)));
        }
        self.journal.tell();
        self.journal.room().await
    }

    fn complete(&mut self) {
        if let Some(tap) = &mut self.tap {
            tap.write_exit(if self.status.is_success() { "0".to_owned() } else { self.status.to_string() });
        }
        self.close(End::Completed);
    }

    /// What became of the recording is waited for where nobody else waits.
    fn close(&mut self, end: End) {
        let (Some(tap), Some((recording, guard))) = (self.tap.take(), self.recording.take()) else { return };
        let summary = tap.close(end);
        tokio::spawn(async move {
            recording.0.settle(None, &summary).await;
            drop(guard);
        });
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.close(End::ClientLeft);
    }
}
