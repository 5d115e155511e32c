//! Sessions out of parts: which parts belong together, how a session stands, what an auditor asks for.
//!
//! Parts are joined by session id **and** owner, so that no pod can put a part into another's session. Each part is a
//! whole recording; part *k* counts up to where part *k+1* begins.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Serialize;

use super::{cast::PartPiece, scan::Found};
use crate::store::{
    layout::{owner_digest, short_digest},
    meta::{Meta, Outcome, Owner},
    times,
};

/// One session of the catalogue.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Its parts in order, at most one of each number.
    pub(super) parts: Vec<Arc<Found>>,
    /// What is listed of it.
    pub(super) summary: Summary,
}

/// What is listed of a session.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    /// Id in this API.
    pub(super) id: String,
    /// Id that the client's side gave it.
    pub(super) session: String,
    /// Start, Unix seconds.
    pub(super) start: i64,
    /// What its sender says of the start, where that cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_stated: Option<i64>,
    /// When its first part came, by the recorder's clock, Unix seconds.
    pub(super) received: i64,
    /// Length in seconds.
    pub(super) duration: f64,
    /// Who says what is said here of users, pods and commands, of the session's start and end: `NAMESPACE/POD` of
    /// `source`, which alone is verified, or `unverified ADDRESS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claimed_by: Option<String>,
    /// The user who acted.
    pub(super) user: String,
    /// Their groups.
    pub(super) groups: Vec<String>,
    /// The user whose credential was used, where that is another one: who impersonates.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) authenticated_user: String,
    /// Whether the API server confirmed the user, by the word of who claims it.
    pub(super) user_verified: bool,
    /// Namespace that the session acted on.
    pub(super) namespace: String,
    /// Pod that it acted on.
    pub(super) pod: String,
    /// Container that it acted on.
    pub(super) container: String,
    /// The command.
    pub(super) command: String,
    /// `exec`, `attach`, `ssh`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The user's word for it where that is another than the type: `run`, `debug`, `cp`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) via: String,
    /// Whether there was a terminal.
    pub(super) tty: bool,
    /// Columns.
    pub(super) width: u32,
    /// Rows.
    pub(super) height: u32,
    /// Number of parts here.
    pub(super) parts: usize,
    /// Bytes of their files.
    pub(super) size: u64,
    /// Whether it is here from its beginning to its own end, with nothing left out.
    pub(super) complete: bool,
    /// How its last part ended; absent while it lasts and after a crash.
    pub(super) outcome: Option<Outcome>,
    /// More about that, where it went wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
    /// The command's exit code, if it ended with one.
    pub(super) exit_code: Option<i32>,
    /// What else its end was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_message: Option<String>,
    /// How the session ended, by the word of the client's side.
    pub(super) session_end: Option<String>,
    /// What became of its recording, by the same.
    pub(super) session_outcome: Option<String>,
    /// Bytes of output that the client's side did not record.
    pub(super) gap: u64,
    /// Bytes of lines between parts that are not here.
    pub(super) missing: u64,
    /// Who recorded it, verified or not.
    pub(super) source: Option<Owner>,
    /// Why less is known of it than should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broken: Option<String>,
}

/// Cap on a text in the catalogue, so that its size is bounded; the recording has it whole.
const MAX_TEXT: usize = 1024;

/// Sessions out of parts, newest first.
pub(super) fn assemble(found: Vec<Arc<Found>>) -> Vec<Arc<Session>> {
    let mut groups: HashMap<String, BTreeMap<u32, Arc<Found>>> = HashMap::new();
    for part in found {
        let group = groups.entry(id(&part)).or_default();
        match group.get(&part.name.part()) {
            // The same number under two days: what was there first stands. On the volume and in the bucket: the volume,
            // whose parts come first.
            Some(first) if received(first) <= received(&part) => {}
            _ => {
                group.insert(part.name.part(), part);
            }
        }
    }
    let mut sessions: Vec<_> = groups
        .into_iter()
        .map(|(id, parts)| {
            let parts: Vec<_> = parts.into_values().collect();
            Arc::new(Session { summary: summary(id, &parts), parts })
        })
        .collect();
    sessions.sort_by(|a, b| (b.summary.start, &b.summary.id).cmp(&(a.summary.start, &a.summary.id)));
    sessions
}

fn id(part: &Found) -> String {
    let owner = match &part.meta {
        Ok(meta) => owner_digest(&meta.owner),
        // Without metadata nobody knows whose it is: it stands for itself, under its directory.
        Err(_) => short_digest(part.source.place()),
    };
    format!("{}.{owner}", part.name.session())
}

fn received(part: &Found) -> i64 {
    part.meta.as_ref().map_or(i64::MAX, |meta| meta.received)
}

fn summary(id: String, parts: &[Arc<Found>]) -> Summary {
    let session = parts.first().map(|part| part.name.session().to_owned()).unwrap_or_default();
    let metas: Vec<&Meta> = parts.iter().filter_map(|part| part.meta.as_ref().ok()).collect();
    let missing = missing(parts);
    let broken = parts.iter().find_map(|part| part.meta.as_ref().err().cloned());
    let mut summary = Summary { id, session, parts: parts.len(), missing, broken, ..Summary::default() };
    if let (Some(first), Some(last)) = (metas.first(), metas.last()) {
        summary.begin(first);
        summary.end(&metas, last);
    }
    summary
}

