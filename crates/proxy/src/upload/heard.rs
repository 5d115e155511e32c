//! The first thing that the other end of a connection says: HTTP/2, HTTP/1, or nothing at all.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::BoxedStream;

const NOTHING: u8 = 0;
const END: u8 = 1;
const HTTP1: u8 = 2;
const OTHER: u8 = 3;

/// A stream that notes what comes first.
pub(super) struct Listening {
    stream: BoxedStream,
    first: First,
}

/// What came first.
#[derive(Clone, Debug, Default)]
pub(super) struct First(Arc<AtomicU8>);

impl First {
    /// An HTTP/1 response. A server of HTTP/2 begins with the length of its settings, whose first byte is 0.
    pub(super) fn is_http1(&self) -> bool {
        self.0.load(Ordering::Relaxed) == HTTP1
    }

    /// The end of the stream.
    pub(super) fn is_end(&self) -> bool {
        self.0.load(Ordering::Relaxed) == END
    }

    fn note(&self, byte: Option<u8>) {
        let kind = match byte {
            None => END,
            Some(b'H') => HTTP1,
            Some(_) => OTHER,
        };
        self.0.store(kind, Ordering::Relaxed);
    }
}

impl Listening {
    pub(super) fn to(stream: BoxedStream) -> (Self, First) {
        let first = First::default();
        (Self { stream, first: first.clone() }, first)
    }
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.first.0.load(Ordering::Relaxed) == NOTHING {
            self.first.note(buf.filled().get(before).copied());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Listening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
