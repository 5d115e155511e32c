//! What the HTTP library holds of a client's connection, seen from outside: bytes that were read and made no request
//! yet, and answers that were given to it and not yet written.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use podwitness_runtime::{connection::ConnectionHandle, quota::QuotaExceeded};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{CONNECTION, Memory, TLS};

/// What is taken at a time, so that few bytes change nothing.
const STEP: usize = 4 << 10;
/// A client of HTTP/2 begins with so many bytes (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// Length of a frame's head, and the frames with parts of a head (RFC 9113, sections 4.1, 6.2, 6.10).
const FRAME: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// One byte of HPACK may stand for a header of this size, up to so many (RFC 7541, section 6.1): more of them than a
/// list of 1 MiB has, at 32 bytes for each, are not unpacked.
const UNPACKED: usize = 100;
const MAX_UNPACKED: usize = 32 << 10;

/// What the library keeps of an answer in HTTP/2: its buffer, and the frame that filled it; and of all streams.
const UNSENT: usize = 96 << 10;
const MAX_UNSENT: usize = 100 * UNSENT;

/// Counts what one connection holds.
#[derive(Debug)]
pub(crate) struct Meter {
    memory: Arc<Memory>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` once it has become a session.
    connection: Option<ConnectionHandle>,
    blocks: Option<Blocks>,
    /// Requests under way.
    requests: usize,
    head: usize,
    answers: usize,
    held: usize,
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    pub(crate) inner: S,
    meter: Arc<Meter>,
}

impl Meter {
    /// Of a connection that holds [`CONNECTION`].
    pub(crate) fn new(memory: Arc<Memory>, connection: ConnectionHandle, http2: bool) -> Arc<Self> {
        let blocks = http2.then(Blocks::default);
        let connection = Some(connection);
        let state = State { connection, blocks, requests: 0, head: 0, answers: 0, held: CONNECTION };
        Arc::new(Self { memory, state: Mutex::new(state) })
    }

    /// A head is whole: it is counted to its request from now on.
    pub(crate) fn requested(self: &Arc<Self>) -> Requested {
        // Less than before is always had.
        let _ = self.change(|state| {
            state.requests = state.requests.saturating_add(1);
            state.head = state.blocks.as_mut().map_or(0, Blocks::requested);
        });
        Requested(Arc::clone(self))
    }

    /// So many bytes of answers were given to the library. Of HTTP/2 no more is counted than it may keep: what is left of
    /// an answer whose stream the client has reset is thrown away unseen.
    ///
    /// # Errors
    /// Where there is no room for them.
    pub(super) fn given(&self, bytes: usize) -> Result<(), QuotaExceeded> {
        self.change(|state| {
            let most = if state.blocks.is_some() { MAX_UNSENT } else { usize::MAX };
            state.answers = state.answers.saturating_add(bytes).min(most);
        })
    }

    /// So many bytes of an answer's head were given to the library. HTTP/2 packs heads, so that what is written says
    /// nothing of them; they are as small as what an API server or a proxied service says of an answer.
    pub(super) fn given_head(&self, bytes: usize) -> Result<(), QuotaExceeded> {
        self.change(|state| {
            if state.blocks.is_none() {
                state.answers = state.answers.saturating_add(bytes);
            }
        })
    }

    /// An answer of which so many bytes were given has ended before its end: the library throws away what is left.
    pub(super) fn cancelled(&self, given: usize) {
        self.written(given.min(UNSENT));
    }

    /// Everything that was given to the library of HTTP/1.1 is written. That of HTTP/2 waits for windows, too.
    fn flushed(&self) {
        // Less than before is always had.
        let _ = self.change(|state| {
            if state.blocks.is_none() {
                state.answers = 0;
            }
        });
    }

    /// Counts nothing from now on: the connection becomes a session.
    pub(crate) fn stop(&self) {
        self.lock().connection = None;
    }

    fn read(&self, bytes: &[u8]) -> Result<(), QuotaExceeded> {
        self.change(|state| match &mut state.blocks {
            Some(blocks) => state.head = blocks.read(bytes),
            // What is read during a request is its body.
            None if state.requests == 0 => state.head = state.head.saturating_add(bytes.len()),
            None => {}
        })
    }

    fn written(&self, bytes: usize) {
        // Less than before is always had.
        let _ = self.change(|state| state.answers = state.answers.saturating_sub(bytes));
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<(), QuotaExceeded> {
        let mut state = self.lock();
        change(&mut state);
        let answers = if state.answers > 0 { state.answers.saturating_add(TLS) } else { 0 };
        let more = state.head.saturating_add(answers);
        let bytes = CONNECTION.saturating_add(more.div_ceil(STEP).saturating_mul(STEP));
        match &state.connection {
            Some(connection) if bytes != state.held => self.memory.hold(connection, bytes)?,
            _ => return Ok(()),
        }
        state.held = bytes;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Requested(Arc<Meter>);

impl Drop for Requested {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.requests = state.requests.saturating_sub(1);
    }
}

/// Where a client of HTTP/2 stands among its frames.
#[derive(Debug, Default)]
struct Blocks {
    /// Bytes of the preface that were read.
    preface: usize,
    head: [u8; FRAME],
    head_len: usize,
    /// Bytes of the frame that are still to come.
    rest: usize,
    /// Bytes of the open block of headers.
    open: usize,
    /// What closed blocks without a request yet may be unpacked to.
    closed: usize,
}

impl Blocks {
    /// What heads may take after these bytes.
    fn read(&mut self, mut bytes: &[u8]) -> usize {
        let skipped = bytes.len().min(PREFACE.saturating_sub(self.preface));
        self.preface = self.preface.saturating_add(skipped);
        bytes = bytes.get(skipped..).unwrap_or_default();
        while !bytes.is_empty() {
            bytes = if self.rest > 0 { self.payload(bytes) } else { self.frame(bytes) };
        }
        self.size()
    }

    fn requested(&mut self) -> usize {
        self.closed = 0;
        self.size()
    }

    fn size(&self) -> usize {
        self.closed.saturating_add(unpacked(self.open))
    }

    fn frame<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (first, rest) = bytes.split_at(bytes.len().min(FRAME.saturating_sub(self.head_len)));
        if let Some(to) = self.head.get_mut(self.head_len..).and_then(|to| to.get_mut(..first.len())) {
            to.copy_from_slice(first);
        }
        self.head_len = self.head_len.saturating_add(first.len());
        if self.head_len == FRAME {
            let [a, b, c, ..] = self.head;
            self.rest = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            self.end_of_frame();
        }
        rest
    }

    fn payload<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let len = bytes.len().min(self.rest);
        self.rest = self.rest.saturating_sub(len);
        if self.has_headers() {
            self.open = self.open.saturating_add(len);
        }
        self.end_of_frame();
        bytes.get(len..).unwrap_or_default()
    }

    fn end_of_frame(&mut self) {
        if self.rest > 0 {
            return;
        }
        let [.., flags, _, _, _, _] = self.head;
        if self.has_headers() && flags & END_HEADERS != 0 {
            self.closed = self.closed.saturating_add(unpacked(std::mem::take(&mut self.open)));
        }
        self.head_len = 0;
    }

    const fn has_headers(&self) -> bool {
        let [_, _, _, kind, ..] = self.head;
        matches!(kind, HEADERS | CONTINUATION)
    }
}

fn unpacked(block: usize) -> usize {
    block.saturating_add(block.min(MAX_UNPACKED).saturating_mul(UNPACKED))
}

impl<S> Metered<S> {
    pub(crate) const fn new(inner: S, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.meter.read(read).map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> Metered<S> {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.meter.written(bytes);
        }
        written
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.meter.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
