//! Small adapters of byte streams.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, split};
use tokio_util::io::poll_read_buf;

use crate::Stream;

/// A stream of which some bytes were read already: they come first.
#[derive(Debug)]
pub struct Rewound<S> {
    first: Bytes,
    inner: S,
}

impl<S> Rewound<S> {
    /// `inner`, with `first` before everything else it has to say.
    pub const fn new(first: Bytes, inner: S) -> Self {
        Self { first, inner }
    }
}

/// A stream that is read in large pieces however small a reader asks: TLS reads 4 KiB at a time. A buffer is held only
/// while something is in it, because most connections are silent most of the time.
#[derive(Debug)]
pub struct Bulk<S> {
    ahead: BytesMut,
    inner: S,
}

/// Bytes that go on together where so many have come: a read, a write, a record of TLS and a wake-up cost more than the
/// bytes of most frames.
pub(crate) const TOGETHER: usize = 64 << 10;

/// A TLS stream whose peer may leave without `close_notify`: that is the end of the stream, as for the API server
/// and its clients, which frame what they say by themselves.
#[derive(Debug)]
pub struct Lenient<S>(pub S);

/// Adds to a buffer what is there to be read, up to [`TOGETHER`] and some: a stream over TLS gives one record at a time,
/// however many have come. Zero bytes are the end. An empty buffer that has to wait holds no memory.
pub(crate) fn poll_gather<R: AsyncRead>(
    mut reader: Pin<&mut R>,
    cx: &mut Context<'_>,
    into: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let before = into.len();
    into.reserve(TOGETHER);
    loop {
        let read = poll_read_buf(reader.as_mut(), cx, into);
        let len = into.len() - before;
        match read {
            Poll::Ready(Ok(1..)) if len < TOGETHER => {}
            // What has come is passed on first; the next call says the same again.
            Poll::Ready(Ok(_) | Err(_)) | Poll::Pending if len > 0 => return Poll::Ready(Ok(len)),
            read => {
                if into.is_empty() {
                    *into = BytesMut::new();
                }
                return read;
            }
        }
    }
}

/// Passes on what one stream says, as it comes, until it ends; the other is told.
///
/// # Errors
/// Where either breaks.
pub(crate) async fn pass<R, W>(mut from: R, mut to: W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::new();
    while poll_fn(|cx| poll_gather(Pin::new(&mut from), cx, &mut buffer)).await? > 0 {
        to.write_all(&buffer).await?;
        to.flush().await?;
        buffer.clear();
    }
    to.shutdown().await
}

/// Passes on what both streams say until both have ended.
///
/// # Errors
/// Where either breaks.
pub(crate) async fn pass_both<A: Stream, B: Stream>(one: A, other: B) -> io::Result<()> {
    let ((one_read, one_write), (other_read, other_write)) = (split(one), split(other));
    tokio::try_join!(pass(one_read, other_write), pass(other_read, one_write)).map(drop)
}

// === impl Rewound

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.has_remaining() {
            let len = self.first.len().min(buf.remaining());
            let part = self.first.split_to(len);
            buf.put_slice(&part);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

// === impl Bulk

impl<S> Bulk<S> {
    /// `inner`, read in large pieces.
    pub fn new(inner: S) -> Self {
        Self { ahead: BytesMut::new(), inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bulk<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { ahead, inner } = &mut *self;
        if ahead.is_empty() {
            ahead.reserve(TOGETHER);
            let read = poll_read_buf(Pin::new(inner), cx, ahead);
            if ahead.is_empty() {
                *ahead = BytesMut::new();
                return read.map_ok(|_| ());
            }
        }
        let len = ahead.len().min(buf.remaining());
        buf.put_slice(&ahead.split_to(len));
        Poll::Ready(Ok(()))
    }
}

// === impl Lenient

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(cx, buf)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

macro_rules! write_through {
    ($adapter:ident, $field:tt) => {
        impl<S: AsyncWrite + Unpin> AsyncWrite for $adapter<S> {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$field).poll_write(cx, buf)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$field).poll_write_vectored(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                self.$field.is_write_vectored()
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_shutdown(cx)
            }
        }
    };
}

write_through!(Rewound, inner);
write_through!(Bulk, inner);
write_through!(Lenient, 0);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_was_read_already_comes_first_and_then_the_rest() {
        let (near, mut far) = duplex(64);
        far.write_all(b"world").await.unwrap();
        drop(far);
        let mut text = String::new();
        let mut rewound = Rewound::new(Bytes::from_static(b"hello "), near);
        assert_eq!(rewound.read_u8().await.unwrap(), b'h');
        rewound.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "ello world");
    }

    #[tokio::test]
    async fn small_reads_are_served_from_a_large_one_and_nothing_is_held_in_between() {
        let (near, mut far) = duplex(2 * TOGETHER);
        let mut bulk = Bulk::new(near);
        let sent: Vec<u8> = (0..TOGETHER + 10).map(|n| n.to_le_bytes()[0]).collect();
        far.write_all(&sent).await.unwrap();
        let mut seen = vec![0; 100];
        bulk.read_exact(&mut seen).await.unwrap();
        assert_eq!(bulk.ahead.len(), TOGETHER - 100);
        drop(far);
        bulk.read_to_end(&mut seen).await.unwrap();
        assert_eq!((seen == sent, bulk.ahead.capacity()), (true, 0));
    }

    struct Rude;

    impl AsyncRead for Rude {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
        }
    }

    #[tokio::test]
    async fn a_peer_that_leaves_without_a_word_has_ended_the_stream() {
        assert_eq!(Lenient(Rude).read(&mut [0; 8]).await.unwrap(), 0);
    }
}
