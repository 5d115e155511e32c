//! Receives the body of an upload and hands it on in steps.
//!
//! `body --lines--> committer`: a channel of [`STEPS`]; while it is full nothing more is read, and the client waits
//! by HTTP flow control.

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    commit::{Ended, Step},
    header::describe,
    intake::{Intake, Piece},
};
use crate::store::meta::{Outcome, Owner};

/// Steps that wait to be committed.
pub(super) const STEPS: usize = 8;

/// What an upload is measured by.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Who sends it.
    pub(super) owner: Owner,
    /// When it began, Unix milliseconds.
    pub(super) received: i64,
    /// Cap on its bytes.
    pub(super) cap: u64,
    /// Cancelled shortly before the program ends.
    pub(super) closing: CancellationToken,
}

/// Why nothing more is received.
enum Stop {
    /// This is how the upload ended.
    Ended(Ended),
    /// The committer takes no more; it knows why.
    Unwanted,
}

/// Receives until the body ends, and says at last how.
pub(super) async fn receive<B>(body: B, terms: Terms, steps: mpsc::Sender<Step>)
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut receiver = Receiver { intake: Intake::new(terms.cap), pieces: Vec::new(), terms, steps };
    if let Stop::Ended(end) = receiver.run(body).await {
        // A committer that is gone has failed and said so.
        let _ = receiver.steps.send(Step::End(end)).await;
    }
}

struct Receiver {
    intake: Intake,
    pieces: Vec<Piece>,
    terms: Terms,
    steps: mpsc::Sender<Step>,
}

impl Receiver {
    async fn run<B: Body<Data = Bytes> + Unpin>(&mut self, mut body: B) -> Stop {
        loop {
            let frame = tokio::select! {
                biased;
                () = self.terms.closing.cancelled() => {
                    return ended(Outcome::Shutdown, "the recorder is shutting down");
                }
                () = self.steps.closed() => return Stop::Unwanted,
                frame = body.frame() => frame,
            };
            let fed = match frame {
                // Trailers mean nothing here.
                Some(Ok(frame)) => {
                    frame.into_data().map_or(Ok(()), |data| self.intake.feed(&data, &mut self.pieces))
                }
                Some(Err(_)) => return ended(Outcome::Lost, "the client went away"),
                None => {
                    let fed = self.intake.end(&mut self.pieces);
                    if let Err(stop) = self.hand_on().await {
                        return stop;
                    }
                    return fed.map_or_else(|refusal| refused(&refusal), |()| ended(Outcome::Complete, ""));
                }
            };
            if let Err(stop) = self.hand_on().await {
                return stop;
            }
            if let Err(refusal) = fed {
                return refused(&refusal);
            }
        }
    }

    async fn hand_on(&mut self) -> Result<(), Stop> {
        for piece in std::mem::take(&mut self.pieces) {
            let step = match piece {
                Piece::Lines(lines) => Step::Lines(lines, self.intake.progress().clone()),
                Piece::Header(line) => match describe(&line, &self.terms.owner, self.terms.received) {
                    Ok(described) => Step::Open(Box::new(described), line),
                    Err(refusal) => return Err(refused(&refusal)),
                },
            };
            self.steps.send(step).await.map_err(|_| Stop::Unwanted)?;
        }
        Ok(())
    }
}

fn ended(outcome: Outcome, message: &str) -> Stop {
    Stop::Ended(Ended { outcome, message: message.to_owned() })
}

fn refused(refusal: &dyn std::error::Error) -> Stop {
    ended(Outcome::Refused, &refusal.to_string())
}
