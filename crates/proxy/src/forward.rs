//! Ordinary requests: passed on as they are, both bodies streamed, answers relayed as they come.

mod expect;
mod headers;

pub(crate) use headers::end_to_end;

use std::error::Error;

use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use podwitness_core::status::Status;

use crate::{
    Proxy,
    body::{Body, Held, streamed},
    classify::Credential,
    metrics, refusal,
    serve::Client,
    upstream::{Lane, UpstreamError},
};

/// Passes a request on and its answer back. `endless` says that the answer ends when the client leaves.
pub(crate) async fn forward(
    proxy: &Proxy,
    client: &Client,
    mut request: Request<Incoming>,
    endless: bool,
) -> Response<Body> {
    end_to_end(request.headers_mut());
    let credential = match Credential::of(request.headers()) {
        Ok(credential) => credential,
        Err(error) => {
            proxy.metrics.request(metrics::Request::Refused);
            return refusal::answer(&Status::bad_request(error.to_string()));
        }
    };
    let answer =
        if expect::expects(&request) {
            proxy
                .upstream
                .send_alone(&client.target, expect::gated(request))
                .await
                .map(|answer| answer.map(streamed))
        } else {
            let lane = if endless { Lane::Endless } else { Lane::Bulk };
            proxy.upstream.send(&client.target, credential.hash(), lane, request.map(streamed)).await.map(
                |(answer, slot)| answer.map(|body| Held::new(body, slot).map_err(Into::into).boxed_unsync()),
            )
        };
    match answer {
        Ok(answer) => {
            proxy.metrics.request(metrics::Request::Forwarded);
            relayed(answer)
        }
        Err(error) => {
            proxy.metrics.request(metrics::Request::Failed);
            unanswered(&error)
        }
    }
}

/// An answer of the API server as the client gets it.
pub(crate) fn relayed(mut answer: Response<Body>) -> Response<Body> {
    end_to_end(answer.headers_mut());
    answer
}

/// What the client gets where the API server gave no answer. `Retry-After` makes clients repeat even a POST, so that
/// it is set only where nothing can have happened.
pub(crate) fn unanswered(error: &UpstreamError) -> Response<Body> {
    let mut message = format!("podwitness: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    tracing::info!(message, "request failed");
    let status =
        if error.is_harmless() { Status::unavailable(message, 1) } else { Status::bad_gateway(message) };
    let mut response = refusal::answer(&status);
    // The client's connection may still hold a body that nobody will read.
    response.headers_mut().remove(header::CONNECTION);
    response
}
