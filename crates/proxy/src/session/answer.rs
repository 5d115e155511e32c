//! A session that is one request and its answer, such as the kubelet's `run`: what the command says is the body.

use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use podwitness_core::status::Status;
use podwitness_runtime::drain;
use podwitness_wire::{channel::Event, ws::Payload};

use super::{Outcome, Recording, relay::close, tap::Tap};
use crate::body::{Body, BoxError};

/// Records an answer on its way to the client.
pub(crate) fn answered(answer: Response<Incoming>, recording: Recording) -> Response<Body> {
    let open = &recording.0;
    open.ledger.started();
    let tap = Tap::new(open.meta.clone(), open.origin.clone(), None, open.journal.clone());
    let (guard, status) = (open.drain.guard(), answer.status());
    let answering = Answering { recording, tap: Some(tap), status, _guard: guard };
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
    recording: Recording,
    /// Taken when the recording is closed.
    tap: Option<Tap>,
    status: StatusCode,
    _guard: drain::Guard,
}

/// The next of an answer, and what is left of it.
type Next = Option<(Result<Frame<Bytes>, BoxError>, Option<(Incoming, Answering)>)>;

impl Answering {
    async fn next(mut self, mut body: Incoming) -> Next {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Err(status) = self.record(&frame).await {
                    self.close(Outcome::PolicyEnded);
                    return Some((Err(status.message.into()), None));
                }
                Some((Ok(frame), Some((body, self))))
            }
            Some(Err(error)) => {
                self.close(Outcome::ServerLeft);
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
        self.recording.0.journal.tell();
        self.recording.0.journal.room().await
    }

    fn complete(&mut self) {
        if let Some(tap) = &mut self.tap {
            tap.write_exit(if self.status.is_success() { "0".to_owned() } else { self.status.to_string() });
        }
        self.close(Outcome::Completed);
    }

    fn close(&mut self, outcome: Outcome) {
        if let Some(tap) = self.tap.take() {
            close(&self.recording.0, tap, outcome);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.close(Outcome::ClientLeft);
    }
}
