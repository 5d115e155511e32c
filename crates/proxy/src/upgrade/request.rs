//! What a recorded session's request tells its recording, and what it asks of the API server.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, UPGRADE, USER_AGENT},
    request::Parts,
};
use podwitness_core::{
    identity::Caller,
    request_info::{Action, Query, is_true},
};
use podwitness_wire::{
    channel::Protocol,
    session::{Carrier, Language, Transport},
};
use ulid::Ulid;

use crate::{
    classify::{BEARER_SUBPROTOCOL, Script, Session, listed, subprotocols, trimmed},
    events::AUDIT_ID,
    session::SessionMeta,
    upgrade::subject::Subject,
};

/// Versions offered and chosen over SPDY (`k8s.io/apimachinery/pkg/util/httpstream`).
const STREAM_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const KUBECTL_COMMAND: HeaderName = HeaderName::from_static("kubectl-command");
/// Commands of kubectl whose sessions are made by others than `exec` and `attach`.
const VIA: [&str; 3] = ["run", "debug", "cp"];

/// Describes the session.
pub(super) fn meta(head: &Parts, session: &Session, caller: Caller) -> SessionMeta {
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let user_agent =
        head.headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let described = SessionMeta {
        id: Ulid::new(),
        request: session.info.clone(),
        caller,
        kind: "opaque",
        namespace: session.info.namespace.clone(),
        pod: String::new(),
        container: String::new(),
        command: Vec::new(),
        image: String::new(),
        via: via(&head.headers),
        tty: false,
        stdin: false,
        user_agent: user_agent.unwrap_or_default(),
    };
    let Some(action) = &session.action else {
        return SessionMeta { command: vec![session.info.path.clone()], ..described };
    };
    // The kubelet reads other names and values than the API server (`pkg/kubelet/cri/streaming/remotecommand`).
    let (stdin, is_set): (_, fn(&str) -> bool) =
        if action.through_node { ("input", |value| value == "1") } else { ("stdin", is_true) };
    SessionMeta {
        kind: action.action.as_str(),
        namespace: action.namespace.clone(),
        pod: action.pod.clone(),
        container: query
            .first("container")
            .filter(|_| !action.through_node)
            .unwrap_or(&action.container)
            .to_owned(),
        command: match action.action {
            Action::Run => query.first("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect(),
            Action::Exec => query.all("command").map(str::to_owned).collect(),
            Action::Unknown => vec![session.info.path.clone()],
            Action::Attach | Action::PortForward => Vec::new(),
        },
        tty: query.first("tty").is_some_and(is_set),
        stdin: query.first(stdin).is_some_and(is_set),
        ..described
    }
}

/// What kubectl says it is doing (`k8s.io/cli-runtime/pkg/genericclioptions/command_headers.go`): for the reader, never
/// for a decision.
fn via(headers: &HeaderMap) -> &'static str {
    let command = headers.get(KUBECTL_COMMAND).map(HeaderValue::as_bytes).unwrap_or_default();
    let said = command.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).nth(1);
    VIA.into_iter().find(|via| said == Some(via.as_bytes())).unwrap_or_default()
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

/// Asks for nothing that cannot be recorded: no extension that changes frames, and of the protocols those that are
/// understood, besides a bearer token. The audit log gets the session's id, unless the client chose its own.
pub(super) fn prepare(headers: &mut HeaderMap, script: Script, meta: &SessionMeta) {
    match script {
        Script::Command(_) => {
            let is_known = |name: &[u8]| Protocol::of_header(name).is_some();
            keep(headers, is_known, is_known);
        }
        Script::Forward(_) => keep(
            headers,
            |name| Carrier::of_header(name, Transport::WebSocket).is_some(),
            |name| Carrier::of_header(name, Transport::Spdy).is_some(),
        ),
        // An extension would make its bytes unreadable.
        Script::Undecoded => drop(headers.remove(SEC_WEBSOCKET_EXTENSIONS)),
        Script::Answer | Script::Opaque => {}
    }
    if !headers.contains_key(AUDIT_ID)
        && let Ok(id) = HeaderValue::try_from(meta.id.to_string())
    {
        headers.insert(AUDIT_ID, id);
    }
}

