//! What a request is to a witness: an ordinary request, or an upgrade and what for.
//!
//! Derived as the API server derives it (`k8s.io/apiserver` RequestInfo, `k8s.io/apimachinery/pkg/util/httpstream`,
//! `k8s.io/apiserver/pkg/util/wsstream`): whatever it would upgrade is an upgrade here, and what is none loses its
//! `Connection` and `Upgrade` headers, so that nothing is upgraded that was not classified.

mod credential;
mod values;

pub use credential::Credential;
pub(crate) use values::{listed, trimmed};

use http::{HeaderMap, Method, Version, header, request::Parts};
use podwitness_core::request_info::{Action, PodAction, Query, RequestInfo, is_true};
use podwitness_wire::{
    channel::Protocol,
    session::{self, Carrier},
};

use crate::metrics::Purpose;

/// Prefix of the WebSocket subprotocol that carries a bearer token
/// (`apiserver/pkg/authentication/request/websocket/protocol.go`).
pub(crate) const BEARER_SUBPROTOCOL: &[u8] = b"base64url.bearer.authorization.k8s.io.";

/// What a request is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Class {
    /// One answer to one question.
    Ordinary {
        /// What it asks; `None` where the path cannot be read.
        info: Option<RequestInfo>,
        /// Whether the answer goes on for as long as the client listens.
        endless: bool,
    },
    /// A session, or what may become one.
    Session(Session),
}

/// A request that leaves the request and answer scheme, or runs something in a container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Session {
    /// What it asks; empty where the path cannot be read.
    pub info: RequestInfo,
    /// What it does in which pod, if it does.
    pub action: Option<PodAction>,
    /// What it is for.
    pub purpose: Purpose,
    /// How it travels.
    pub transport: Transport,
    /// How it can be followed; `None` where it cannot.
    pub script: Option<Script>,
}

/// How a session travels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// WebSocket.
    WebSocket,
    /// SPDY/3.1.
    Spdy,
    /// An upgrade to something else.
    Other,
    /// No upgrade: an ordinary request that runs something.
    Request,
}

/// How a session can be followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Script {
    /// As a remote command, in whichever version the server chooses.
    Command(session::Transport),
    /// As forwarded connections.
    Forward(session::Transport),
    /// By the answer to its request.
    Answer,
    /// By the number of its bytes.
    Opaque,
    /// As a remote command in a protocol that is not known, or something else that the kubelet may offer: by what the
    /// server says, as it stands on the wire.
    Undecoded,
}

impl Class {
    /// What the request asks; `None` where the path cannot be read.
    pub(crate) const fn info(&self) -> Option<&RequestInfo> {
        match self {
            Self::Ordinary { info, .. } => info.as_ref(),
            Self::Session(session) => Some(&session.info),
        }
    }
}

impl Transport {
    /// What carries a session that can be followed.
    #[must_use]
    const fn carries(self) -> Option<session::Transport> {
        match self {
            Self::WebSocket => Some(session::Transport::WebSocket),
            Self::Spdy => Some(session::Transport::Spdy),
            Self::Other | Self::Request => None,
        }
    }
}

impl Session {
    /// Whether what happens in it can be recorded, and not only that something does.
    #[must_use]
    pub const fn is_recordable(&self) -> bool {
        !self.is_of_unknown_kind() && !matches!(self.script, None | Some(Script::Opaque | Script::Undecoded))
    }

    /// Whether its path, which is one of the kubelet's, does not tell what it does.
    #[must_use]
    pub const fn is_of_unknown_kind(&self) -> bool {
        matches!(self.action, Some(PodAction { action: Action::Unknown, .. }))
    }

    /// Names it in messages.
    #[must_use]
    pub fn name(&self) -> String {
        let what = match self.purpose {
            Purpose::Exec => "exec",
            Purpose::Attach => "attach",
            Purpose::PortForward => "port-forward",
            Purpose::Node => "a session through the node",
            Purpose::Event => "a watch or log",
            Purpose::Opaque => "an opaque upgrade",
            Purpose::Unknown => "an upgrade of an unreadable path",
        };
        let how = match self.transport {
            Transport::WebSocket if self.action.is_some() && !self.is_recordable() => {
                " over WebSocket without a known protocol"
            }
            Transport::WebSocket => " over WebSocket",
            Transport::Spdy => " over SPDY/3.1",
            Transport::Other => " over an unknown protocol",
            Transport::Request => "",
        };
        format!("{what}{how}")
    }

    fn new(head: &Parts, info: RequestInfo, transport: Transport) -> Self {
        let action = info.pod_action();
        let purpose = purpose(&info, action.as_ref());
        let script = script(head, purpose, action.as_ref(), transport);
        Self { info, action, purpose, transport, script }
    }