impl Summary {
    fn begin(&mut self, first: &Meta) {
        let facts = first.facts.clone();
        // Metadata of earlier versions has what the sender stated.
        self.start = times::start(facts.start, first.received);
        let stated = facts.start_stated.unwrap_or(facts.start);
        self.start_stated = (stated != self.start && stated != 0).then_some(stated);
        self.received = first.received.div_euclid(1000);
        (self.width, self.height, self.tty) = (facts.width, facts.height, facts.tty);
        (self.user, self.user_verified) = (cut(facts.user), facts.user_verified);
        self.groups = facts.groups;
        (self.authenticated_user, self.via) = (cut(facts.authenticated_user), cut(facts.via));
        (self.namespace, self.pod, self.container) =
            (cut(facts.namespace), cut(facts.pod), cut(facts.container));
        (self.command, self.kind) = (cut(facts.command), cut(facts.kind));
        self.claimed_by = Some(first.owner.to_string());
        self.source = Some(first.owner.clone());
    }

    fn end(&mut self, metas: &[&Meta], last: &Meta) {
        let ends = || metas.iter().filter_map(|meta| meta.end.as_ref());
        let start = self.start;
        self.duration = ends().map(|end| times::duration(end.duration, start, end.at)).fold(0.0, f64::max);
        self.gap = ends().map(|end| end.gap).fold(0, u64::saturating_add);
        if let Some(exit) = ends().filter_map(|end| end.exit.clone()).next_back() {
            self.exit_code = exit.parse().ok();
            self.exit_message = self.exit_code.is_none().then_some(exit);
        }
        self.session_end = ends().filter_map(|end| end.session_end.clone()).next_back();
        self.session_outcome = ends().filter_map(|end| end.session_outcome.clone()).next_back();
        if let Some(end) = &last.end {
            self.outcome = Some(end.outcome);
            self.message.clone_from(&end.message);
        }
        self.complete = self.outcome == Some(Outcome::Complete)
            && self.missing == 0
            && self.gap == 0
            && self.broken.is_none()
            && is_whole(&last.owner, self.session_outcome.as_deref());
    }
}

/// Whether what became of a recording, by the word of its sender, is that all of it is there. A sidecar's last line says
/// it; clients of other makers have no such line.
fn is_whole(owner: &Owner, outcome: Option<&str>) -> bool {
    match outcome {
        Some(outcome) => !matches!(outcome, "gap" | "cut"),
        None => matches!(owner, Owner::Unverified { .. }),
    }
}

/// Bytes of lines before the first part, and between a part's end and the next one's beginning.
fn missing(parts: &[Arc<Found>]) -> u64 {
    let mut reached = 0_u64;
    let mut missing = 0_u64;
    for part in parts {
        let Ok(meta) = &part.meta else { continue };
        missing = missing.saturating_add(meta.offset.saturating_sub(reached));
        reached = meta.offset.saturating_add(stored(part, meta).saturating_sub(meta.header_bytes));
    }
    missing
}

/// Bytes of a part's file. One without an end was cut off, or grows.
fn stored(part: &Found, meta: &Meta) -> u64 {
    meta.end.as_ref().map_or_else(|| part.source.length(), |end| end.bytes)
}

fn cut(text: String) -> String {
    if text.len() <= MAX_TEXT { text } else { text.chars().take(MAX_TEXT / 4).collect() }
}

/// What a listing may be narrowed by. `namespace` and `pod` match both ends of a session: where it came from, and
/// what it acted on; `user` who acted, and who impersonated them.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Id of the session as its sender and its events have it, or as this API has it.
    pub(super) session: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) user: Option<String>,
    /// Whose credential was used, whether or not it was to act as another.
    pub(super) authenticated_user: Option<String>,
    /// Unix seconds. Sessions that were received later match, too, so that a stated start hides none.
    pub(super) since: Option<i64>,
}

impl Filter {
    pub(super) fn matches(&self, session: &Summary) -> bool {
        let (namespace, pod) = match &session.source {
            Some(Owner::Pod(pod)) => (pod.namespace.as_str(), pod.pod.as_str()),
            _ => ("", ""),
        };
        let either = |wanted: &Option<String>, a: &str, b: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == a || wanted == b)
        };
        let authenticated = match session.authenticated_user.as_str() {
            "" => &session.user,
            impersonator => impersonator,
        };
        either(&self.session, &session.session, &session.id)
            && either(&self.user, &session.user, authenticated)
            && either(&self.authenticated_user, authenticated, authenticated)
            && either(&self.namespace, namespace, &session.namespace)
            && either(&self.pod, pod, &session.pod)
            && self.since.is_none_or(|since| session.start.max(session.received) >= since)
    }
}

/// What is to be joined of a session's parts.
pub(super) fn pieces(session: &Session) -> Vec<PartPiece> {
    let of = |part: &Arc<Found>| {
        let meta = part.meta.as_ref().ok();
        PartPiece {
            source: part.source.clone(),
            header: meta.map_or(0, |meta| meta.header_bytes),
            offset: meta.map_or(0, |meta| meta.offset),
            bytes: meta.and_then(|meta| meta.end.as_ref()).map(|end| end.bytes),
        }
    };
    session.parts.iter().map(of).collect()
}
