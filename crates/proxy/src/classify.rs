//! What a request is to a witness: an ordinary request, or an upgrade and what for.
//!
//! Derived as the API server derives it (`k8s.io/apiserver` RequestInfo, `k8s.io/apimachinery/pkg/util/httpstream`,
//! `k8s.io/apiserver/pkg/util/wsstream`): whatever it would upgrade is an upgrade here, and what is none loses its
//! `Connection` and `Upgrade` headers, so that nothing is upgraded that was not classified.

mod credential;

pub use credential::Credential;

use http::{HeaderMap, HeaderName, Method, Version, header, request::Parts};
use podwitness_core::request_info::{Query, RequestInfo, is_true};
use podwitness_wire::{channel::Protocol, session};

use crate::metrics::Purpose;

/// Prefix of the WebSocket subprotocol that carries a bearer token
/// (`apiserver/pkg/authentication/request/websocket/protocol.go`).
pub(crate) const BEARER_SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

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
    /// What it is for.
    pub purpose: Purpose,
    /// How it travels.
    pub transport: Transport,
}

/// How a session travels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// WebSocket, offering a channel protocol that can be recorded or not.
    WebSocket {
        /// Whether a version that can be followed is offered, or none at all, which means the first.
        recordable: bool,
    },
    /// SPDY/3.1.
    Spdy,
    /// An upgrade to something else.
    Other,
    /// No upgrade: an ordinary request that runs something.
    Request,
}

impl Transport {
    /// What carries a session that can be followed.
    #[must_use]
    pub const fn carries(self) -> Option<session::Transport> {
        match self {
            Self::WebSocket { recordable: true } => Some(session::Transport::WebSocket),
            Self::Spdy => Some(session::Transport::Spdy),
            _ => None,
        }
    }
}

impl Session {
    /// Whether a recording of it can be made.
    #[must_use]
    pub fn is_recordable(&self) -> bool {
        matches!(self.purpose, Purpose::Exec | Purpose::Attach) && self.transport.carries().is_some()
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
            Transport::WebSocket { recordable: false }
                if matches!(self.purpose, Purpose::Exec | Purpose::Attach) =>
            {
                " over WebSocket without a known channel protocol"
            }
            Transport::WebSocket { .. } => " over WebSocket",
            Transport::Spdy => " over SPDY/3.1",
            Transport::Other => " over an unknown protocol",
            Transport::Request => "",
        };
        format!("{what}{how}")
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
        (Some(transport), Some(info)) => Class::Session(Session { purpose: purpose(&info), info, transport }),
        (Some(transport), None) => {
            Class::Session(Session { info: RequestInfo::default(), purpose: Purpose::Unknown, transport })
        }
    }
}

/// Offered subprotocols in order.
pub fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    listed(headers, &header::SEC_WEBSOCKET_PROTOCOL)
}

/// What a header lists, repeated or separated by commas.
pub(crate) fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// A node's `run` answers with the output of a command and needs no upgrade.
fn ordinary(head: &Parts, info: Option<RequestInfo>) -> Class {
    match info {
        Some(info) if purpose(&info) == Purpose::Node => {
            Class::Session(Session { purpose: Purpose::Node, info, transport: Transport::Request })
        }
        info => Class::Ordinary { endless: info.as_ref().is_some_and(|info| is_endless(head, info)), info },
    }
}

fn is_endless(head: &Parts, info: &RequestInfo) -> bool {
    let follows = || Query::parse(head.uri.query().unwrap_or_default()).first("follow").is_some_and(is_true);
    info.verb == "watch" || info.subresource == "log" && follows()
}

/// An upgrade says so in `Connection`, names a protocol in `Upgrade`, and is HTTP/1.1.
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
    Some(if contains_ignoring_case(protocol, b"websocket") {
        Transport::WebSocket { recordable: head.method == Method::GET && offers_known(&head.headers) }
    } else if contains_ignoring_case(protocol, b"spdy/3.1") {
        Transport::Spdy
    } else {
        Transport::Other
    })
}

/// A server to which no version is offered speaks the first.
fn offers_known(headers: &HeaderMap) -> bool {
    let mut offered = subprotocols(headers).filter(|name| !name.starts_with(BEARER_SUBPROTOCOL)).peekable();
    offered.peek().is_none() || offered.any(|name| Protocol::parse(name).is_some())
}

fn purpose(info: &RequestInfo) -> Purpose {
    let proxied = match (&*info.verb, &*info.subresource) {
        ("proxy", _) => first_segment(info, 2),
        (_, "proxy") => first_segment(info, 3),
        _ => None,
    };
    if info.is_pod_subresource("exec") {
        Purpose::Exec
    } else if info.is_pod_subresource("attach") {
        Purpose::Attach
    } else if info.is_pod_subresource("portforward") {
        Purpose::PortForward
    } else if info.resource == "nodes" && proxied.is_some_and(|path| is_kubelet_session(path)) {
        Purpose::Node
    } else if info.is_resource_request && (info.verb == "watch" || info.is_pod_subresource("log")) {
        Purpose::Event
    } else {
        Purpose::Opaque
    }
}

fn first_segment(info: &RequestInfo, from: usize) -> Option<&String> {
    info.parts.iter().skip(from).find(|segment| !segment.is_empty())
}

/// Sessions of the kubelet's own API (`pkg/kubelet/server/server.go`).
fn is_kubelet_session(path: &str) -> bool {
    ["exec", "run", "attach", "portForward", "cri"].iter().any(|name| path.eq_ignore_ascii_case(name))
}

fn contains_ignoring_case(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests;
