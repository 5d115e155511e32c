//! After `101 Switching Protocols`: both connections are byte streams, with whatever was read too far taken along.

use std::{error::Error, sync::Arc};

use bytes::Bytes;
use futures_util::future::join;
use http::Response;
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use podwitness_core::{failure::OnUnknown, status::Status};
use podwitness_wire::session::Language;
use tokio::{
    io::AsyncWriteExt as _,
    time::{Duration, timeout},
};

use super::{
    Decision,
    request::{chosen, undecoded},
    unrecorded::Passing,
};
use crate::{
    BoxedStream, Proxy, Stream,
    body::{Body, full},
    classify::Session,
    enforce,
    events::{Witness, metered},
    intercept::ServerIo,
    memory::Flight,
    metrics::{Purpose, Upgrade},
    session::{self, Recording},
    stream::{Rewound, pass_both},
    upstream::Io,
};

/// How long the end of a connection may take to be said.
const FAREWELL: Duration = Duration::from_secs(1);

/// Passes the answer on and relays what follows it.
pub(super) fn switch(
    proxy: &Arc<Proxy>,
    (client, flight): (OnUpgrade, Flight),
    mut answer: Response<Incoming>,
    session: &Session,
    decision: Decision,
    mut witness: Option<Witness>,
) -> Response<Body> {
    let language = session.script.and_then(|script| chosen(answer.headers(), script));
    let undecoded = session.script.and_then(undecoded);
    let settled = match settle(decision, language, undecoded, session) {
        Ok(settled) => settled,
        Err(status) => {
            proxy.metrics.upgrade(session.purpose, Upgrade::Refused);
            return super::witnessed(witness, proxy.refusal_reporter.session(&status));
        }
    };
    if let Some(witness) = &mut witness {
        witness.head(answer.status(), answer.headers());
    }
    let (outcome, purpose) = (settled.outcome(), session.purpose);
    proxy.metrics.upgrade(purpose, outcome);
    let server = hyper::upgrade::on(&mut answer);
    // Taken before the client hears of its session, so that no drain can end in between.
    let guard = (outcome != Upgrade::NoSession).then(|| proxy.drain.guard());
    let proxy = Arc::clone(proxy);
    tokio::spawn(async move {
        match relay(&proxy, (client, server), settled, purpose, witness.as_ref()).await {
            Ok(()) => witness.iter_mut().for_each(Witness::ended),
            Err(error) => {
                tracing::debug!(error = &error as &dyn Error, "upgraded connection ended");
            }
        }
        // Its last event is written before the process may end.
        drop(witness);
        drop(guard);
        drop(flight);
    });
    answer.map(|_| full(Bytes::new()))
}

/// How a session goes on once its server has agreed to it.
enum Settled {
    Recorded(Recording, Language),
    /// Unrecorded, and how it can be followed.
    Passes(Passing, Language),
}

impl Settled {
    const fn outcome(&self) -> Upgrade {
        match self {
            Self::Recorded(..) => Upgrade::Recorded,
            Self::Passes(passing, _) => passing.why,
        }
    }
}

/// Only what can be recorded was offered: a server that chooses something else breaks RFC 6455 §4.1, and the session
/// is held to the policy once more. Where that lets it go on, it is recorded undecoded.
fn settle(
    decision: Decision,
    language: Option<Language>,
    undecoded: Option<Language>,
    session: &Session,
) -> Result<Settled, Box<Status>> {
    let (recording, policy) = match decision {
        Decision::Pass(passing) => return Ok(Settled::Passes(passing, language.unwrap_or(Language::Opaque))),
        Decision::Record(recording, policy) => (recording, policy),
    };
    if let Some(language) = language {
        return Ok(Settled::Recorded(recording, language));
    }
    match enforce::on_unknown(&policy, "the protocol that the API server chose") {
        OnUnknown::Forward => Ok(match undecoded {
            Some(language) => Settled::Recorded(recording, language),
            None => Settled::Passes(Passing::because(Upgrade::Unrecorded, session), Language::Opaque),
        }),
        OnUnknown::Refuse(status) => Err(Box::new(recording.refused(status))),
    }
}

async fn relay(
    proxy: &Proxy,
    (client, server): (OnUpgrade, OnUpgrade),
    settled: Settled,
    purpose: Purpose,
    witness: Option<&Witness>,
) -> hyper::Result<()> {
    let (client, server) = tokio::try_join!(client, server)?;
    let (client, server) = (reclaim::<ServerIo>(client), reclaim::<Io>(server));
    let client = match witness {
        Some(witness) => metered(client, witness),
        None => client,
    };
    match settled {
        Settled::Recorded(recording, language) => session::relay(client, server, language, recording).await,
        Settled::Passes(Passing { why: Upgrade::NoSession, .. }, _) => {
            pass_events(proxy, client, server).await;
        }
        Settled::Passes(passing, language) => passing.relay(proxy, purpose, language, (client, server)).await,
    }
    Ok(())
}

/// Events of a watch, or a log. Each side learns of the other's end by its own; why it ended concerns nobody here.
async fn pass_events(proxy: &Proxy, mut client: BoxedStream, mut server: BoxedStream) {
    let over = tokio::select! {
        passed = pass_both(&mut client, &mut server) => passed.is_err(),
        () = proxy.drain.over() => true,
    };
    if over {
        // The peers learn that it is over; whether they hear it changes nothing.
        let _ = timeout(FAREWELL, join(client.shutdown(), server.shutdown())).await;
    }
}

/// The stream under an upgraded connection, with what was read too far.
fn reclaim<T: Stream + 'static>(upgraded: Upgraded) -> BoxedStream {
    match upgraded.downcast::<TokioIo<T>>() {
        Ok(parts) => Box::new(Rewound::new(parts.read_buf, parts.io.into_inner())),
        Err(upgraded) => Box::new(TokioIo::new(upgraded)),
    }
}
