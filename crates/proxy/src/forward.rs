//! Ordinary requests: passed on as they are, both bodies streamed, answers relayed as they come.

mod expect;
mod headers;

pub(crate) use headers::end_to_end;

use std::error::Error;

use http::{Request, Response, header, request::Parts};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use podwitness_core::{control::Notice, failure::OnUnknown, request_info::RequestInfo, status::Status};

use crate::{
    Proxy,
    body::{Body, Held, streamed},
    classify::Credential,
    enforce,
    events::{self, Opens},
    identity::CallerCell,
    memory::{Flight, body::FromClient},
    metrics, refusal,
    serve::Client,
    upstream::{Lane, UpstreamError},
};

/// Passes a request on and its answer back, under the eyes of a witness where a grant asks for one. `endless` says that
/// the answer ends when the client leaves.
pub(crate) async fn forward(
    proxy: &Proxy,
    client: &Client,
    request: Request<Incoming>,
    flight: &Flight,
    info: Option<RequestInfo>,
    endless: bool,
) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    let credential = match Credential::of(&head.headers) {
        Ok(credential) => credential,
        Err(error) => {
            proxy.metrics.request(metrics::Request::Refused);
            return refusal::answer(&Status::bad_request(error.to_string()));
        }
    };
    let opens = if endless { Opens::Stream } else { Opens::Answer };
    if info.is_none()
        && let OnUnknown::Refuse(status) = on_unreadable(proxy)
    {
        proxy.metrics.request(metrics::Request::Refused);
        return proxy.refusal_reporter.request(&status, None);
    }
    let info = info.unwrap_or_else(|| unreadable(&head));
    let asking = (&credential, &CallerCell::new());
    let witness = match events::witness(proxy, client, &mut head, &info, asking, opens).await {
        Ok(witness) => witness,
        Err(status) => {
            proxy.metrics.request(metrics::Request::Refused);
            return proxy.refusal_reporter.request(&status, Some(&info));
        }
    };
    end_to_end(&mut head.headers);
    let request = Request::from_parts(head, body);
    let seen = |body: Body| {
        let body = FromClient::new(body, flight.clone()).boxed_unsync();
        match &witness {
            Some(witness) => witness.sees(body),
            None => body,
        }
    };
    let answer =
        if expect::expects(&request) {
            proxy
                .upstream
                .send_alone(&client.target, expect::gated(request).map(seen))
                .await
                .map(|it| it.map(streamed))
        } else {
            let lane = if endless { Lane::Endless } else { Lane::Bulk };
            let request = request.map(streamed).map(seen);
            proxy.upstream.send(&client.target, credential.hash(), lane, request).await.map(
                |(answer, slot)| answer.map(|body| Held::new(body, slot).map_err(Into::into).boxed_unsync()),
            )
        };
    let answer = settled(proxy, answer);
    match witness {
        Some(witness) => witness.answered(answer),
        None => answer,
    }
}

/// What the policy wants of a request whose path cannot be read: it may be one that has to be recorded.
fn on_unreadable(proxy: &Proxy) -> OnUnknown {
    let (netmap, until) = (proxy.netmap(), proxy.config.until_netmap);
    enforce::on_unreadable(netmap.as_deref(), until, "a request whose path cannot be read")
}

/// What is known of a request whose path cannot be read.
fn unreadable(head: &Parts) -> RequestInfo {
    RequestInfo {
        path: head.uri.path().to_owned(),
        verb: head.method.as_str().to_lowercase(),
        ..RequestInfo::default()
    }
}

fn settled(proxy: &Proxy, answer: Result<Response<Body>, UpstreamError>) -> Response<Body> {
    match answer {
        Ok(answer) => {
            proxy.metrics.request(metrics::Request::Forwarded);
            relayed(answer)
        }
        Err(error) => {
            proxy.metrics.request(metrics::Request::Failed);
            if error.is_full() {
                proxy.metrics.upstream_refused();
                proxy.notices.give(Notice::UpstreamExhausted);
            }
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
