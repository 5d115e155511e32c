//! Whether something passes on a connection that is passed on raw. What is in its streams cannot be read, so that silence is
//! all that tells whether it is in use.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use podwitness_runtime::connection::{BusyGuard, ConnectionHandle};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::Notify,
    time::{Duration, sleep},
};

/// How long nothing may pass before a connection is idle, and is ended where its place is wanted for another.
const SILENCE: Duration = Duration::from_secs(90);

/// How often something has passed.
#[derive(Debug, Default)]
pub(super) struct Activity {
    times: AtomicU64,
    again: Notify,
}

/// A stream that notes when something is read of it.
#[derive(Debug)]
pub(super) struct CountedReads<'a, S> {
    inner: S,
    activity: &'a Activity,
}

impl Activity {
    /// Keeps `connection` busy while something passes, and idle from [`SILENCE`] after that until something does again.
    pub(super) async fn keep_busy(&self, connection: &ConnectionHandle, busy: BusyGuard) -> Infallible {
        let mut busy = Some(busy);
        loop {
            let guard = busy.take().unwrap_or_else(|| connection.busy());
            let mut seen = self.times();
            loop {
                sleep(SILENCE).await;
                let now = self.times();
                if now == seen {
                    break;
                }
                seen = now;
            }
            drop(guard);
            while self.times() == seen {
                self.again.notified().await;
            }
        }
    }

    fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }

    fn note(&self) {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.again.notify_one();
    }
}

impl<'a, S> CountedReads<'a, S> {
    pub(super) const fn new(inner: S, activity: &'a Activity) -> Self {
        Self { inner, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedReads<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.note();
        }
        Poll::Ready(Ok(()))
    }
}
