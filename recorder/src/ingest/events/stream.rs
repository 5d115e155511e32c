//! A stream of events: cut into lines, admitted, and acknowledged as they become durable.
//!
//! `body --lines--> writer --ids--> acks`. At most [`BATCHES`] batches of one stream wait for the writer; above it
//! nothing more is read, and the client waits by HTTP flow control. What is not whole yet is held as that of a recording.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use podwitness_runtime::keyed_semaphore::{KeyShare, SharePermit};
use podwitness_wire::pack::Unpacker;
use tokio::{sync::oneshot, time::sleep_until};
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, Decoder as _};

use super::{
    super::{Acks, Ingest, Upload, body::NextFrame, receive::Encoding, unfinished::UnfinishedError},
    Batch,
    line::{EventRefusal, MAX_STREAMED, admit},
};
use crate::store::{ShareKey, StoreError, events::Draft, meta::Outcome};

/// Batches of one stream that are not durable yet.
const BATCHES: usize = 8;

type Stored = Result<Vec<String>, Arc<StoreError>>;

/// One stream on its way into the store.
pub(super) struct Stream {
    ingest: Arc<Ingest>,
    upload: Upload,
    share: ShareKey,
    acks: Acks,
    unpacker: Option<Unpacker>,
    held: BytesMut,
    lines: AnyDelimiterCodec,
    /// Bytes of whole lines that were handed to the writer.
    taken: u64,
    /// What `taken` was behind each batch that is not durable yet.
    waiting: VecDeque<(u64, oneshot::Receiver<Stored>)>,
    events: u64,
    /// Whole lines so far.
    whole: u64,
}

/// Why a stream ends.
struct Ended(Outcome, String);

enum Turn {
    Frame(NextFrame<hyper::Error>),
    Stored(Result<Stored, oneshot::error::RecvError>),
    Due,
    Unfinished(UnfinishedError),
    Closing,
}

impl Stream {
    pub(super) fn new(ingest: &Arc<Ingest>, upload: Upload, acks: Acks) -> Self {
        Self {
            ingest: Arc::clone(ingest),
            unpacker: (upload.encoding == Encoding::Packed).then(Unpacker::new),
            share: ShareKey::of(&upload.owner),
            upload,
            acks,
            held: BytesMut::new(),
            lines: AnyDelimiterCodec::new_with_max_length(b"\n".into(), b"\n".into(), MAX_STREAMED),
            taken: 0,
            waiting: VecDeque::new(),
            events: 0,
            whole: 0,
        }
    }

    pub(super) async fn run(mut self, body: Incoming) {
        let Ended(outcome, message) = self.receive(body).await;
        self.ingest.parts.metrics.ended(outcome);
        tracing::info!(
            target: "access",
            peer = %self.upload.from,
            protocol = "events",
            packed = self.upload.encoding == Encoding::Packed,
            outcome = outcome.as_str(),
            events = self.events,
            bytes = self.taken,
            message,
        );
        if outcome != Outcome::Complete {
            self.acks.fail(&message).await;
        }
    }

    async fn receive(&mut self, mut body: Incoming) -> Ended {
        let mut over = false;
        while !over || !self.waiting.is_empty() {
            let stopped = match self.turn(&mut body, over).await {
                Turn::Due => {
                    self.acks.repeat();
                    Ok(())
                }
                Turn::Stored(stored) => self.stored(stored),
                Turn::Frame(Some(Ok((frame, memory)))) => match frame.into_data() {
                    Ok(data) => {
                        let taken = self.take(data).await.and_then(|()| self.count_held());
                        drop(memory);
                        taken
                    }
                    // Trailers mean nothing here.
                    Err(_) => Ok(()),
                },
                Turn::Frame(Some(Err(_))) => Err(Ended(Outcome::Lost, "the client went away".to_owned())),
                Turn::Frame(None) => {
                    over = true;
                    self.finish().await
                }
                Turn::Unfinished(error) => Err(self.held_too_much(error)),
                Turn::Closing => Err(Ended(Outcome::Shutdown, "the recorder is shutting down".to_owned())),
            };
            if let Err(ended) = stopped {
                return ended;
            }
        }
        Ended(Outcome::Complete, String::new())
    }

    async fn turn(&mut self, body: &mut Incoming, over: bool) -> Turn {
        let may_read = !over && self.waiting.len() < BATCHES;
        tokio::select! {
            biased;
            () = self.ingest.parts.closing.cancelled() => Turn::Closing,
            stored = first(&mut self.waiting) => Turn::Stored(stored),
            error = self.upload.held.expired(), if !over => Turn::Unfinished(error),
            frame = self.upload.reader.next(body), if may_read => Turn::Frame(frame),
            () = sleep_until(self.acks.due()) => Turn::Due,
        }
    }

