//! `Expect: 100-continue` (RFC 9110 §10.1.1): the client's body is asked for when the API server asks for it.
//!
//! Such a request travels over an HTTP/1.1 connection of its own, the only one on which interim answers are seen. Its
//! body is not read before `100 Continue` came, and reading it is what makes our side send `100 Continue`. If the
//! server answers at once instead, the body is never read.

use std::{
    future::pending,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, StatusCode, Version, header::EXPECT};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, ext::on_informational};
use tokio::{
    sync::watch,
    time::{Duration, timeout},
};

use crate::body::{Body, BoxError};

/// A server that knows nothing of the expectation gets the body after this time.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the client waits for a word before it sends its body.
pub(super) fn expects<B: HttpBody>(request: &Request<B>) -> bool {
    let asked = request
        .headers()
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    asked && request.version() == Version::HTTP_11 && !request.body().is_end_stream()
}

/// The request with a body that waits for the server's word.
pub(super) fn gated(request: Request<Incoming>) -> Request<Body> {
    let (asked, wanted) = watch::channel(false);
    let mut request = request.map(|body| Gated { body, gate: Some(Gate::new(wanted)) }.boxed_unsync());
    on_informational(&mut request, move |interim| {
        if interim.status() == StatusCode::CONTINUE {
            asked.send_replace(true);
        }
    });
    request
}

struct Gated {
    body: Incoming,
    gate: Option<Gate>,
}

struct Gate(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Gate {
    fn new(mut wanted: watch::Receiver<bool>) -> Self {
        Self(Box::pin(async move {
            let word = timeout(PATIENCE, wanted.wait_for(|asked| *asked)).await.map(|word| word.is_ok());
            // The exchange is over: the server has answered and wants no body.
            if word == Ok(false) {
                pending::<()>().await;
            }
        }))
    }
}

impl HttpBody for Gated {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.0.as_mut().poll(cx));
            self.gate = None;
        }
        Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