/// How a session is recorded in which the server has chosen what cannot be followed; `None` where it cannot at all.
pub(super) const fn undecoded(script: Script) -> Option<Language> {
    match script {
        Script::Command(_) | Script::Undecoded => Some(Language::Undecoded),
        Script::Forward(_) | Script::Opaque => Some(Language::Opaque),
        Script::Answer => None,
    }
}

/// What the server has chosen to speak; without a word of it the first. `None` where it cannot be followed, or where
/// the server upgrades to something else than it was asked for.
pub(super) fn chosen(answer: &HeaderMap, script: Script) -> Option<Language> {
    match script {
        Script::Command(transport) | Script::Forward(transport) if !upgrades_to(answer, transport) => None,
        Script::Command(transport) => {
            Some(Language::Command(transport, Protocol::of_header(name_in(answer, transport))?))
        }
        Script::Forward(transport) => {
            Some(Language::Forward(Carrier::of_header(name_in(answer, transport), transport)?))
        }
        Script::Opaque => Some(Language::Opaque),
        Script::Undecoded => Some(Language::Undecoded),
        Script::Answer => None,
    }
}

fn upgrades_to(answer: &HeaderMap, transport: Transport) -> bool {
    let name = match transport {
        Transport::WebSocket => "websocket",
        Transport::Spdy => "SPDY/3.1",
    };
    let upgrade = answer.get(UPGRADE).map(|value| trimmed(value.as_bytes()));
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(name.as_bytes()))
}

fn name_in(answer: &HeaderMap, transport: Transport) -> &[u8] {
    let name = match transport {
        Transport::WebSocket => SEC_WEBSOCKET_PROTOCOL,
        Transport::Spdy => STREAM_VERSION,
    };
    answer.get(name).map(|value| trimmed(value.as_bytes())).unwrap_or_default()
}

fn keep(headers: &mut HeaderMap, subprotocol: fn(&[u8]) -> bool, version: fn(&[u8]) -> bool) {
    keep_subprotocols(headers, subprotocol);
    keep_versions(headers, version);
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
}

/// One list, as RFC 6455 §4.1 has it: not every server reads the second of two headers.
fn keep_subprotocols(headers: &mut HeaderMap, is_known: fn(&[u8]) -> bool) {
    let kept: Vec<&[u8]> =
        subprotocols(headers).filter(|name| is_known(name) || name.starts_with(BEARER_SUBPROTOCOL)).collect();
    match HeaderValue::try_from(kept.join(&b", "[..])) {
        Ok(mut offered) if !offered.is_empty() => {
            offered.set_sensitive(true);
            headers.insert(SEC_WEBSOCKET_PROTOCOL, offered);
        }
        _ => drop(headers.remove(SEC_WEBSOCKET_PROTOCOL)),
    }
}

