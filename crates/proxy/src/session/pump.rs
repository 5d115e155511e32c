//! One direction of a session: bytes pass unchanged, unit by unit, and a decoder follows a copy.

use std::{
    error::Error as _,
    io,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use podwitness_core::{failure::OnUnknown, status::Status};
use podwitness_wire::{
    channel::{Farewell, Source},
    session::{Direction, SessionError, Unit},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::Notify,
};

use super::{ahead::Ahead, pongs::Pongs, tap::Tap};
use crate::{
    enforce,
    journal::{Budget, Journal},
    stream::TOGETHER,
};

/// What both directions of a session share.
pub(super) struct Live {
    pub(super) tap: Mutex<Tap>,
    pub(super) journal: Journal,
    pub(super) pongs: Pongs,
    /// The server takes nothing more. What it has said may still be on its way to the client.
    pub(super) server_left: Notify,
}

/// Why a direction has come to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// Its source has ended, and everything was passed on.
    Ended,
    /// Nobody takes what it passes on.
    Unwanted,
    /// The recording does not come along.
    Policy(Box<Status>),
    /// The stream cannot be followed, and what cannot be followed does not happen.
    Unreadable(Box<Status>),
}

/// One direction.
pub(super) struct Pump<R, W> {
    source: Source,
    from: Ahead<R>,
    to: W,
    direction: Direction,
    /// Bytes at the front that may go on.
    ready: usize,
    /// What is being written.
    pending: Bytes,
    progress: Arc<Progress>,
}

/// How far a direction has come, for whoever watches it.
#[derive(Default)]
pub(super) struct Progress {
    /// Bytes that were written.
    passed: AtomicU64,
    /// Something waits for the other side to take it.
    waits: AtomicBool,
}

/// What stands at the front of a direction.
enum Front {
    /// It goes on together, after waiting for the recording or not.
    Unit(Unit, bool),
    /// More bytes are needed.
    Nothing,
}

impl Progress {
    /// Bytes that were written so far.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Whether something waits for the other side to take it.
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }
}

