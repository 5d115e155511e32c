//! An API event: what one request asked, of what, by whom, and what came of it.
//!
//! The keys at the top are those of the reference payload (`tailscale/tailscale:sessionrecording/event.go`), all of
//! them always present; `podwitness` is an addition of ours that old readers ignore.
//!
//! Invariant: nothing here can hold a header, a cookie, a credential or a body. Of query parameters that the API server
//! itself does not read only the names are kept, because a token may stand in them.

mod fields;
mod line;

pub use fields::{Touched, touched};
pub use line::MAX_LINE;

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::{
    identity::Caller,
    mask::masked,
    request_info::{Query, RequestInfo},
};

/// What stands for a value that is not kept.
pub const WITHHELD: &str = "[withheld]";
/// Cap on the text of a path, a value or a user agent, in bytes; a request target may hold 64 KiB.
const MAX_TEXT: usize = 64 << 10;
/// What a query value is written with, as `net/url.QueryEscape` leaves it.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Parameters that the API server and the kubelet read (`metav1.ListOptions` and its like, `PodExecOptions`,
/// `PodLogOptions`, `pkg/kubelet/server`). None of them is a credential.
const KNOWN: &[&str] = &[
    "allowWatchBookmarks",
    "cmd",
    "command",
    "container",
    "continue",
    "dryRun",
    "error",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "follow",
    "force",
    "gracePeriodSeconds",
    "includeObject",
    "input",
    "insecureSkipTLSVerifyBackend",
    "labelSelector",
    "limit",
    "limitBytes",
    "orphanDependents",
    "output",
    "path",
    "port",
    "ports",
    "pretty",
    "previous",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "sinceSeconds",
    "sinceTime",
    "stderr",
    "stdin",
    "stdout",
    "stream",
    "tailLines",
    "timeout",
    "timeoutSeconds",
    "timestamps",
    "tty",
    "verbose",
    "watch",
];

/// One event. An answer's event has the id of the request's, and another [`Stage`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// What kind of event.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Where a recorder keeps it; filled by the recorder.
    pub id: String,
    /// Unix seconds.
    pub timestamp: i64,
    /// `User-Agent` of the request.
    pub user_agent: String,
    /// The request as it came.
    pub request: Asked,
    /// The request as the API server reads it.
    pub kubernetes: RequestInfo,
    /// The pod.
    pub source: Source,
    /// Nothing: filled by recorders that know.
    pub destination: Destination,
    /// What the reference payload has no key for.
    pub podwitness: Witness,
}

/// The one kind there is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Kind {
    /// A request to the Kubernetes API.
    #[default]
    #[serde(rename = "kubernetes-api-request")]
    KubernetesApiRequest,
}

/// A request.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Method.
    pub method: String,
    /// Path and query, without what is withheld.
    pub path: String,
    /// Always empty.
    pub body: Nothing,
    /// Decoded query.
    pub query_parameters: BTreeMap<String, Vec<String>>,
}

/// A text that is always empty.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Nothing {
    /// Nothing.
    #[default]
    #[serde(rename = "")]
    Nothing,
}

/// The pod that the request came from, under the reference's names for a node.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// `POD.NAMESPACE`.
    pub node: String,
    /// Uid of the pod.
    #[serde(rename = "nodeID")]
    pub node_id: String,
    /// Effective user.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_user: String,
}

/// What the reference leaves to the recorder.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Empty.
    pub node: String,
    /// Empty.
    #[serde(rename = "nodeID")]
    pub node_id: String,
}

/// Which event of a request it is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It is about to go to the API server.
    #[default]
    Requested,
    /// A watch, a log stream or a session has begun.
    Started,
    /// It is over.
    Complete,
}

/// What we know beside that.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Witness {
    /// ULID; also the `Audit-ID` of the request where the client sent none.
    pub event: String,
    /// `Audit-ID` under which the API server logs it.
    pub audit_id: String,
    /// Which of the request's events this is.
    pub stage: Stage,
    /// Whether no event of the request came before this one.
    pub first: bool,
    /// Id of the cluster.
    pub cluster: String,
    /// Namespace of the pod that asks.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// Its uid.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// Its node.
    pub node: String,
    /// Who asks.
    pub caller: Caller,
    /// Id of the credential, where its claims name one (KEP-4193).
    pub credential: String,
    /// Grants that ask for the event.
    pub grants: Vec<String>,
    /// Recording of the session that the request opens.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// What is kept of the request's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Sent>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answered>,
    /// Texts were cut: whole, the event would have been too long.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// What is kept of the body of a request: never a value of it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sent {
    /// Media type.
    pub content_type: String,
    /// Bytes.
    pub bytes: u64,
    /// What a create or a patch touches, where it is JSON and not too long.
    #[serde(flatten)]
    pub touched: Touched,
}

