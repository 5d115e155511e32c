//! A running upload: journal, gather and acknowledgements in one loop.

use std::{collections::VecDeque, io, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use podwitness_core::failure::Policy;
use podwitness_wire::{
    ack::{Ack, Reader},
    pack::{self, PackError},
};
use tokio::time::{Instant, sleep_until};

use super::{
    super::{
        Form,
        body::Chunk,
        error::UploadError,
        gather::Gather,
        part::{End, Progress, known},
    },
    Upload,
};
use crate::journal::{Journal, Next};

/// How long a recorder may say nothing at all, or let sent lines wait: the reference's window.
const WINDOW: Duration = Duration::from_secs(30);
/// How long one that announces durable acknowledgements may let sent lines wait, so that there is time for another
/// within the longest pause of a session.
const STALL: Duration = Duration::from_secs(8);
/// Lines that were sent and are not acknowledged, in chunks; above it sending waits.
const MAX_IN_FLIGHT: usize = 4096;

/// A running upload.
///
/// Cursors, in bytes before compression: `acked <= sent`; `in_flight` pairs ends of sent chunks with places in the
/// journal. `gather` ends at the journal's `cursor`.
pub(super) struct Run<'a> {
    journal: &'a Journal,
    upload: Upload,
    acks: Reader,
    /// Next place in the journal.
    cursor: u64,
    gather: Gather,
    /// Nobody waits for what is gathered, so that it always waits for company: a piece costs more than its lines.
    patient: bool,
    sent: u64,
    in_flight: VecDeque<(u64, u64)>,
    /// The journal has nothing more.
    over: bool,
    /// Everything was sent, and the end after it.
    finished: bool,
    /// The last frame of any kind.
    heard: Instant,
    /// The last frame that acknowledged something, or the first byte in flight since then.
    moved: Instant,
    /// The first line; events have none.
    header: Option<Bytes>,
}

/// What a turn of the loop found.
enum Turn {
    Frame(Option<Result<Bytes, hyper::Error>>),
    Next(io::Result<Next>),
    Room,
    Due,
    Late(Duration),
}

impl<'a> Run<'a> {
    pub(super) fn begin(
        upload: Upload,
        journal: &'a Journal,
        progress: &mut Progress,
    ) -> Result<Self, UploadError> {
        let cursor = journal.acked();
        let header = match upload.form {
            Form::Recording => Some(progress.next_part(cursor, upload.level.is_some())?.into()),
            Form::Events => None,
        };
        let patient = upload.form == Form::Events && journal.policy() == Policy::Open;
        let now = Instant::now();
        Ok(Self {
            journal,
            upload,
            acks: Reader::new(),
            cursor,
            gather: Gather::default(),
            patient,
            sent: 0,
            in_flight: VecDeque::new(),
            over: false,
            finished: false,
            heard: now,
            moved: now,
            header,
        })
    }

    /// Runs to its end; a connection that failed gets no other upload.
    pub(super) async fn run(mut self) -> Result<End, UploadError> {
        let ended = self.turns().await;
        if ended.as_ref().is_err_and(|error| matches!(error, UploadError::Http(_) | UploadError::Silent(_))) {
            self.upload.connection.give_up();
        }
        ended
    }

    async fn turns(&mut self) -> Result<End, UploadError> {
        let mut ready = match self.header.take() {
            Some(header) => Some(self.chunk(header, self.cursor)?),
            None => None,
        };
        loop {
            if ready.is_none() {
                ready = self.next_chunk()?;
            }
            match self.turn(ready.is_some()).await {
                Turn::Late(silence) => return Err(UploadError::Silent(silence)),
                Turn::Due => ready = self.piece()?,
                Turn::Room => match ready.take() {
                    Some(chunk) => self.upload.body.try_send(chunk).map_err(|_| UploadError::Early)?,
                    None => return Err(UploadError::Early),
                },
                Turn::Next(next) => match next.map_err(UploadError::Spool)? {
                    Next::Lines(lines) => {
                        self.cursor += lines.len() as u64;
                        self.gather.push(lines);
                    }
                    Next::End => self.over = true,
                    Next::Discarded => return Ok(End::Discarded),
                },
                Turn::Frame(frame) => {
                    if self.frame(frame)? {
                        return Ok(End::Complete);
                    }
                }
            }
        }
    }

    /// Waits for whatever comes first.
    async fn turn(&mut self, ready: bool) -> Turn {
        let (deadline, silence) = self.deadline();
        let may_read = !ready && !self.over && self.may_send();
        let due = self.gather.due().filter(|_| !ready && self.may_send());
        // Nobody is to be waited for but what the journal has already.
        let alone = due.is_some() && self.in_flight.is_empty() && !self.patient;
        tokio::select! {
            biased;
            frame = data(&mut self.upload.answer) => Turn::Frame(frame),
            // A closed channel shows in the response, which says more.
            Ok(_) = self.upload.body.reserve(), if ready => Turn::Room,
            next = self.journal.next(self.cursor), if may_read => Turn::Next(next),
            () = std::future::ready(()), if alone => Turn::Due,
            () = sleep_until(due.map_or(deadline, |due| due.min(deadline))) => match due {
                Some(due) if due <= deadline => Turn::Due,
                _ => Turn::Late(silence),
            },
        }
    }

