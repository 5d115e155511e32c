//! Receives the body of an upload and hands it on in steps.
//!
//! `body --lines--> committer`: a channel of [`STEPS`], and [`Room`] that all uploads share; while either is full
//! nothing more is read, and the client waits by HTTP flow control. A compressed body is read frame by frame, and the
//! next frame only when the one before was handed on.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_ENCODING};
use http_body::Body;
use http_body_util::BodyExt as _;
use podwitness_wire::pack::{ENCODING, Unpacker};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    commit::{Ended, Step},
    header::describe,
    intake::{Intake, Piece},
};
use crate::store::meta::{Outcome, Owner};

/// Steps that wait to be committed.
pub(super) const STEPS: usize = 8;
/// Bytes of all uploads that were received and are not committed.
const ROOM: usize = 64 << 20;

/// How a body carries its lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoding {
    /// As they are.
    Plain,
    /// In frames, as [`podwitness_wire::pack`] makes them.
    Packed,
}

impl Encoding {
    /// What the headers say, if it is one that is taken.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        match (codings.next(), codings.next()) {
            (None, _) => Some(Self::Plain),
            (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"identity") => Some(Self::Plain),
            (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(ENCODING.as_bytes()) => {
                Some(Self::Packed)
            }
            _ => None,
        }
    }
}

/// Room for what was received and is not committed. Shared, because few bytes of a compressed body can become many,
/// and many uploads can do that at a time.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

/// Room that is taken until this is dropped.
pub(super) type Taken = OwnedSemaphorePermit;

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.0.available_permits()
    }

    /// Waits for room; those who came first get it first. `None` never happens: nobody closes it.
    pub(super) async fn take(&self, bytes: usize) -> Option<Taken> {
        let bytes = u32::try_from(bytes.min(ROOM)).ok()?;
        Arc::clone(&self.0).acquire_many_owned(bytes).await.ok()
    }
}

/// What an upload is measured by.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Who sends it.
    pub(super) owner: Owner,
    /// When it began, Unix milliseconds.
    pub(super) received: i64,
    /// How it carries its lines.
    pub(super) encoding: Encoding,
    /// Cap on its bytes, after decompression.
    pub(super) cap: u64,
    /// Where its lines wait.
    pub(super) room: Room,
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
    let unpacker = (terms.encoding == Encoding::Packed).then(Unpacker::new);
    let mut receiver =
        Receiver { unpacker, intake: Intake::new(terms.cap), pieces: Vec::new(), terms, steps };
    if let Stop::Ended(end) = receiver.run(body).await {
        // A committer that is gone has failed and said so.
        let _ = receiver.steps.send(Step::End(end)).await;
    }
}

struct Receiver {
    unpacker: Option<Unpacker>,
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
                    return shutting_down();
                }
                () = self.steps.closed() => return Stop::Unwanted,
                frame = body.frame() => frame,
            };
            let taken = match frame {
                // Trailers mean nothing here.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.take(data).await,
                    Err(_) => Ok(()),
                },
                Some(Err(_)) => return ended(Outcome::Lost, "the client went away"),
                None => return self.end().await,
            };
            if let Err(stop) = taken {
                return stop;
            }
        }
    }

    async fn take(&mut self, mut data: Bytes) -> Result<(), Stop> {
        while let Some(unpacker) = &mut self.unpacker {
            match unpacker.unpack(&mut data) {
                Ok(Some(lines)) => self.feed(lines).await?,
                Ok(None) => return Ok(()),
                Err(error) => return Err(refused(&error)),
            }
            if self.terms.closing.is_cancelled() {
                // What else the data becomes may take long to hand on.
                return Err(shutting_down());
            }
        }
        self.feed(data).await
    }

    /// Whatever was good before a refusal is handed on.
    async fn feed(&mut self, lines: Bytes) -> Result<(), Stop> {
        let fed = self.intake.feed(lines, &mut self.pieces);
        self.hand_on().await?;
        fed.map_err(|refusal| refused(&refusal))
    }

    async fn end(&mut self) -> Stop {
        if self.unpacker.as_ref().is_some_and(|unpacker| !unpacker.at_rest()) {
            return ended(Outcome::Lost, "the upload ended early, within a compressed frame");
        }
        let fed = self.intake.end(&mut self.pieces);
        if let Err(stop) = self.hand_on().await {
            return stop;
        }
        fed.map_or_else(|refusal| refused(&refusal), |()| ended(Outcome::Complete, ""))
    }

    async fn hand_on(&mut self) -> Result<(), Stop> {
        for piece in std::mem::take(&mut self.pieces) {
            let step = match piece {
                Piece::Lines(lines) => {
                    let taken = self.terms.room.take(lines.len()).await.ok_or(Stop::Unwanted)?;
                    Step::Lines(lines, self.intake.progress().clone(), taken)
                }
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

fn shutting_down() -> Stop {
    ended(Outcome::Shutdown, "the recorder is shutting down")
}

fn ended(outcome: Outcome, message: &str) -> Stop {
    Stop::Ended(Ended { outcome, message: message.to_owned() })
}

fn refused(refusal: &dyn std::error::Error) -> Stop {
    ended(Outcome::Refused, &refusal.to_string())
}
