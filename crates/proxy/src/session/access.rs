//! The access log: one line for each session that was to be recorded, when it is known what became of it.
//!
//! Invariant: no argument of a command, nothing that was typed or shown. A message of the API server may quote a
//! command, so an exit that is no code is only called `error`.

use podwitness_core::{
    failure::Policy,
    outcome::{End, Outcome},
};
use podwitness_wire::session::{Carrier, Language, Transport};

use super::{Open, SessionMeta, tap::Summary};
use crate::journal::Closed;

/// Counts a session that is over and writes its line.
pub(super) fn closed(recording: &Open, language: Option<Language>, summary: &Summary, closed: &Closed) {
    let Summary { end, output, lasted, exit } = summary;
    recording.ledger.closed(*end, closed.outcome, *output, closed.lost);
    let meta = &recording.meta;
    let grants = match recording.journal.policy() {
        Policy::Closed { grants, .. } => grants,
        Policy::Open => recording.obligation.grants.clone(),
    };
    tracing::event!(
        target: "access",
        tracing::Level::INFO,
        session.id = %meta.id,
        session.kind = meta.kind,
        session.via = meta.via,
        session.transport = word(language),
        session.subprotocol = language.map(Language::as_str).unwrap_or_default(),
        session.tty = meta.tty,
        session.end = end.as_str(),
        session.outcome = closed.outcome.as_str(),
        session.exit = exit.as_deref().map(code).unwrap_or_default(),
        session.millis = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
        session.parts = closed.parts,
        recorder = closed.recorder.map(|recorder| recorder.to_string()).unwrap_or_default(),
        user.name = meta.caller.effective.name,
        user.verified = meta.caller.verified,
        pod.namespace = meta.namespace,
        pod.name = meta.pod,
        pod.container = meta.container,
        grants = ?grants,
        bytes.output = output,
        bytes.lost = closed.lost,
        "session"
    );
}

/// Writes the line of a session that was refused because it could not be recorded.
pub(super) fn refused(meta: &SessionMeta, grants: &[String], reason: &str) {
    tracing::event!(
        target: "access",
        tracing::Level::INFO,
        session.id = %meta.id,
        session.kind = meta.kind,
        session.via = meta.via,
        session.tty = meta.tty,
        session.end = End::Never.as_str(),
        session.outcome = Outcome::Refused.as_str(),
        user.name = meta.caller.effective.name,
        user.verified = meta.caller.verified,
        pod.namespace = meta.namespace,
        pod.name = meta.pod,
        pod.container = meta.container,
        grants = ?grants,
        reason,
        "session"
    );
}

const fn word(language: Option<Language>) -> &'static str {
    match language {
        Some(
            Language::Command(Transport::WebSocket, _)
            | Language::Forward(Carrier::Tunnel | Carrier::Channels),
        ) => "websocket",
        Some(Language::Command(Transport::Spdy, _) | Language::Forward(Carrier::Spdy)) => "spdy",
        Some(Language::Opaque) => "opaque",
        Some(Language::Undecoded) => "undecoded",
        None => "request",
    }
}

fn code(exit: &str) -> &str {
    if exit.parse::<i32>().is_ok() { exit } else { "error" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_that_may_quote_a_command_is_not_logged() {
        assert_eq!(["0", "137", "-1"].map(code), ["0", "137", "-1"]);
        assert_eq!(["InternalError: exec: \"hunter2\": not found", ""].map(code), ["error"; 2]);
    }
}
