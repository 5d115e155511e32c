//! One part of a recording to a recorder of version 1: `POST /record` over HTTP/1.1, on a connection of its own.
//!
//! `100 Continue` says that the recorder takes it, and the response after the end that it has. In between it says
//! nothing, so lines count as recorded once the connection has taken them: that is enough for fail open alone.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, client::conn::http1, ext::on_informational};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    body::{Chunk, UploadBody},
    connection::assert_with,
    error::UploadError,
    part::{End, Progress, known},
};
use crate::{
    BoxedStream,
    journal::{Journal, Next},
};

/// How long a recorder may take to say that it takes a recording.
const CONTINUE: Duration = Duration::from_secs(10);
/// How long the connection may take nothing, and how long the response may take after the end.
const WINDOW: Duration = Duration::from_secs(30);

type Answer = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

/// An open upload, of which nothing was sent.
pub(crate) struct Upload {
    recorder: SocketAddr,
    body: mpsc::Sender<Chunk>,
    answer: Answer,
}

impl Upload {
    /// Opens an upload on a new connection: the recorder has said that it takes it.
    pub(super) async fn open(
        stream: BoxedStream,
        recorder: SocketAddr,
        assertion: Option<&str>,
    ) -> Result<Self, UploadError> {
        let (body, fed) = UploadBody::fed();
        let mut request = request(recorder, assertion, fed).map_err(UploadError::Request)?;
        let (go, mut goes) = watch::channel(false);
        on_informational(&mut request, move |interim| {
            if interim.status() == StatusCode::CONTINUE {
                go.send_replace(true);
            }
        });
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(UploadError::Http)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a recorder of version 1 ended");
            }
        });
        let mut answer: Answer = Box::pin(async move { sender.send_request(request).await });
        let went = tokio::select! {
            biased;
            early = &mut answer => return Err(early_end(early)),
            went = timeout(CONTINUE, goes.wait_for(|goes| *goes)) => went.map(|went| went.is_ok()),
        };
        match went {
            Ok(true) => Ok(Self { recorder, body, answer }),
            Ok(false) => Err(UploadError::Early),
            Err(_) => Err(UploadError::Slow("100 Continue")),
        }
    }

    /// The recorder.
    pub(super) const fn address(&self) -> SocketAddr {
        self.recorder
    }

    /// Uploads what was not sent to anybody yet, and what comes, until the journal ends.
    pub(super) async fn run(
        mut self,
        journal: &Journal,
        progress: &mut Progress,
    ) -> Result<End, UploadError> {
        let mut cursor = journal.acked();
        self.send(progress.next_part(cursor, false)?.into()).await?;
        loop {
            let next = tokio::select! {
                next = journal.next(cursor) => next.map_err(UploadError::Spool)?,
                early = &mut self.answer => return Err(early_end(early)),
            };
            match next {
                Next::Lines(lines) => {
                    cursor += lines.len() as u64;
                    self.send(known(lines)).await?;
                    journal.ack(cursor);
                }
                Next::End => return self.finish().await,
                Next::Discarded => return Ok(End::Discarded),
            }
        }
    }

    /// Waits until the connection has taken the lines.
    async fn send(&mut self, lines: Bytes) -> Result<(), UploadError> {
        if lines.is_empty() {
            return Ok(());
        }
        let Self { body, answer, .. } = self;
        let taken = async {
            body.send(Chunk::Lines(lines)).await.ok()?;
            body.reserve().await.ok().map(drop)
        };
        tokio::select! {
            biased;
            early = answer => Err(early_end(early)),
            taken = timeout(WINDOW, taken) => match taken {
                Ok(Some(())) => Ok(()),
                Ok(None) => Err(UploadError::Early),
                Err(_) => Err(UploadError::Silent(WINDOW)),
            },
        }
    }

    async fn finish(self) -> Result<End, UploadError> {
        // Where it cannot be sent, the answer says why.
        let _ = self.body.send(Chunk::End).await;
        let answer = timeout(WINDOW, self.answer).await.map_err(|_| UploadError::Silent(WINDOW))?;
        match answer.map_err(UploadError::Http)?.status() {
            StatusCode::OK => Ok(End::Complete),
            status => Err(UploadError::Status(status)),
        }
    }
}

/// An answer before the end is a refusal, whatever it says.
fn early_end(answer: hyper::Result<Response<Incoming>>) -> UploadError {
    match answer {
        Ok(answer) if answer.status() == StatusCode::OK => UploadError::Early,
        Ok(answer) => UploadError::Status(answer.status()),
        Err(error) => UploadError::Http(error),
    }
}

fn request(
    recorder: SocketAddr,
    assertion: Option<&str>,
    body: UploadBody,
) -> Result<Request<UploadBody>, http::Error> {
    let mut request = Request::post("/record").header(header::HOST, recorder.to_string()).body(body)?;
    request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    if let Some(assertion) = assertion {
        assert_with(&mut request, assertion)?;
    }
    Ok(request)
}
