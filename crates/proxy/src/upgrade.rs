//! Upgrades: sessions are recorded where a grant asks for it and a recording can be made; everything else passes or
//! is refused as the policy says. What is decided is decided before anything goes upstream.

mod fallback;
mod relay;
mod request;
mod subject;
mod unrecorded;

pub(crate) use fallback::Refusals;

use std::sync::Arc;

use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use podwitness_core::{
    control::{Netmap, Notice},
    failure::{OnUnknown, Policy},
    grant::Obligation,
    identity::Caller,
    mask::masked,
    request_info::{Action, RequestInfo},
    status::Status,
};

use crate::{
    Proxy,
    body::{Body, streamed},
    classify::{Credential, Script, Session, Transport},
    enforce,
    events::{self, Opens, Witness},
    forward,
    identity::{CallerCell, impersonation_of},
    memory::{Flight, body::FromClient},
    metrics::{Purpose, Upgrade},
    question::Asker,
    refusal,
    serve::Client,
    session::{self, Recording, SessionMeta},
    target::Target,
};
use fallback::Attempt;
use subject::Subject;
use unrecorded::Passing;

/// What was decided of a session.
enum Decision {
    /// Relayed with a recording, under this policy.
    Record(Recording, Policy),
    /// Relayed without one, for as long as that is allowed.
    Pass(Passing),
}

/// Serves a session from its request on.
pub(crate) async fn session(
    proxy: &Arc<Proxy>,
    client: &Client,
    mut request: Request<Incoming>,
    flight: &Flight,
    session: Session,
) -> Response<Body> {
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (mut head, body) = request.into_parts();
    let credential = match Credential::of(&head.headers) {
        Ok(credential) => credential,
        Err(error) => {
            proxy.metrics.upgrade(session.purpose, Upgrade::Refused);
            return refusal::answer(&Status::bad_request(error.to_string()));
        }
    };
    let attempt = Attempt::of(&head, &credential, &session);
    if let Some(first) = proxy.refusals.first(&attempt).await {
        return refusal::answer(&first);
    }
    let (opens, caller) = (Opens::Stream, CallerCell::new());
    let by = (&credential, &caller);
    let mut witness = match events::witness(proxy, client, &mut head, &session.info, by, opens).await {
        Ok(witness) => witness,
        Err(status) => {
            proxy.metrics.upgrade(session.purpose, Upgrade::Refused);
            return proxy.refusal_reporter.request(&status, Some(&session.info));
        }
    };
    let decision = match decide(proxy, client, &mut head, by, &session, witness.as_mut()).await {
        Ok(decision) => decision,
        Err(status) => {
            proxy.metrics.upgrade(session.purpose, Upgrade::Refused);
            proxy.refusals.remember(&attempt, &status).await;
            return witnessed(witness, proxy.refusal_reporter.session(&status));
        }
    };
    let body = FromClient::new(streamed(body), flight.clone()).boxed_unsync();
    let body = match &witness {
        Some(witness) => witness.sees(body),
        None => body,
    };
    let request = Request::from_parts(head, body);
    if session.script == Some(Script::Answer) || session.transport == Transport::Request {
        return witnessed(witness, without_upgrade(proxy, client, request, &session, decision).await);
    }
    let answer = match proxy.upstream.send_alone(&client.target, request).await {
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            // The connection is a session from now on, and no longer the listener's.
            client.meter.stop();
            let on_upgrade = (on_upgrade, flight.clone());
            return relay::switch(proxy, on_upgrade, answer, &session, decision, witness);
        }
        // Whatever the kubelet offers there may answer without an upgrade.
        Ok(answer) if session.is_of_unknown_kind() => answered(proxy, &session, answer, decision).await,
        Ok(answer) => {
            proxy.metrics.upgrade(session.purpose, Upgrade::Declined);
            forward::relayed(answer.map(streamed))
        }
        Err(error) => {
            proxy.metrics.upgrade(session.purpose, Upgrade::Failed);
            forward::unanswered(&error)
        }
    };
    witnessed(witness, answer)
}

/// An answer that opened no session.
fn witnessed(witness: Option<Witness>, answer: Response<Body>) -> Response<Body> {
    match witness {
        Some(witness) => witness.answered(answer),
        None => answer,
    }
}

/// A session that is an ordinary request to the API server: its answer is what is recorded.
async fn without_upgrade(
    proxy: &Arc<Proxy>,
    client: &Client,
    mut request: Request<Body>,
    session: &Session,
    decision: Decision,
) -> Response<Body> {
    forward::end_to_end(request.headers_mut());
    match proxy.upstream.send_alone(&client.target, request).await {
        Ok(answer) => answered(proxy, session, answer, decision).await,
        Err(error) => {
            proxy.metrics.upgrade(session.purpose, Upgrade::Failed);
            forward::unanswered(&error)
        }
    }
}