    fn may_send(&self) -> bool {
        self.in_flight.len() < MAX_IN_FLIGHT
    }

    fn deadline(&self) -> (Instant, Duration) {
        let stall = if self.upload.level.is_some() { STALL } else { WINDOW };
        if !self.in_flight.is_empty() && self.moved + stall < self.heard + WINDOW {
            (self.moved + stall, stall)
        } else {
            (self.heard + WINDOW, WINDOW)
        }
    }

    /// What goes out without waiting for more.
    fn next_chunk(&mut self) -> Result<Option<Chunk>, UploadError> {
        while self.may_send() && (self.gather.is_full() || (self.over && !self.gather.is_empty())) {
            if let Some(chunk) = self.piece()? {
                return Ok(Some(chunk));
            }
        }
        // The end goes out once everything before it is acknowledged: a recorder may end its response for other reasons
        // than that it has everything.
        let ends = self.over && self.gather.is_empty() && self.in_flight.is_empty() && !self.finished;
        self.finished |= ends;
        Ok(ends.then_some(Chunk::End))
    }

    /// The next piece of what was gathered, if anything of it is for this recorder.
    fn piece(&mut self) -> Result<Option<Chunk>, UploadError> {
        let lines = self.gather.take();
        let place = self.cursor - self.gather.len() as u64;
        let lines = if self.upload.level.is_some() { lines } else { known(lines) };
        if lines.is_empty() {
            match self.in_flight.back_mut() {
                Some((_, last)) => *last = place,
                None => self.journal.ack(place),
            }
            return Ok(None);
        }
        self.chunk(lines, place).map(Some)
    }

    fn chunk(&mut self, lines: Bytes, place: u64) -> Result<Chunk, UploadError> {
        if self.in_flight.is_empty() {
            self.moved = Instant::now();
        }
        self.sent += lines.len() as u64;
        self.in_flight.push_back((self.sent, place));
        Ok(Chunk::Lines(if self.upload.connection.packs() { packed(&lines)? } else { lines }))
    }

    /// Takes in a piece of the response, and tells whether the upload is complete.
    fn frame(&mut self, frame: Option<Result<Bytes, hyper::Error>>) -> Result<bool, UploadError> {
        let Some(bytes) = frame else {
            let complete = self.finished && self.acks.at_rest();
            return if complete { Ok(true) } else { Err(UploadError::Early) };
        };
        let (mut acked, mut failed) = (None, None);
        self.acks.feed(&bytes.map_err(UploadError::Http)?, |ack| match ack {
            Ack::Received(bytes) => acked = acked.max(Some(bytes)),
            Ack::Failed(text) => failed = Some(text),
        })?;
        if let Some(bytes) = acked {
            if bytes > self.sent {
                return Err(UploadError::Unsent(bytes, self.sent));
            }
            self.acked(bytes);
        }
        failed.map_or(Ok(false), |text| Err(UploadError::Recorder(text)))
    }

    fn acked(&mut self, bytes: u64) {
        self.heard = Instant::now();
        let mut place = None;
        while let Some((_, at)) = self.in_flight.pop_front_if(|(end, _)| *end <= bytes) {
            place = Some(at);
        }
        if let Some(place) = place {
            self.moved = self.heard;
            self.journal.ack(place);
        }
    }
}

/// The next bytes of a response.
async fn data(answer: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        match answer.frame().await? {
            Ok(frame) => {
                if let Ok(bytes) = frame.into_data() {
                    return Some(Ok(bytes));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

/// A frame of these lines; several where they are a long header.
fn packed(lines: &[u8]) -> Result<Bytes, PackError> {
    let (frame, rest) = lines.split_at(pack::cut(lines));
    let frame = pack::pack(frame)?;
    if rest.is_empty() { Ok(frame) } else { Ok([frame, packed(rest)?].concat().into()) }
}

#[cfg(test)]
mod tests {
    use podwitness_wire::pack::{MAX_FRAME, Unpacker};

    use super::*;

    #[test]
    fn a_header_longer_than_a_frame_becomes_several() {
        let header = [&[b'x'; MAX_FRAME + 70_000][..], b"\n"].concat();
        let (mut frames, mut unpacker) = (packed(&header).unwrap(), Unpacker::new());
        let lengths = [(); 3].map(|()| unpacker.unpack(&mut frames).unwrap().map(|it| it.len()));
        assert_eq!(lengths, [Some(MAX_FRAME), Some(70_001), None]);
    }
}
