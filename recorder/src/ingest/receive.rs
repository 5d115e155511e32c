//! Receives the body of an upload and hands it on in steps.
//!
//! `body --lines--> committer`: a channel of [`STEPS`], and a semaphore of bytes that all uploads share; while either is full
//! nothing more is read, and the client waits by HTTP flow control. Memory for lines is waited for before they are
//! unpacked. A compressed body is read frame by frame, and the next frame only when the one before was handed on. What is not whole yet is [`UnfinishedInput`].

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_ENCODING};
use http_body::Body;
use podwitness_runtime::{
    keyed_semaphore::{KeyShare, SharePermit},
    quota::QuotaLease,
};
use podwitness_wire::pack::{ENCODING, Unpacker};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    body::BodyReader,
    commit::{Ended, Step},
    header::describe,
    intake::{Intake, Piece},
    unfinished::{UnfinishedError, UnfinishedInput},
};
use crate::{
    metrics::Metrics,
    store::{
        layout::PartName,
        meta::{Meta, Outcome, Owner},
    },
};

/// Steps that wait to be committed.
pub(super) const STEPS: usize = 8;

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

/// What an upload is measured by.
pub(super) struct Terms {
    /// Who sends it.
    pub(super) owner: Owner,
    /// When it began, Unix milliseconds.
    pub(super) received: i64,
    /// How it carries its lines.
    pub(super) encoding: Encoding,
    /// Cap on its bytes, after decompression.
    pub(super) cap: u64,
    /// Reads its body.
    pub(super) reader: BodyReader,
    /// Where its lines wait.
    pub(super) waiting: KeyShare,
    /// What of it is not whole.
    pub(super) held: UnfinishedInput,
    /// What it is described by.
    pub(super) described: QuotaLease,
    /// Counts what is refused.
    pub(super) metrics: Metrics,
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
                error = self.terms.held.expired() => return self.held_too_much(error),
                frame = self.terms.reader.next(&mut body) => frame,
            };
            let taken = match frame {
                // Trailers mean nothing here.
                Some(Ok((frame, memory))) => match frame.into_data() {
                    Ok(data) => {
                        let taken = self.take(data).await.and_then(|()| self.count_held());
                        drop(memory);
                        taken
                    }
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
            let Some(size) = unpacker.fill(&mut data).map_err(|error| refused(&error))? else {
                return Ok(());
            };
            let memory = wait_for(&self.terms.waiting, size, &self.intake).await?;
            if let Some(lines) = unpacker.content().map_err(|error| refused(&error))? {
                self.feed(lines, memory).await?;
            }
            if self.terms.closing.is_cancelled() {
                // What else the data becomes may take long to hand on.
                return Err(shutting_down());
            }
        }
        let memory = wait_for(&self.terms.waiting, data.len(), &self.intake).await?;
        self.feed(data, memory).await
    }

    /// What is left of what came, until the rest comes.
    fn count_held(&mut self) -> Result<(), Stop> {
        let packed = self.unpacker.as_ref().map_or(0, Unpacker::held);
        let held = self.intake.held().saturating_add(packed);
        self.terms.held.set(held, self.intake.lines()).map_err(|error| self.held_too_much(error))
    }

    fn held_too_much(&self, error: UnfinishedError) -> Stop {
        self.terms.metrics.refused(error.reason());
        refused(&error)
    }

    /// Whatever was good before a refusal is handed on.
    async fn feed(&mut self, lines: Bytes, memory: SharePermit) -> Result<(), Stop> {
        let fed = self.intake.feed(lines, &mut self.pieces);
        self.hand_on(&Arc::new(memory)).await?;
        fed.map_err(|refusal| refused(&refusal))
    }

    async fn end(&mut self) -> Stop {
        if self.unpacker.as_ref().is_some_and(|unpacker| !unpacker.at_rest()) {
            return ended(Outcome::Lost, "the upload ended early, within a compressed frame");
        }
        let memory = match wait_for(&self.terms.waiting, 0, &self.intake).await {
            Ok(memory) => memory,
            Err(stop) => return stop,
        };
        let fed = self.intake.end(&mut self.pieces);
        if let Err(stop) = self.hand_on(&Arc::new(memory)).await {
            return stop;
        }
        fed.map_or_else(|refusal| refused(&refusal), |()| ended(Outcome::Complete, ""))
    }

    /// Hands on what became whole, which `memory` is for.
    async fn hand_on(&mut self, memory: &Arc<SharePermit>) -> Result<(), Stop> {
        for piece in std::mem::take(&mut self.pieces) {
            let taken = Arc::clone(memory);
            let step = match piece {
                Piece::Lines(lines) => Step::Lines(lines, self.intake.progress().clone(), taken),
                Piece::Header(line) => Step::Open(Box::new(self.describe(&line)?), line, taken),
            };
            self.steps.send(step).await.map_err(|_| Stop::Unwanted)?;
        }
        Ok(())
    }

    fn describe(&mut self, header: &[u8]) -> Result<(PartName, Meta), Stop> {
        let described = describe(header, &self.terms.owner, self.terms.received);
        let (name, meta) = described.map_err(|refusal| refused(&refusal))?;
        self.terms.described.take(meta.facts.size()).map_err(|exceeded| {
            self.terms.metrics.refused("described");
            ended(Outcome::Refused, &format!("the recorder has no memory for more sessions: {exceeded}"))
        })?;
        Ok((name, meta))
    }
}

/// Memory for all that can become whole by so many bytes more. It is asked for at once: who waits for a part of it has
/// no other.
async fn wait_for(waiting: &KeyShare, bytes: usize, intake: &Intake) -> Result<SharePermit, Stop> {
    waiting.take(bytes.saturating_add(intake.held())).await.ok_or(Stop::Unwanted)
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
