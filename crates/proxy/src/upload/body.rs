//! The body of an upload: chunks through a channel of one, so that HTTP/2's windows hold the journal's reader back.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use thiserror::Error;
use tokio::sync::mpsc;

/// What goes into a body.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Bytes.
    Lines(Bytes),
    /// The end. Without it the body breaks off, and the recorder learns that something is missing.
    End,
}

/// A request's body.
#[derive(Debug)]
pub(super) struct UploadBody(Option<mpsc::Receiver<Chunk>>);

/// The upload is broken off.
#[derive(Debug, Error)]
#[error("the upload is broken off")]
pub(super) struct BrokenOff;

impl UploadBody {
    /// No body.
    pub(super) const fn empty() -> Self {
        Self(None)
    }

    /// A body and the end that feeds it.
    pub(super) fn fed() -> (mpsc::Sender<Chunk>, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Self(Some(receiver)))
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let Some(chunks) = &mut self.0 else { return Poll::Ready(None) };
        chunks.poll_recv(cx).map(|chunk| match chunk {
            Some(Chunk::Lines(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Chunk::End) => {
                self.0 = None;
                None
            }
            None => Some(Err(BrokenOff)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}