/// A header for each, as client-go has it: not every server takes a list apart.
fn keep_versions(headers: &mut HeaderMap, is_known: fn(&[u8]) -> bool) {
    let kept: Vec<HeaderValue> = listed(headers, &STREAM_VERSION)
        .filter(|name| is_known(name))
        .filter_map(|name| HeaderValue::from_bytes(name).ok())
        .collect();
    headers.remove(STREAM_VERSION);
    for version in kept {
        headers.append(STREAM_VERSION, version);
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

    fn upgraded(to: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(UPGRADE, HeaderValue::from_static(to))])
    }

    #[test]
    fn a_server_that_upgrades_to_something_else_cannot_be_followed() {
        let script = Script::Command(Transport::Spdy);
        let followed = Language::Command(Transport::Spdy, Protocol::Unnamed);
        assert_eq!(chosen(&upgraded("SPDY/3.1"), script), Some(followed));
        assert_eq!(chosen(&upgraded("websocket"), script), None);
        assert_eq!(chosen(&HeaderMap::new(), script), None);
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
        assert_eq!((&*meta.user_agent, &*meta.pod, meta.kind), ("kubectl/v1.34", "p", "exec"));
    }

    #[test]
    fn a_session_through_the_kubelet_is_described_as_the_kubelet_reads_it() {
        let meta = described(&head(
            "/api/v1/nodes/x/proxy/exec/n/p/c?command=sh&container=d&stdin=1&input=1&tty=true",
        ));
        assert_eq!((&*meta.namespace, &*meta.pod, &*meta.container), ("n", "p", "c"));
        assert_eq!((meta.tty, meta.stdin, meta.kind), (false, true, "exec"));
        let meta = described(&head("/api/v1/nodes/x/proxy/run/n/p/uid/c?cmd=ls+-l&command=x"));
        assert_eq!((meta.kind, meta.command), ("run", vec!["ls".to_owned(), "-l".to_owned()]));
    }

    #[test]
    fn of_an_opaque_session_the_path_is_described() {
        let meta = described(&head("/api/v1/namespaces/n/services/s:80/proxy/ws?token=secret"));
        assert_eq!((meta.kind, &*meta.namespace, &*meta.pod), ("opaque", "n", ""));
        assert_eq!(meta.command, ["/api/v1/namespaces/n/services/s:80/proxy/ws"]);
    }

    #[test]
    fn of_a_session_of_unknown_kind_the_path_is_described() {
        let meta = described(&head("/api/v1/nodes/x/proxy/./cri/exec/t?a=b"));
        assert_eq!((meta.kind, &*meta.namespace, &*meta.pod), ("unknown", "", ""));
        assert_eq!(meta.command, ["/api/v1/nodes/x/proxy/./cri/exec/t"]);
    }

    #[test]
    fn of_a_port_forward_only_what_can_be_followed_is_offered() {
        let mut head = head("/api/v1/namespaces/n/pods/p/portforward");
        let offers = "SPDY/3.1+portforward.k8s.io, v4.base64.channel.k8s.io, v4.channel.k8s.io";
        head.headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offers));
        let meta = described(&head);
        prepare(&mut head.headers, Script::Forward(Transport::WebSocket), &meta);
        let offered: Vec<&[u8]> = subprotocols(&head.headers).collect();
        assert_eq!(offered, [&b"SPDY/3.1+portforward.k8s.io"[..], b"v4.channel.k8s.io"]);
        let language = |name| {
            let mut answer = upgraded("WebSocket");
            answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
            chosen(&answer, Script::Forward(Transport::WebSocket))
        };
        assert_eq!(language("SPDY/3.1+portforward.k8s.io"), Some(Language::Forward(Carrier::Tunnel)));
        assert_eq!(language("v4.channel.k8s.io"), Some(Language::Forward(Carrier::Channels)));
        assert_eq!(language("v5.channel.k8s.io"), None);
    }

    #[test]
    fn nothing_is_asked_for_that_cannot_be_recorded() {
        let mut head = head("/api/v1/namespaces/n/pods/p/exec?command=sh");
        let meta = described(&head);
        prepare(&mut head.headers, Script::Command(Transport::WebSocket), &meta);
        let offered = || subprotocols(&head.headers).map(|name| String::from_utf8_lossy(name).into_owned());
        let token = "base64url.bearer.authorization.k8s.io.YQ";
        let expected = ["v5.channel.k8s.io", "channel.k8s.io", token, "v4.channel.k8s.io"];
        assert_eq!(offered().collect::<Vec<_>>(), expected);
        assert!(!head.headers.contains_key(SEC_WEBSOCKET_EXTENSIONS));
        assert_eq!(head.headers[AUDIT_ID], meta.id.to_string());
    }

    #[test]
    fn the_audit_id_that_a_client_chose_stays() {
        let mut head = head("/api/v1/namespaces/n/pods/p/exec?command=sh");
        head.headers.insert(AUDIT_ID, HeaderValue::from_static("mine"));
        let meta = described(&head);
        prepare(&mut head.headers, Script::Command(Transport::WebSocket), &meta);
        assert_eq!(head.headers[AUDIT_ID], "mine");
    }
}
