//! One part of a recording to one recorder: `POST /v2/record` and the acknowledgements in its response.
//!
//! Invariant: what counts as acknowledged ends with a whole line and was counted by the recorder; lines that it does
//! not know are not sent to it, so bytes of its body and places in the journal are kept in pairs. A body may be
//! compressed; what is counted, by both ends, is what it becomes.

mod run;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Request, StatusCode, header::CONTENT_ENCODING};
use hyper::body::Incoming;
use podwitness_core::grant::AckLevel;
use podwitness_wire::{
    ack::AckError,
    cast::{Header, HeaderError, Part},
    pack::{self, PackError},
};
use thiserror::Error;
use tokio::{sync::mpsc, time::timeout};

use super::{
    body::{Chunk, UploadBody},
    connection::{Connection, RECORD, assert_with},
};
use crate::journal::Journal;
use run::Run;

/// Response header in which a recorder announces what its acknowledgements survive.
const ACK_LEVEL: &str = "podwitness-ack";
/// How long the headers of the response may take.
const HEADERS: Duration = Duration::from_secs(10);

/// Why a recorder does not take a recording, or no longer.
#[derive(Debug, Error)]
pub(crate) enum UploadError {
    /// Nothing answers at the address.
    #[error("cannot connect")]
    Dial(#[source] io::Error),
    /// Somebody else has just found out.
    #[error("another attempt has just failed")]
    Again,
    /// A step took too long.
    #[error("no {0} in time")]
    Slow(&'static str),
    /// HTTP failed.
    #[error("the connection failed")]
    Http(#[source] hyper::Error),
    /// The request cannot be built.
    #[error("cannot make the request")]
    Request(#[source] http::Error),
    /// The probe was not answered with 200.
    #[error("not a recorder of version 2: the probe was answered {0}")]
    Probe(StatusCode),
    /// The upload was refused.
    #[error("the upload was answered {0}")]
    Status(StatusCode),
    /// Its acknowledgements survive less than a grant asks for.
    #[error("its acknowledgements are {0:?}, and a grant asks for {1:?}")]
    Weak(Option<AckLevel>, AckLevel),
    /// The recorder reports an error.
    #[error("the recorder says: {0}")]
    Recorder(String),
    /// The response cannot be read.
    #[error(transparent)]
    Ack(#[from] AckError),
    /// It acknowledges more than there was: whatever it counts, it is not this upload.
    #[error("the recorder acknowledges {0} bytes, and {1} were sent")]
    Unsent(u64, u64),
    /// The response ended first.
    #[error("the recorder ended the upload early")]
    Early,
    /// Nothing came for too long.
    #[error("the recorder acknowledged nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// The header cannot be written.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The lines cannot be compressed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The spool cannot be read back.
    #[error("cannot read the spool")]
    Spool(#[source] io::Error),
}

impl UploadError {
    /// Whether another connection may do better.
    pub(super) const fn is_of_connection(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Slow(_))
    }

    /// Whether no recorder can do better.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Spool(_))
    }
}

/// How far a recording has come over all its parts.
pub(super) struct Progress {
    header: Arc<Header>,
    part: u32,
}

impl Progress {
    pub(super) const fn new(header: Arc<Header>, part: u32) -> Self {
        Self { header, part }
    }

    /// The header line of the next part, which begins at `offset`. Other recorders get none of our own keys.
    fn next_part(&mut self, offset: u64, ours: bool) -> Result<Vec<u8>, HeaderError> {
        let number = self.part;
        self.part = self.part.saturating_add(1);
        if ours { self.header.to_line(Part { number, offset }) } else { self.header.to_plain_line() }
    }
}

/// How an upload ended well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// Everything is acknowledged, and the recorder has closed its file.
    Complete,
    /// The journal was discarded; the upload is broken off.
    Discarded,
}

/// An open upload, of which nothing was sent.
pub(crate) struct Upload {
    recorder: SocketAddr,
    connection: Arc<Connection>,
    level: Option<AckLevel>,
    body: mpsc::Sender<Chunk>,
    answer: Incoming,
}

impl Upload {
    /// Opens an upload: the recorder has said that it takes it.
    pub(super) async fn open(
        connection: Arc<Connection>,
        recorder: SocketAddr,
        assertion: Option<&str>,
        level: Option<AckLevel>,
    ) -> Result<Self, UploadError> {
        let (body, fed) = UploadBody::fed();
        let packs = connection.packs();
        let request = request(recorder, assertion, packs, fed).map_err(UploadError::Request)?;
        let answer = timeout(HEADERS, connection.sender().send_request(request))
            .await
            .map_err(|_| UploadError::Slow("response"))?
            .map_err(UploadError::Http)?;
        if answer.status() != StatusCode::OK {
            return Err(UploadError::Status(answer.status()));
        }
        let announced = answer.headers().get(ACK_LEVEL).and_then(|value| value.to_str().ok());
        let announced = announced.and_then(AckLevel::parse);
        if let Some(level) = level.filter(|level| announced < Some(*level)) {
            return Err(UploadError::Weak(announced, level));
        }
        Ok(Self { recorder, connection, level: announced, body, answer: answer.into_body() })
    }

    /// The recorder.
    pub(super) const fn address(&self) -> SocketAddr {
        self.recorder
    }

    /// What its acknowledgements survive, if it says so.
    pub(super) const fn level(&self) -> Option<AckLevel> {
        self.level
    }

    /// Uploads what nobody has acknowledged yet, and what comes, until the journal ends.
    pub(super) async fn run(self, journal: &Journal, progress: &mut Progress) -> Result<End, UploadError> {
        Run::begin(self, journal, progress)?.run().await
    }
}

fn request(
    recorder: SocketAddr,
    assertion: Option<&str>,
    packs: bool,
    body: UploadBody,
) -> Result<Request<UploadBody>, http::Error> {
    let mut request = Request::post(format!("http://{recorder}{RECORD}")).body(body)?;
    if let Some(assertion) = assertion {
        assert_with(&mut request, assertion)?;
    }
    if packs {
        request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(pack::ENCODING));
    }
    Ok(request)
}