impl Live {
    pub(super) fn into_tap(self) -> Tap {
        self.tap.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn with_tap<T>(&self, with: impl FnOnce(&mut Tap) -> T) -> T {
        with(&mut self.tap.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pump<R, W> {
    /// One direction, which comes from `source` and may read `limit` bytes ahead.
    pub(super) fn new(
        (source, direction): (Source, Direction),
        from: R,
        to: W,
        limit: usize,
        memory: &Arc<Budget>,
    ) -> Self {
        Self {
            source,
            from: Ahead::new(from, limit, memory),
            to,
            direction,
            ready: 0,
            pending: Bytes::new(),
            progress: Arc::default(),
        }
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Passes everything on. Dropped in between, the direction can still be ended with a message.
    pub(super) async fn run(&mut self, live: &Live) -> Stop {
        match self.pass_all(live).await {
            Ok(()) => Stop::Ended,
            Err(Stop::Unwanted) if self.source == Source::Client => {
                live.server_left.notify_one();
                self.listen(live).await;
                Stop::Unwanted
            }
            Err(stop) => stop,
        }
    }

    /// Reads on where what is said is not wanted any more, until the client ends: its pings are answered for as long as output
    /// is left for it.
    async fn listen(&mut self, live: &Live) {
        self.pending = Bytes::new();
        self.from.take(std::mem::take(&mut self.ready));
        loop {
            let front = self.from.front();
            match self.direction.peek(front) {
                Ok(Some(unit)) => {
                    self.note_ping(unit, front.get(..unit.len).unwrap_or_default(), live);
                    self.direction.gone_on(unit);
                    self.from.take(unit.len);
                }
                Ok(None) if self.from.refill() => {}
                Ok(None) if !self.from.ended() => self.from.news().await,
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn note_ping(&self, unit: Unit, bytes: &[u8], live: &Live) {
        if unit.control
            && let Some(pong) = self.direction.pong(bytes)
        {
            live.pongs.put(pong);
        }
    }

    async fn pass_all(&mut self, live: &Live) -> Result<(), Stop> {
        loop {
            match self.front(live)? {
                Front::Unit(unit, waits) => {
                    if waits {
                        self.wait_for_room(live).await?;
                    }
                    self.direction.gone_on(unit);
                    self.ready += unit.len;
                }
                Front::Nothing if self.from.refill() => {}
                Front::Nothing if self.from.ended() => return self.end(live).await,
                Front::Nothing => {
                    self.pass_on(live).await?;
                    self.from.during(self.to.flush()).await.map_err(|_| Stop::Unwanted)?;
                    self.progress.waits.store(self.from.holds(), Ordering::Relaxed);
                    self.from.news().await;
                    self.progress.waits.store(true, Ordering::Relaxed);
                    self.forget_ping(live);
                }
            }
            if self.ready >= TOGETHER {
                self.pass_on(live).await?;
            }
        }
    }

    /// Waits until what was recorded last may go on; what may already does so first.
    async fn wait_for_room(&mut self, live: &Live) -> Result<(), Stop> {
        let room = match live.journal.room().now_or_never() {
            Some(room) => room,
            None => {
                self.pass_on(live).await?;
                self.room_or_pings(live).await?
            }
        };
        room.map_err(|status| Stop::Policy(Box::new(status)))
    }

    /// Waits for the recording, answering the client's pings meanwhile.
    async fn room_or_pings(&mut self, live: &Live) -> Result<Result<(), Status>, Stop> {
        let answers = self.answers_pings();
        // One wait, whatever comes meanwhile: the policy says how long it may be.
        let mut room = pin!(live.journal.room());
        loop {
            let waited = self.from.during(async {
                tokio::select! {
                    biased;
                    room = &mut room => Some(room),
                    () = live.pongs.news(), if answers => None,
                }
            });
            if let Some(room) = waited.await {
                return Ok(room);
            }
            self.answer_ping(live).await?;
        }
    }

    /// Passes on what may go on, and lets the uploader know what was recorded.
    async fn pass_on(&mut self, live: &Live) -> Result<(), Stop> {
        live.journal.tell();
        self.write().await.map_err(|_| Stop::Unwanted)?;
        if self.from.holds() { self.answer_ping(live).await } else { Ok(()) }
    }

    /// Pings come from the client, so the other direction answers them.
    const fn answers_pings(&self) -> bool {
        matches!(self.source, Source::Server)
    }

    /// Answers the client's newest ping ahead of what waits. Everything that may go on has gone on.
    async fn answer_ping(&mut self, live: &Live) -> Result<(), Stop> {
        if self.answers_pings()
            && self.direction.takes_control_frame()
            && let Some(pong) = live.pongs.take()
        {
            self.pending = pong.into();
            self.write().await.map_err(|_| Stop::Unwanted)?;
        }
        Ok(())
    }

    /// Nothing waited until now: the API server's own answer is among what comes next.
    fn forget_ping(&self, live: &Live) {
        if self.answers_pings() {
            live.pongs.take();
        }
    }

    /// Looks at the next unit and records it.
    fn front(&mut self, live: &Live) -> Result<Front, Stop> {
        if self.direction.is_undecoded() {
            may_pass_undecoded(live)?;
        }
        let front = self.from.front().get(self.ready..).unwrap_or_default();
        let unit = match self.direction.peek(front) {
            Ok(None) => return Ok(Front::Nothing),
            Ok(Some(unit)) => unit,
            Err(error) => return self.stop_decoding(live, error),
        };
        let bytes = front.get(..unit.len).unwrap_or_default();
        self.note_ping(unit, bytes, live);
        match live.with_tap(|tap| self.direction.feed(bytes, |event| tap.see(event))) {
            Ok(()) => Ok(Front::Unit(unit, !unit.control)),
            Err(error) => self.stop_decoding(live, error),
        }
    }

    /// The stream cannot be decoded any further: where the policy lets it go on all the same, what the server says is
    /// recorded as it stands on the wire.
    fn stop_decoding(&mut self, live: &Live, error: SessionError) -> Result<Front, Stop> {
        may_pass_undecoded(live)?;
        tracing::info!(%error, source = ?self.source, "a recorded stream cannot be followed any further");
        self.direction.stop_decoding();
        if self.direction.shows_undecoded() {
            live.with_tap(|tap| tap.stop_decoding(&chain(&error)));
        }
        self.front(live)
    }

    /// The source has ended: what stands there, a frame that is not whole, goes on like everything else.
    async fn end(&mut self, live: &Live) -> Result<(), Stop> {
        let rest = self.from.front().get(self.ready..).unwrap_or_default();
        if !rest.is_empty() {
            // No more than a frame that is held: where it cannot be decoded, all of it is recorded as it stands.
            if let Err(error) = live.with_tap(|tap| self.direction.feed(rest, |event| tap.see(event))) {
                self.stop_decoding(live, error)?;
            }
            self.wait_for_room(live).await?;
            self.ready = self.from.front().len();
        }
        self.pass_on(live).await?;
        self.to.shutdown().await.map_err(|_| Stop::Unwanted)
    }

    async fn write(&mut self) -> io::Result<()> {
        loop {
            let Self { from, to, pending, progress, .. } = self;
            from.during(async {
                while pending.has_remaining() {
                    let written = to.write_buf(pending).await?;
                    progress.passed.fetch_add(written as u64, Ordering::Relaxed);
                }
                // Even empty it would hold on to the buffer, which is to be read into again.
                *pending = Bytes::new();
                io::Result::Ok(())
            })
            .await?;
            if self.ready == 0 {
                return Ok(());
            }
            self.pending = self.from.take(std::mem::take(&mut self.ready));
        }
    }

    /// Ends the direction to the client with a message that kubectl prints: what is open is finished first.
    pub(super) async fn say(&mut self, status: &Status) -> io::Result<()> {
        self.write().await?;
        let json = serde_json::to_vec(status).map_err(io::Error::other)?;
        let farewell = Farewell { status: &json, message: &status.message };
        if let Some(words) = self.direction.last_words(&farewell) {
            self.to.write_all(&words).await?;
        }
        self.to.shutdown().await
    }

    /// Records what was open when the session ended.
    pub(super) fn finish(&mut self, live: &Live) {
        live.with_tap(|tap| self.direction.finish(|event| tap.see(event)));
    }

    /// Ends what goes out, wherever it stands.
    pub(super) async fn hang_up(&mut self) -> io::Result<()> {
        self.to.shutdown().await
    }

    /// Reads and throws away what the source still says, until it ends or says nothing for so long.
    pub(super) async fn drain(&mut self, silence: Duration) {
        self.from.drain(silence).await;
    }
}

/// Whether a stream that cannot be decoded may go on. Asked each time: a session may be held to more than at its
/// beginning.
fn may_pass_undecoded(live: &Live) -> Result<(), Stop> {
    match enforce::on_unknown(&live.journal.policy(), "a stream that cannot be followed") {
        OnUnknown::Refuse(status) => Err(Stop::Unreadable(Box::new(status))),
        OnUnknown::Forward => Ok(()),
    }
}

/// An error and its causes, none of which quotes the stream.
fn chain(error: &SessionError) -> String {
    let (mut chain, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        chain = format!("{chain}: {error}");
        cause = error.source();
    }
    chain
}
