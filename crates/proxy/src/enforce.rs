//! From grants to what happens: the only caller of the failure policy. It decides and moves no byte.

use podwitness_core::{
    control::Netmap,
    failure::{self, AtRequest, OnUnknown, Policy},
    grant::{self, MAX_LEAD, Obligation, Opaque},
    identity::Caller,
    inject::UntilNetmap,
    request_info::RequestInfo,
    status::Status,
};

use crate::{classify::Session, metrics::Purpose};

pub use podwitness_core::failure::{AtStart, InSession, Lead, Recorders};

/// What the grants ask of a session. `None` where no grant matches: it is not recorded.
///
/// While there is no netmap nobody knows the grants; then the pod's setting holds, and a recording is made for
/// whichever recorder the netmap will name.
#[must_use]
pub fn obligation(
    netmap: Option<&Netmap>,
    until: UntilNetmap,
    caller: &Caller,
    request: &RequestInfo,
) -> Option<Obligation> {
    match netmap {
        Some(map) => grant::evaluate(&map.grants, caller, request),
        None => Some(before_netmap(until)),
    }
}

/// What is asked of a request before anybody knows the grants.
pub(crate) fn before_netmap(until: UntilNetmap) -> Obligation {
    Obligation {
        grants: Vec::new(),
        recorders: Vec::new(),
        enforce: until != UntilNetmap::Open,
        events: false,
        require_ack: None,
        lead: MAX_LEAD,
        mask_flags: Vec::new(),
        opaque: Opaque::Refuse,
    }
}

/// Decides an ordinary request that comes before anybody knows the grants.
pub(crate) fn before_any_grant(until: UntilNetmap) -> AtRequest {
    let closed = Policy::Closed { grants: Vec::new(), lead: MAX_LEAD };
    let policy = if until == UntilNetmap::ClosedToAll { closed } else { Policy::Open };
    failure::at_request(&policy, Recorders::Unknown)
}

/// Whether any caller at all could be subject to a grant for this request: if not, nobody need be asked who it is.
#[must_use]
pub fn may_oblige(netmap: Option<&Netmap>, request: &RequestInfo) -> bool {
    // An identity that is not verified matches every `src`.
    netmap.is_none_or(|map| grant::evaluate(&map.grants, &Caller::default(), request).is_some())
}

/// The failure policy of an obligation.
#[must_use]
pub fn policy(obligation: &Obligation) -> Policy {
    if obligation.enforce {
        Policy::Closed { grants: obligation.grants.clone(), lead: obligation.lead }
    } else {
        Policy::Open
    }
}

/// Decides a session that has to be recorded, before anything goes upstream.
pub fn at_start(obligation: &Obligation, recorders: Recorders) -> AtStart {
    failure::at_start(&policy(obligation), recorders)
}

/// Decides a request of which an event has to be recorded, before anything goes upstream.
pub fn at_request(obligation: &Obligation, recorders: Recorders) -> AtRequest {
    failure::at_request(&policy(obligation), recorders)
}

/// Decides the next frame of a session under way.
pub fn in_session(policy: &Policy, lead: Lead, recorders: Recorders) -> InSession {
    failure::in_session(policy, lead, recorders)
}

/// Decides a stream under way that turns out to be unreadable; `what` names it.
pub fn on_unknown(policy: &Policy, what: &str) -> OnUnknown {
    failure::on_unknown(policy, what)
}

/// What a session that began without an obligation is told now that there is one.
pub(crate) fn on_late_grant(obligation: &Obligation) -> Status {
    failure::on_late_grant(&obligation.grants)
}

/// Decides a session of which no recording can be made.
pub(crate) fn unrecordable(netmap: Option<&Netmap>, obligation: &Obligation, session: &Session) -> OnUnknown {
    let policy = policy(obligation);
    if netmap.is_none()
        && let AtStart::Refuse(status) = failure::at_start(&policy, Recorders::Unknown)
    {
        return OnUnknown::Refuse(status);
    }
    if session.purpose == Purpose::Opaque && obligation.opaque == Opaque::Allow {
        return OnUnknown::Forward;
    }
    failure::on_unknown(&policy, &session.name())
}

/// Decides a connection that cannot be looked into: whoever speaks on it, the strictest grant may be meant.
pub fn on_unreadable(netmap: Option<&Netmap>, until: UntilNetmap, what: &str) -> OnUnknown {
    let closed = |grants| Policy::Closed { grants, lead: MAX_LEAD };
    let policy = match netmap {
        None if until != UntilNetmap::Open => closed(Vec::new()),
        None => Policy::Open,
        Some(map) => {
            let enforcing = map.grants.iter().filter(|grant| grant.spec.enforces());
            let names: Vec<String> = enforcing.map(|grant| grant.name.clone()).collect();
            if names.is_empty() { Policy::Open } else { closed(names) }
        }
    };
    failure::on_unknown(&policy, what)
}

#[cfg(test)]
mod tests;
