//! What a recording says of its session in its first line.

use podwitness_core::{identity::Caller, request_info::RequestInfo};
use podwitness_wire::{
    cast::{Header, Kubernetes, Podwitness},
    channel::Size,
};
use ulid::Ulid;

use crate::PodIdentity;

/// Cap on the text of a command or of a user agent in a header; a request target may hold 64 KiB.
const MAX_TEXT: usize = 128 << 10;

/// What is known of a session before it starts.
#[derive(Clone, Debug)]
pub struct SessionMeta {
    /// Id of the session, also the `Audit-ID` of its request where the client set none.
    pub id: Ulid,
    /// The request.
    pub request: RequestInfo,
    /// Who makes it.
    pub caller: Caller,
    /// What it does: `exec`, `attach`, `portforward`, `run`, or `opaque` where nobody knows.
    pub kind: &'static str,
    /// Namespace of the pod in which it does that, or of what it asks for.
    pub namespace: String,
    /// That pod.
    pub pod: String,
    /// Container, empty where the request names none.
    pub container: String,
    /// Command with its arguments.
    pub command: Vec<String>,
    /// Image of the container, where it is known.
    pub image: String,
    /// What kubectl calls it, where that is known and another word than the request's: `run`, `debug`, `cp`.
    pub via: &'static str,
    /// Whether a terminal is asked for.
    pub tty: bool,
    /// Whether the client sends input.
    pub stdin: bool,
    /// The client's `User-Agent`.
    pub user_agent: String,
}

/// Where and when a session began.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) pod: PodIdentity,
    pub(super) cluster: String,
    /// Unix seconds.
    pub(super) started: i64,
}

/// The header of a session in that language, on a terminal of `size`.
pub(super) fn header(meta: &SessionMeta, origin: &Origin, language: &'static str, size: Size) -> Header {
    Header {
        version: 2,
        width: size.cols.into(),
        height: size.rows.into(),
        timestamp: origin.started,
        command: capped(&meta.command.join(" ")),
        src_node: format!("{}.{}", origin.pod.name, origin.pod.namespace),
        src_node_id: origin.pod.uid.clone(),
        src_node_user: meta.caller.effective.name.clone(),
        kubernetes: Some(Kubernetes {
            pod_name: meta.pod.clone(),
            namespace: meta.namespace.clone(),
            container: meta.container.clone(),
            session_type: meta.kind.to_owned(),
        }),
        podwitness: Some(podwitness(meta, origin, language)),
        ..Header::default()
    }
}

fn podwitness(meta: &SessionMeta, origin: &Origin, language: &'static str) -> Podwitness {
    let Caller { authenticated, effective, verified } = &meta.caller;
    let other = (authenticated.name != effective.name).then(|| authenticated.name.clone());
    Podwitness {
        session: meta.id.to_string(),
        part: 0,
        offset: 0,
        cluster: origin.cluster.clone(),
        namespace: origin.pod.namespace.clone(),
        pod: origin.pod.name.clone(),
        pod_uid: origin.pod.uid.clone(),
        node: origin.pod.node.clone(),
        container: meta.container.clone(),
        user: effective.name.clone(),
        groups: effective.groups.clone(),
        authenticated_user: other.unwrap_or_default(),
        verified: *verified,
        user_agent: capped(&meta.user_agent),
        subprotocol: language.to_owned(),
        tty: meta.tty,
        stdin: meta.stdin,
        argv: words(&meta.command),
        image: capped(&meta.image),
        via: meta.via.to_owned(),
    }
}

/// The words of a command up to the cap: joined with spaces, they cannot be told apart.
fn words(command: &[String]) -> Vec<String> {
    let mut left = MAX_TEXT;
    let fits = |word: &&String| {
        let fits = word.len() <= left;
        left = left.saturating_sub(word.len());
        fits
    };
    command.iter().take_while(fits).cloned().collect()
}

fn capped(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().to_owned()
}
