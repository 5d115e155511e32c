//! What a recorded session's request tells its recording, and what it asks of the API server.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, USER_AGENT},
    request::Parts,
};
use podwitness_core::{
    identity::Caller,
    request_info::{Query, is_true},
};
use podwitness_wire::{channel::Protocol, session::Transport};
use ulid::Ulid;

use crate::{
    classify::{BEARER_SUBPROTOCOL, Session, listed, subprotocols},
    session::SessionMeta,
    upgrade::subject::Subject,
};

/// Versions offered and chosen over SPDY (`k8s.io/apimachinery/pkg/util/httpstream`).
const STREAM_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const KUBECTL_COMMAND: HeaderName = HeaderName::from_static("kubectl-command");
/// Commands of kubectl whose sessions are made by others than `exec` and `attach`.
const VIA: [&str; 3] = ["run", "debug", "cp"];

/// Describes the session.
pub(super) fn meta(head: &Parts, session: &Session, caller: Caller) -> SessionMeta {
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let flag = |name| query.first(name).is_some_and(is_true);
    let user_agent =
        head.headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    SessionMeta {
        id: Ulid::new(),
        request: session.info.clone(),
        caller,
        container: query.first("container").unwrap_or_default().to_owned(),
        command: query.all("command").map(str::to_owned).collect(),
        image: String::new(),
        via: via(&head.headers),
        tty: flag("tty"),
        stdin: flag("stdin"),
        user_agent: user_agent.unwrap_or_default(),
    }
}

/// What kubectl says it is doing (`k8s.io/cli-runtime/pkg/genericclioptions/command_headers.go`): for the reader, never
/// for a decision.
fn via(headers: &HeaderMap) -> &'static str {
    let command = headers.get(KUBECTL_COMMAND).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let said = command.split_whitespace().nth(1);
    VIA.into_iter().find(|via| said == Some(via)).unwrap_or_default()
}

/// Completes the description of a session that is attached to `container`.
pub(super) fn attached(meta: &mut SessionMeta, container: Subject) {
    if container.is_ephemeral {
        meta.via = "debug";
    }
    meta.container.clone_from(&container.name);
    meta.image.clone_from(&container.image);
    meta.command = container.command();
}

/// Asks for nothing that cannot be recorded: no extension that changes frames, and of the versions those that are
/// understood, besides a bearer token. The audit log gets the session's id, unless the client chose its own.
pub(super) fn prepare(headers: &mut HeaderMap, meta: &SessionMeta) {
    keep_known_subprotocols(headers);
    keep_known_versions(headers);
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    if !headers.contains_key(AUDIT_ID)
        && let Ok(id) = HeaderValue::try_from(meta.id.to_string())
    {
        headers.insert(AUDIT_ID, id);
    }
}

/// The version that the server has chosen; without a word of it the first.
pub(super) fn chosen(answer: &HeaderMap, transport: Transport) -> Option<Protocol> {
    let name = match transport {
        Transport::WebSocket => SEC_WEBSOCKET_PROTOCOL,
        Transport::Spdy => STREAM_VERSION,
    };
    Protocol::parse(answer.get(name).map_or(Ok(""), HeaderValue::to_str).ok()?.trim())
}

/// One list, as RFC 6455 §4.1 has it: not every server reads the second of two headers.
fn keep_known_subprotocols(headers: &mut HeaderMap) {
    let kept: Vec<&str> = subprotocols(headers)
        .filter(|name| Protocol::parse(name).is_some() || name.starts_with(BEARER_SUBPROTOCOL))
        .collect();
    match HeaderValue::try_from(kept.join(", ")) {
        Ok(mut offered) if !offered.is_empty() => {
            offered.set_sensitive(true);
            headers.insert(SEC_WEBSOCKET_PROTOCOL, offered);
        }
        _ => drop(headers.remove(SEC_WEBSOCKET_PROTOCOL)),
    }
}

/// A header for each, as client-go has it: not every server takes a list apart.
fn keep_known_versions(headers: &mut HeaderMap) {
    let kept: Vec<Protocol> = listed(headers, &STREAM_VERSION).filter_map(Protocol::parse).collect();
    headers.remove(STREAM_VERSION);
    for version in kept {
        headers.append(STREAM_VERSION, HeaderValue::from_static(version.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::classify::{Class, classify};

    fn head(target: &str) -> Parts {
        let request = Request::get(target)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("User-Agent", "kubectl/v1.34")
            .header("Sec-WebSocket-Protocol", "v5.channel.k8s.io, channel.k8s.io")
            .header("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.YQ,v4.channel.k8s.io")
            .header("Sec-WebSocket-Extensions", "permessage-deflate");
        request.body(()).unwrap().into_parts().0
    }

    fn described(head: &Parts) -> SessionMeta {
        let Class::Session(session) = classify(head) else { panic!() };
        meta(head, &session, Caller::default())
    }

    #[test]
    fn a_session_is_described_by_its_query() {
        let target =
            "/api/v1/namespaces/n/pods/p/exec?command=sh&command=-c&command=a+b&container=c&tty=&stdin=false";
        let meta = described(&head(target));
        assert_eq!(meta.command, ["sh", "-c", "a b"]);
        assert_eq!((&*meta.container, meta.tty, meta.stdin), ("c", true, false));
        assert_eq!((&*meta.user_agent, &*meta.request.name), ("kubectl/v1.34", "p"));
    }

    #[test]
    fn nothing_is_asked_for_that_cannot_be_recorded() {
        let mut head = head("/api/v1/namespaces/n/pods/p/exec?command=sh");
        let meta = described(&head);
        prepare(&mut head.headers, &meta);
        let offered: Vec<&str> = subprotocols(&head.headers).collect();
        let token = "base64url.bearer.authorization.k8s.io.YQ";
        assert_eq!(offered, ["v5.channel.k8s.io", "channel.k8s.io", token, "v4.channel.k8s.io"]);
        assert!(!head.headers.contains_key(SEC_WEBSOCKET_EXTENSIONS));
        assert_eq!(head.headers[AUDIT_ID], meta.id.to_string());
    }

    #[test]
    fn the_audit_id_that_a_client_chose_stays() {
        let mut head = head("/api/v1/namespaces/n/pods/p/exec?command=sh");
        head.headers.insert(AUDIT_ID, HeaderValue::from_static("mine"));
        let meta = described(&head);
        prepare(&mut head.headers, &meta);
        assert_eq!(head.headers[AUDIT_ID], "mine");
    }
}