    /// The first batch that waits is durable, or never will be.
    fn stored(&mut self, stored: Result<Stored, oneshot::error::RecvError>) -> Result<(), Ended> {
        let end = self.waiting.pop_front().map_or(self.taken, |(end, _)| end);
        match stored {
            Ok(Ok(ids)) => {
                self.events = self.events.saturating_add(ids.len() as u64);
                self.acks.safe(end);
                Ok(())
            }
            Ok(Err(error)) => Err(Ended(Outcome::Failed, error.to_string())),
            Err(_) => Err(Ended(Outcome::Shutdown, "the recorder is shutting down".to_owned())),
        }
    }

    /// What is left of what came, until the rest comes.
    fn count_held(&mut self) -> Result<(), Ended> {
        let packed = self.unpacker.as_ref().map_or(0, Unpacker::held);
        let held = self.held.capacity().saturating_add(packed);
        self.upload.held.set(held, self.whole).map_err(|error| self.held_too_much(error))
    }

    fn held_too_much(&self, error: UnfinishedError) -> Ended {
        self.ingest.parts.metrics.refused(error.reason());
        refused(&error)
    }

    async fn take(&mut self, mut data: Bytes) -> Result<(), Ended> {
        while let Some(unpacker) = &mut self.unpacker {
            let Some(size) = unpacker.fill(&mut data).map_err(|error| refused(&error))? else {
                return Ok(());
            };
            let memory = wait_for(&self.upload.waiting, size, &self.held).await?;
            if let Some(lines) = unpacker.content().map_err(|error| refused(&error))? {
                self.feed(&lines, memory).await?;
            }
        }
        let memory = wait_for(&self.upload.waiting, data.len(), &self.held).await?;
        self.feed(&data, memory).await
    }

    /// Hands on the events that are whole. What was good before a refusal is stored, and not acknowledged.
    async fn feed(&mut self, bytes: &[u8], memory: SharePermit) -> Result<(), Ended> {
        self.held.extend_from_slice(bytes);
        let now = self.ingest.parts.clock.now_unix_millis();
        let (mut events, mut refusal) = (Vec::new(), None);
        let before = self.held.len();
        loop {
            match self.lines.decode(&mut self.held).map(|line| line.map(|line| self.admit(&line, now))) {
                Ok(Some(Ok(event))) => {
                    self.whole = self.whole.saturating_add(1);
                    events.push(event);
                }
                Ok(Some(Err(ended))) => {
                    refusal = Some(ended);
                    break;
                }
                Ok(None) => break,
                Err(AnyDelimiterCodecError::MaxChunkLengthExceeded) => {
                    refusal = Some(refused(&EventRefusal::TooLong));
                    break;
                }
                Err(AnyDelimiterCodecError::Io(error)) => {
                    refusal = Some(refused(&error));
                    break;
                }
            }
        }
        self.taken = self.taken.saturating_add(before.saturating_sub(self.held.len()) as u64);
        if self.held.len() < before {
            // What is left does not keep the memory of what was taken.
            self.held = BytesMut::from(&self.held[..]);
        }
        self.hand_on(events, memory).await?;
        refusal.map_or(Ok(()), Err)
    }

    fn admit(&self, line: &[u8], now: i64) -> Result<Draft, Ended> {
        admit(line, &self.upload.owner, now).map_err(|refusal| {
            self.ingest.parts.metrics.refused("bad_event");
            refused(&refusal)
        })
    }

    /// Hands on events, which `taken` is for.
    async fn hand_on(&mut self, events: Vec<Draft>, taken: SharePermit) -> Result<(), Ended> {
        if events.is_empty() {
            return Ok(());
        }
        let (done, stored) = oneshot::channel();
        let owner = self.share.clone();
        self.ingest.events.send(Batch { owner, events, taken, done }).await.map_err(|_| gone())?;
        self.waiting.push_back((self.taken, stored));
        Ok(())
    }

    /// The client has said all; a last line may lack its newline.
    async fn finish(&mut self) -> Result<(), Ended> {
        if self.unpacker.as_ref().is_some_and(|unpacker| !unpacker.at_rest()) {
            return Err(Ended(Outcome::Lost, "the stream ended within a compressed frame".to_owned()));
        }
        if self.held.is_empty() {
            return Ok(());
        }
        let memory = wait_for(&self.upload.waiting, 1, &self.held).await?;
        self.feed(b"\n", memory).await
    }
}

/// Memory for all events that can become whole by so many bytes more, as they come and as they are stored.
async fn wait_for(waiting: &KeyShare, bytes: usize, held: &BytesMut) -> Result<SharePermit, Ended> {
    let bytes = bytes.saturating_add(held.len()).saturating_mul(2);
    waiting.take(bytes).await.ok_or_else(gone)
}

fn gone() -> Ended {
    Ended(Outcome::Shutdown, "the recorder is shutting down".to_owned())
}

/// What became of the batch that waits longest.
async fn first(
    waiting: &mut VecDeque<(u64, oneshot::Receiver<Stored>)>,
) -> Result<Stored, oneshot::error::RecvError> {
    match waiting.front_mut() {
        Some((_, stored)) => stored.await,
        None => std::future::pending().await,
    }
}

fn refused(refusal: &dyn std::error::Error) -> Ended {
    Ended(Outcome::Refused, refusal.to_string())
}
