//! A deadline for the bytes by which the version of HTTP is told. `hyper_util`'s detection waits for them without
//! one, so that a silent peer could hold a connection for ever.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Fails reads with [`io::ErrorKind::TimedOut`] while what was read is a proper prefix of the HTTP/2 preface and the
/// deadline has passed; a transparent wrapper from then on.
pub(super) struct FirstBytes<I> {
    io: I,
    matched: usize,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<I> FirstBytes<I> {
    pub(super) fn new(io: I, within: Duration) -> Self {
        Self { io, matched: 0, deadline: Some(Box::pin(tokio::time::sleep(within))) }
    }

    fn saw(&mut self, bytes: &[u8]) {
        let expected = PREFACE.get(self.matched..).unwrap_or_default();
        let undecided = bytes.len() < expected.len() && expected.starts_with(bytes) && !bytes.is_empty();
        if undecided {
            self.matched = self.matched.saturating_add(bytes.len());
        } else {
            self.deadline = None;
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for FirstBytes<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(deadline) = &mut self.deadline else { return Pin::new(&mut self.io).poll_read(cx, buf) };
        let late = deadline.as_mut().poll(cx).is_ready();
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Pending if late => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            polled => {
                ready!(polled)?;
                self.saw(buf.filled().get(before..).unwrap_or_default());
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for FirstBytes<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
