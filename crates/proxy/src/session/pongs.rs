//! Answers to the pings of a client whose output waits.
//!
//! The API server's pong stands behind all that it has said before, and where the client or the recording is slow that
//! waits here and in the buffers of two connections. kubectl gives its session up when it has heard no pong for a minute
//! (client-go, `tools/remotecommand/websocket.go`), so the pong that it waits for is said ahead of what waits, and the
//! API server's own follows in its place; an unsolicited pong means nothing (RFC 6455 §5.5.3). Where nothing waits, the
//! API server answers for itself, so that a client still notices when it is gone.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The pong to the newest ping, which is all that has to be answered (RFC 6455 §5.5.3).
#[derive(Default)]
pub(super) struct Pongs {
    newest: Mutex<Option<Vec<u8>>>,
    news: Notify,
}

impl Pongs {
    /// Takes note of the frame that answers a ping.
    pub(super) fn put(&self, pong: Vec<u8>) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(pong);
        self.news.notify_one();
    }

    /// The frame that is to be said; it is not there any more then.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Completes once after each ping, or after several.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }
}