/// What came of a request.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answered {
    /// HTTP status; 0 where there was no answer.
    pub code: u16,
    /// `reason` of the Status, where it is one, or why there was no answer.
    pub reason: String,
    /// Milliseconds until the head of the answer.
    pub latency: u64,
    /// Milliseconds until its end.
    pub duration: u64,
    /// Media type of its body.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content_type: String,
    /// Bytes of its body, or all that the client was sent of a session.
    pub bytes: u64,
}

impl Asked {
    /// A request of `target`, its path with its query. Values of the flags `mask` in a command are withheld.
    #[must_use]
    pub fn new(method: &str, target: &str, mask: &[String]) -> Self {
        let (path, raw) = target.split_once('?').map_or((target, None), |(path, raw)| (path, Some(raw)));
        let mut query_parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut written = Vec::new();
        let query = Query::parse(raw.unwrap_or_default());
        let mut words =
            masked(&query.all("command").map(str::to_owned).collect::<Vec<_>>(), mask).into_iter();
        for (name, value) in query.pairs() {
            let value = match name {
                "command" => words.next().unwrap_or_default(),
                "cmd" => masked(&[value.to_owned()], mask).concat(),
                _ => value.to_owned(),
            };
            let (name, value) = (capped(name, MAX_TEXT), kept(name, &value));
            written.push(format!("{}={}", escaped(&name), escaped(&value)));
            query_parameters.entry(name).or_default().push(value);
        }
        let path = capped(path, MAX_TEXT);
        let path = if raw.is_some() { format!("{path}?{}", written.join("&")) } else { path };
        Self { method: method.to_owned(), path, body: Nothing::Nothing, query_parameters }
    }
}

fn kept(name: &str, value: &str) -> String {
    if KNOWN.binary_search(&name).is_ok() { capped(value, MAX_TEXT) } else { WITHHELD.to_owned() }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

fn capped(text: &str, most: usize) -> String {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_keys_of_the_reference_are_all_there() {
        let event = Event {
            kind: Kind::KubernetesApiRequest,
            id: String::new(),
            timestamp: 0,
            user_agent: String::new(),
            request: Asked::new("POST", "/x?command=b", &[]),
            kubernetes: RequestInfo {
                verb: "create".into(),
                parts: vec!["pods".into()],
                ..RequestInfo::default()
            },
            source: Source::default(),
            destination: Destination::default(),
            podwitness: Witness::default(),
        };
        let mut written = serde_json::to_value(&event).unwrap();
        written.as_object_mut().unwrap().remove("podwitness");
        let reference: Value = serde_json::from_str(
            r#"{"type":"kubernetes-api-request","id":"","timestamp":0,"userAgent":"","request":{"method":"POST",
            "path":"/x?command=b","body":"","queryParameters":{"command":["b"]}},"kubernetes":{"IsResourceRequest":false,
            "Path":"","Verb":"create","APIPrefix":"","APIGroup":"","APIVersion":"","Namespace":"","Resource":"",
            "Subresource":"","Name":"","Parts":["pods"],"FieldSelector":"","LabelSelector":""},
            "source":{"node":"","nodeID":""},"destination":{"node":"","nodeID":""}}"#,
        )
        .unwrap();
        assert_eq!(written, reference);
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[test]
    fn values_that_the_api_server_does_not_read_are_withheld() {
        let asked = Asked::new(
            "GET",
            "/api/v1/namespaces/n/services/s/proxy/?token=hunter2&watch=true&token=a%20b",
            &[],
        );
        assert!(!serde_json::to_string(&asked).unwrap().contains("hunter2"));
        assert_eq!(asked.query_parameters["token"], [WITHHELD, WITHHELD]);
        assert!(
            asked.path.ends_with("?token=%5Bwithheld%5D&watch=true&token=%5Bwithheld%5D"),
            "{}",
            asked.path
        );
    }

    #[test]
    fn a_target_is_written_as_it_came() {
        for target in
            ["/api/v1/pods", "/api/v1/pods?", "/api/v1/pods?command=sh&command=-c&labelSelector=a%3Db"]
        {
            assert_eq!(Asked::new("GET", target, &[]).path, target);
        }
    }

    #[test]
    fn values_that_a_grant_hides_are_in_no_form_of_the_command() {
        let mask = ["--password".to_owned()];
        let asked =
            Asked::new("GET", "/exec?command=mysql&command=--password&command=hunter2&tty=true", &mask);
        assert!(!serde_json::to_string(&asked).unwrap().contains("hunter2"));
        assert_eq!(asked.query_parameters["command"], ["mysql", "--password", WITHHELD]);
        let asked = Asked::new("POST", "/run?cmd=mysql+--password%3Dhunter2+db", &mask);
        assert_eq!(asked.query_parameters["cmd"], ["mysql --password=[withheld] db"]);
    }

    #[test]
    fn known_parameters_are_found() {
        assert!(KNOWN.is_sorted());
        assert_eq!(json!(Stage::Complete), json!("complete"));
    }
}
