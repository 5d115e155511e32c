//! API events: what each request asked, of what, by whom, and what came of it, where a grant asks for that.
//!
//! `request --witness--> lanes --journal--> upload`. A request under fail closed goes upstream once its first event is
//! acknowledged; under fail open nobody waits, and an event that finds no room is counted. Whatever happens to a request
//! that has a witness, its last event is written when the witness is dropped.
//!
//! Before anybody knows the grants, events are held, up to a cap, and judged by the first netmap.

mod body;
mod held;
mod lanes;
mod witness;

pub(crate) use body::metered;
pub(crate) use witness::{Opens, Witness};

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header::USER_AGENT, request::Parts};
use podwitness_core::{
    control::Netmap,
    event::{Asked, Event, Source},
    failure::AtRequest,
    grant::Obligation,
    identity::Caller,
    request_info::RequestInfo,
    status::Status,
};
use podwitness_runtime::clock::Clock;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use ulid::Ulid;

use crate::{
    Proxy, ProxyConfig,
    classify::Credential,
    enforce::{self, Recorders},
    identity::{self, CallerCell},
    journal::Incidents,
    serve::Client,
    session::Sessions,
};
use held::Held;
use lanes::Lanes;
use witness::Counters;

pub(crate) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Cap on an `Audit-ID` of a client.
const MAX_AUDIT_ID: usize = 128;

/// Takes the events of one proxy.
#[derive(Clone)]
pub(crate) struct Events(Arc<Shared>);

struct Shared {
    config: Arc<ProxyConfig>,
    netmap: watch::Receiver<Option<Arc<Netmap>>>,
    lanes: Lanes,
    held: Held,
    incidents: Incidents,
    clock: Arc<dyn Clock>,
    counters: Counters,
}

/// Whom the events of a request are for.
#[derive(Clone, Debug)]
pub(super) enum Addressee {
    /// The recorders of this obligation.
    Known(Arc<Obligation>),
    /// Those that the first netmap names for this request, if any.
    Unknown(Arc<(Caller, RequestInfo)>),
}

