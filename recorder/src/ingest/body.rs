//! Reads the frames of a body, each within memory that was set aside before it was read.
//!
//! A frame that HTTP/2 has received counts to its connection's window until it is read, and to an upload's budgets once
//! it is looked at. In between it is held by the task that reads it, which may have to wait for the volume. There are
//! thousands of such tasks, so that none reads before it has [`CHUNK`] bytes of a share that its peer's uploads have
//! together. A task whose client sends nothing has none.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame};
use podwitness_runtime::keyed_semaphore::{KeyShare, SharePermit};

/// Most that one frame holds: see `max_frame` of the connections.
pub(super) const CHUNK: usize = 68 << 10;

/// A frame, and the memory that it takes. `None` at the end of the body.
pub(super) type NextFrame<E> = Option<Result<(Frame<Bytes>, Option<SharePermit>), E>>;

/// Reads one body.
pub(super) struct BodyReader {
    share: KeyShare,
    /// Waits for memory, while there is none.
    waiting: Option<BoxFuture<'static, Option<SharePermit>>>,
}

impl BodyReader {
    pub(super) const fn new(share: KeyShare) -> Self {
        Self { share, waiting: None }
    }

    /// The next frame. Nothing is lost where the future is dropped.
    pub(super) async fn next<B>(&mut self, body: &mut B) -> NextFrame<B::Error>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        poll_fn(|cx| {
            let memory = ready!(self.poll_memory(cx));
            // Without a frame the memory is given back, and asked for again when there is one.
            let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
            Poll::Ready(frame.map(|frame| frame.map(|frame| (frame, memory))))
        })
        .await
    }

    /// `None` never happens, see [`KeyShare::take`].
    fn poll_memory(&mut self, cx: &mut Context<'_>) -> Poll<Option<SharePermit>> {
        if self.waiting.is_none() {
            if let Some(permit) = self.share.try_take(CHUNK) {
                return Poll::Ready(Some(permit));
            }
            let share = self.share.clone();
            self.waiting = Some(Box::pin(async move { share.take(CHUNK).await }));
        }
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(None) };
        let permit = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(permit)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use http_body_util::Full;
    use podwitness_runtime::{
        keyed_semaphore::KeyedSemaphore,
        quota::{QuotaKey, QuotaLimits},
    };
    use tokio::time::timeout;

    use super::*;

    /// A body that sends nothing for now.
    struct Silent;

    impl Body for Silent {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_only_where_there_is_memory_and_a_silent_one_takes_none() {
        let shares = KeyedSemaphore::new(QuotaLimits { total: 2 * CHUNK, per_key: CHUNK });
        let key = || QuotaKey::source([10, 0, 0, 1].into());
        let reader = || BodyReader::new(shares.of(key()));
        let mut silent: Vec<_> = (0..100).map(|_| reader()).collect();
        for silent in &mut silent {
            assert!(silent.next(&mut Silent).now_or_never().is_none());
        }
        assert_eq!(shares.free(), 2 * CHUNK);
        let (mut first, mut second) = (reader(), reader());
        let mut bodies = [Full::new(Bytes::from_static(b"one")), Full::new(Bytes::from_static(b"two"))];
        let (frame, memory) = first.next(&mut bodies[0]).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "one");
        assert!(timeout(Duration::from_secs(60), second.next(&mut bodies[1])).await.is_err());
        drop(memory);
        let (frame, _memory) = second.next(&mut bodies[1]).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "two");
    }
}
