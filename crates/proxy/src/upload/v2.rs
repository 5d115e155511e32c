//! One part of a recording, or a stream of API events, to one recorder: `POST` and the acknowledgements in its response.
//!
//! Invariant: what counts as acknowledged ends with a whole line and was counted by the recorder; lines that it does
//! not know are not sent to it, so bytes of its body and places in the journal are kept in pairs. A body may be
//! compressed; what is counted, by both ends, is what it becomes.

mod run;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{
    HeaderValue, Request, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use hyper::body::Incoming;
use podwitness_core::grant::AckLevel;
use podwitness_wire::pack;
use tokio::{sync::mpsc, time::timeout};

use super::{
    Form,
    body::{Chunk, UploadBody},
    connection::{Connection, EVENT, NDJSON, RECORD, assert_with},
    error::UploadError,
    part::{End, Progress},
};
use crate::journal::Journal;
use run::Run;

/// Response header in which a recorder announces what its acknowledgements survive.
const ACK_LEVEL: &str = "podwitness-ack";
/// How long the headers of the response may take.
const HEADERS: Duration = Duration::from_secs(10);

/// An open upload, of which nothing was sent.
pub(crate) struct Upload {
    recorder: SocketAddr,
    form: Form,
    connection: Arc<Connection>,
    level: Option<AckLevel>,
    body: mpsc::Sender<Chunk>,
    answer: Incoming,
}

impl Upload {
    /// Opens an upload: the recorder has said that it takes it.
    pub(super) async fn open(
        form: Form,
        connection: Arc<Connection>,
        recorder: SocketAddr,
        level: Option<AckLevel>,
    ) -> Result<Self, UploadError> {
        let (body, fed) = UploadBody::fed();
        let (packs, assertion) = (connection.packs(), connection.assertion());
        let request =
            request(form, recorder, assertion.as_deref(), packs, fed).map_err(UploadError::Request)?;
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
        Ok(Self { recorder, form, connection, level: announced, body, answer: answer.into_body() })
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
    form: Form,
    recorder: SocketAddr,
    assertion: Option<&str>,
    packs: bool,
    body: UploadBody,
) -> Result<Request<UploadBody>, http::Error> {
    let path = match form {
        Form::Recording => RECORD,
        Form::Events => EVENT,
    };
    let mut request = Request::post(format!("http://{recorder}{path}")).body(body)?;
    if form == Form::Events {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    }
    if let Some(assertion) = assertion {
        assert_with(&mut request, assertion)?;
    }
    if packs {
        request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(pack::ENCODING));
    }
    Ok(request)
}