impl Events {
    pub(crate) fn new(
        config: Arc<ProxyConfig>,
        netmap: watch::Receiver<Option<Arc<Netmap>>>,
        sessions: Arc<Sessions>,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Self {
        let counters = Counters::register(registry);
        let events = Self(Arc::new(Shared {
            config,
            netmap,
            incidents: sessions.incidents().clone(),
            lanes: Lanes::new(sessions),
            held: Held::default(),
            clock,
            counters,
        }));
        held::judge_at_first_netmap(&events);
        events
    }

    /// Writes an event for whoever it is for, and tells where it stands if anybody is to have it. Never waits.
    fn write(&self, addressee: &Addressee, mut event: Event) -> Option<lanes::Standing> {
        let (caller, request) = match addressee {
            Addressee::Known(obligation) => return self.put(obligation, event),
            Addressee::Unknown(of) => (&of.0, &of.1),
        };
        let netmap = self.0.netmap.borrow().clone();
        let Some(netmap) = netmap else {
            if !self.0.held.push(addressee.clone(), event) {
                self.dropped();
            }
            return None;
        };
        let obligation = asked_for(&netmap, caller, request)?;
        event.podwitness.grants.clone_from(&obligation.grants);
        event.podwitness.cluster.clone_from(&netmap.cluster);
        event.request = Asked::new(&event.request.method, &event.request.path, &obligation.mask_flags);
        self.put(&obligation, event)
    }

    fn put(&self, obligation: &Obligation, event: Event) -> Option<lanes::Standing> {
        let standing = self.0.lanes.put(obligation, &event.into_line());
        match &standing {
            Some(_) => self.0.counters.written(),
            None => self.dropped(),
        }
        standing
    }

    fn dropped(&self) {
        self.0.counters.dropped();
        self.0.incidents.events_dropped();
    }
}

/// What the grants ask of the events of a request, if they ask for any.
fn asked_for(netmap: &Netmap, caller: &Caller, request: &RequestInfo) -> Option<Obligation> {
    podwitness_core::grant::evaluate(&netmap.grants, caller, request).filter(|obligation| obligation.events)
}

/// Whether any caller's request of this kind could be subject to a grant that asks for events.
fn may_be_asked_for(netmap: &Netmap, request: &RequestInfo) -> bool {
    netmap.grants.iter().any(|grant| grant.spec.asks_for_events())
        && asked_for(netmap, &Caller::default(), request).is_some()
}

/// Takes a witness for a request, if one is asked for, before it goes upstream. The request gets the event's id as its
/// `Audit-ID`, unless the client chose its own.
///
/// # Errors
/// The refusal, where the policy wants the event recorded first and that cannot be.
pub(crate) async fn witness(
    proxy: &Proxy,
    client: &Client,
    head: &mut Parts,
    info: &RequestInfo,
    (credential, caller): (&Credential, &CallerCell),
    opens: Opens,
) -> Result<Option<Witness>, Status> {
    let events = &proxy.events;
    let netmap = proxy.netmap();
    match netmap.as_deref() {
        Some(netmap) if !may_be_asked_for(netmap, info) => return Ok(None),
        Some(_) => {}
        None => {
            if let AtRequest::Refuse(status) = enforce::before_any_grant(proxy.config.until_netmap) {
                return Err(status);
            }
        }
    }
    let caller = proxy.identities.caller_once(caller, &client.target, credential, &head.headers).await;
    let addressee = match netmap.as_deref() {
        None => Addressee::Unknown(Arc::new((caller.clone(), info.clone()))),
        Some(netmap) => match asked_for(netmap, &caller, info) {
            Some(obligation) => Addressee::Known(Arc::new(obligation)),
            None => return Ok(None),
        },
    };
    let id = Ulid::new();
    let audit_id = audit_id(&mut head.headers, id);
    let mask = match &addressee {
        Addressee::Known(obligation) => obligation.mask_flags.as_slice(),
        Addressee::Unknown(_) => &[],
    };
    let mut event = described(events, netmap.as_deref(), head, info, caller, mask);
    event.podwitness.event = id.to_string();
    event.podwitness.audit_id = audit_id;
    event.podwitness.credential = identity::credential_id(credential);
    if let Addressee::Known(obligation) = &addressee {
        event.podwitness.grants.clone_from(&obligation.grants);
    }
    let mut witness = Witness::new(events.clone(), addressee, id, event, opens, &head.headers);
    witness.required().await?;
    Ok(Some(witness))
}

/// What is known of a request before it goes upstream.
fn described(
    events: &Events,
    netmap: Option<&Netmap>,
    head: &Parts,
    info: &RequestInfo,
    caller: Caller,
    mask: &[String],
) -> Event {
    let pod = &events.0.config.pod;
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut event = Event {
        timestamp: events.0.clock.now_unix(),
        user_agent: text(&head.headers, &USER_AGENT),
        request: Asked::new(head.method.as_str(), target, mask),
        kubernetes: info.clone(),
        source: Source {
            node: format!("{}.{}", pod.name, pod.namespace),
            node_id: pod.uid.clone(),
            node_user: caller.effective.name.clone(),
        },
        ..Event::default()
    };
    let ours = &mut event.podwitness;
    ours.cluster = netmap.map(|netmap| netmap.cluster.clone()).unwrap_or_default();
    ours.namespace.clone_from(&pod.namespace);
    ours.pod.clone_from(&pod.name);
    ours.pod_uid.clone_from(&pod.uid);
    ours.node.clone_from(&pod.node);
    ours.caller = caller;
    event
}

/// The id under which the API server logs the request (`k8s.io/apiserver/pkg/endpoints/filters/audit_init.go`).
fn audit_id(headers: &mut HeaderMap, id: Ulid) -> String {
    let own = text(headers, &AUDIT_ID);
    if !own.is_empty() {
        return own.get(..own.floor_char_boundary(MAX_AUDIT_ID)).unwrap_or_default().to_owned();
    }
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        headers.insert(AUDIT_ID, value);
    }
    id.to_string()
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

/// Waits until the first event of a request is recorded, where the policy wants that.
async fn recorded(obligation: &Obligation, standing: Option<lanes::Standing>) -> Result<(), Status> {
    if !obligation.enforce {
        return Ok(());
    }
    let recorders = match standing {
        Some(standing) => standing.recorded().await,
        None => Recorders::Unreachable,
    };
    match enforce::at_request(obligation, recorders) {
        AtRequest::Forward => Ok(()),
        AtRequest::Refuse(status) => Err(status),
    }
}