    /// An upgrade of a path that cannot be read.
    fn unreadable(transport: Transport) -> Self {
        let (info, purpose) = (RequestInfo::default(), Purpose::Unknown);
        Self { info, action: None, purpose, transport, script: None }
    }
}

/// Classifies a request by its head.
#[must_use]
pub fn classify(head: &Parts) -> Class {
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let info = RequestInfo::parse(head.method.as_str(), target).ok();
    let transport = transport(head);
    match (transport, info) {
        (None, info) => ordinary(head, info),
        (Some(transport), Some(info)) => Class::Session(Session::new(head, info, transport)),
        (Some(transport), None) => Class::Session(Session::unreadable(transport)),
    }
}

/// Offered subprotocols in order.
pub fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    listed(headers, &header::SEC_WEBSOCKET_PROTOCOL)
}

/// A node's `run` answers with the output of a command and needs no upgrade.
fn ordinary(head: &Parts, info: Option<RequestInfo>) -> Class {
    match info {
        Some(info) if info.pod_action().is_some_and(|action| action.through_node) => {
            Class::Session(Session::new(head, info, Transport::Request))
        }
        info => Class::Ordinary { endless: info.as_ref().is_some_and(|info| is_endless(head, info)), info },
    }
}

fn is_endless(head: &Parts, info: &RequestInfo) -> bool {
    let follows = || Query::parse(head.uri.query().unwrap_or_default()).first("follow").is_some_and(is_true);
    info.verb == "watch" || info.subresource == "log" && follows()
}

/// An upgrade says so in `Connection`, names a protocol in `Upgrade`, and is HTTP/1.1. WebSocket is one that names
/// nothing else (`wsstream.IsWebSocketRequest`); any other may name SPDY among others (`spdy.UpgradeResponse`, whose
/// letters have no other spelling in small letters).
fn transport(head: &Parts) -> Option<Transport> {
    let asks = head
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|value| contains_ignoring_case(value.as_bytes(), b"upgrade"));
    if head.version != Version::HTTP_11 || !asks {
        return None;
    }
    let protocol = head.headers.get(header::UPGRADE)?.as_bytes();
    Some(if values::is_websocket(protocol) {
        Transport::WebSocket
    } else if contains_ignoring_case(protocol, b"spdy/3.1") {
        Transport::Spdy
    } else {
        Transport::Other
    })
}

/// A path of the kubelet that runs something answers without an upgrade, whether one is asked for or not.
fn script(
    head: &Parts,
    purpose: Purpose,
    action: Option<&PodAction>,
    transport: Transport,
) -> Option<Script> {
    let Some(action) = action else {
        return (purpose == Purpose::Opaque).then_some(Script::Opaque);
    };
    let carried =
        || transport.carries().filter(|_| transport != Transport::WebSocket || head.method == Method::GET);
    match action.action {
        Action::Run => Some(Script::Answer),
        _ if transport == Transport::Request => Some(Script::Answer),
        Action::Unknown => Some(Script::Undecoded),
        Action::Exec | Action::Attach => carried()
            .filter(|by| offers(head, *by, |name| Protocol::of_header(name).is_some()))
            .map_or(Some(Script::Undecoded), |by| Some(Script::Command(by))),
        Action::PortForward => carried()
            .filter(|by| offers(head, *by, |name| Carrier::of_header(name, *by).is_some()))
            .map_or(Some(Script::Opaque), |by| Some(Script::Forward(by))),
    }
}

/// Whether a protocol that is known is offered. A server to which none is offered speaks its first; over SPDY it
/// refuses what it does not know itself.
fn offers(head: &Parts, transport: session::Transport, known: impl Fn(&[u8]) -> bool) -> bool {
    let mut offered =
        subprotocols(&head.headers).filter(|name| !name.starts_with(BEARER_SUBPROTOCOL)).peekable();
    transport == session::Transport::Spdy || offered.peek().is_none() || offered.any(known)
}

fn purpose(info: &RequestInfo, action: Option<&PodAction>) -> Purpose {
    match action {
        Some(action) if action.through_node => Purpose::Node,
        Some(PodAction { action: Action::Exec, .. }) => Purpose::Exec,
        Some(PodAction { action: Action::Attach, .. }) => Purpose::Attach,
        Some(PodAction { action: Action::PortForward, .. }) => Purpose::PortForward,
        _ if info.is_resource_request && (info.verb == "watch" || info.is_pod_subresource("log")) => {
            Purpose::Event
        }
        _ => Purpose::Opaque,
    }
}

fn contains_ignoring_case(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests;