/// Passes on an answer that is what a session has to say.
async fn answered(
    proxy: &Proxy,
    session: &Session,
    answer: Response<Incoming>,
    decision: Decision,
) -> Response<Body> {
    match decision {
        Decision::Pass(passing) => {
            // Grants may have come while the command ran; nothing of it was shown yet.
            if let Some(status) = passing.refusal(proxy).await {
                proxy.metrics.unrecorded_ended(session.purpose, passing.why);
                return proxy.refusal_reporter.session(&status);
            }
            proxy.metrics.upgrade(session.purpose, passing.why);
            forward::relayed(answer.map(streamed))
        }
        Decision::Record(recording, _) => {
            proxy.metrics.upgrade(session.purpose, Upgrade::Recorded);
            forward::relayed(session::answered(answer, recording))
        }
    }
}

/// Decides a session, and opens its recording if there is to be one.
async fn decide(
    proxy: &Proxy,
    client: &Client,
    head: &mut Parts,
    (credential, caller): (&Credential, &CallerCell),
    session: &Session,
    witness: Option<&mut Witness>,
) -> Result<Decision, Status> {
    if session.purpose == Purpose::Event {
        return Ok(Decision::Pass(Passing::because(Upgrade::NoSession, session)));
    }
    let netmap = proxy.netmap();
    let netmap = netmap.as_deref();
    if session.purpose == Purpose::Unknown {
        return unreadable(proxy, client, head, (credential, caller), session, netmap).await;
    }
    let by = (credential, &head.headers, caller);
    let Some((caller, obligation)) = obligation(proxy, &client.target, by, &session.info, netmap).await
    else {
        proxy.notices.give(Notice::NoGrant);
        return Ok(Decision::Pass(Passing::without_grant(&client.target, credential, head, session)));
    };
    if !session.is_recordable()
        && let OnUnknown::Refuse(status) = enforce::unrecordable(netmap, &obligation, session)
    {
        let meta = request::meta(head, session, caller);
        return Err(proxy.sessions.refused(&meta, &obligation.grants, status));
    }
    let Some(script) = session.script else {
        tracing::info!(what = session.name(), grants = ?obligation.grants, "session passes unrecorded");
        return Ok(Decision::Pass(Passing::because(Upgrade::Unrecorded, session)));
    };
    let mut meta = request::meta(head, session, caller);
    if let Some(witness) = &witness {
        meta.id = witness.id();
    }
    if meta.kind == Action::Attach.as_str()
        && let Some(container) = subject(proxy, client, head, credential, &meta).await
    {
        request::attached(&mut meta, container);
    }
    meta.command = masked(&meta.command, &obligation.mask_flags);
    request::prepare(&mut head.headers, script, &meta);
    let policy = enforce::policy(&obligation);
    let recording = proxy.sessions.open(meta, obligation).await?;
    if let Some(witness) = witness {
        witness.opens_session();
    }
    Ok(Decision::Record(recording, policy))
}

/// Decides an upgrade whose path cannot be read: any grant may be meant.
async fn unreadable(
    proxy: &Proxy,
    client: &Client,
    head: &Parts,
    (credential, caller): (&Credential, &CallerCell),
    session: &Session,
    netmap: Option<&Netmap>,
) -> Result<Decision, Status> {
    let what = session.name();
    match enforce::on_unreadable(netmap, proxy.config.until_netmap, &what) {
        OnUnknown::Forward => {
            tracing::info!(what, "session passes unrecorded");
            Ok(Decision::Pass(Passing::because(Upgrade::Unrecorded, session)))
        }
        OnUnknown::Refuse(status) => {
            let caller =
                proxy.identities.caller_once(caller, &client.target, credential, &head.headers).await;
            let meta = request::meta(head, session, caller);
            Err(proxy.sessions.refused(&meta, &[], status))
        }
    }
}

/// What a session is attached to.
async fn subject(
    proxy: &Proxy,
    client: &Client,
    head: &Parts,
    credential: &Credential,
    meta: &SessionMeta,
) -> Option<Subject> {
    let (upstream, target, headers) = (&proxy.upstream, &client.target, &head.headers);
    let impersonation = impersonation_of(headers);
    let asker = Asker { upstream, target, credential, headers, impersonation };
    subject::find(&asker, (&meta.namespace, &meta.pod), &meta.container).await
}

/// Who asks, by a credential and headers, and what the grants ask of that. The API server is not asked who it is where
/// no grant could apply.
async fn obligation(
    proxy: &Proxy,
    target: &Arc<Target>,
    (credential, headers, caller): (&Credential, &HeaderMap, &CallerCell),
    info: &RequestInfo,
    netmap: Option<&Netmap>,
) -> Option<(Caller, Obligation)> {
    if !enforce::may_oblige(netmap, info) {
        return None;
    }
    let caller = proxy.identities.caller_once(caller, target, credential, headers).await;
    let obligation = enforce::obligation(netmap, proxy.config.until_netmap, &caller, info)?;
    Some((caller, obligation))
}
