//! Whom a recording is for: what the grants say of its session, and which recorders the netmap has for that.

use std::net::SocketAddr;

use podwitness_core::{
    control::Netmap,
    failure::Policy,
    grant::{self, AckLevel, Obligation},
    identity::Caller,
    inject::UntilNetmap,
    request_info::RequestInfo,
};

use super::order::resolve;
use crate::enforce::{self, Recorders, before_netmap};

/// Whom a recording is for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    obligation: Obligation,
    /// The session, where it is one's.
    subject: Option<(Caller, RequestInfo)>,
    /// Whether it began before anybody knew the grants.
    unknown: bool,
}

/// What the netmap says to a plan.
pub(super) enum Found {
    Recorders(Vec<SocketAddr>, Needs),
    None(Recorders),
    Unwanted,
}

/// What a recorder has to do for a recording.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Needs {
    /// Acknowledge it.
    pub(super) acks: bool,
    /// At this level at least.
    pub(super) level: Option<AckLevel>,
}

// === impl Plan

impl Plan {
    /// The recorders of an obligation; if it was made before the first netmap, those that the netmap will name for
    /// this request.
    pub(crate) fn new(obligation: Obligation, caller: &Caller, request: &RequestInfo) -> Self {
        let unknown = obligation.grants.is_empty();
        Self { obligation, subject: Some((caller.clone(), request.clone())), unknown }
    }

    /// The recorders of an obligation, whatever grants say later.
    pub(crate) const fn known(obligation: Obligation) -> Self {
        Self { obligation, subject: None, unknown: false }
    }

    /// The recorders that the grants name for a request, as soon as they are known.
    pub(crate) fn by_grants(caller: &Caller, request: &RequestInfo) -> Self {
        Self::new(before_netmap(UntilNetmap::Open), caller, request)
    }

    /// Whether it was made before anybody knew the grants.
    pub(crate) const fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// The same once the grants are known, with what they ask for then. `None` where they ask for nothing.
    pub(crate) fn settled(self, netmap: &Netmap) -> Option<Self> {
        if !self.unknown {
            return Some(self);
        }
        let obligation = self.evaluated(netmap)?;
        Some(Self { obligation, unknown: false, ..self })
    }

    /// What the session has to be held to.
    pub(crate) fn policy(&self) -> Policy {
        enforce::policy(&self.obligation)
    }

    /// What the grants of a netmap ask for.
    fn evaluated(&self, netmap: &Netmap) -> Option<Obligation> {
        let (caller, request) = self.subject.as_ref()?;
        grant::evaluate(&netmap.grants, caller, request)
    }

    /// The recorders to which the session is held.
    pub(super) fn find(&self, netmap: Option<&Netmap>, pod: &str) -> Found {
        let Some(netmap) = netmap else { return Found::None(Recorders::Unknown) };
        if !self.unknown {
            return found(&self.obligation, netmap, pod);
        }
        self.evaluated(netmap).map_or(Found::Unwanted, |obligation| found(&obligation, netmap, pod))
    }

    /// The recorders for a recording that none takes. Under fail open it follows the grants: a tag that was wrong can be
    /// corrected. Where the grants name no recorder that there is, those of the session's start are good enough.
    pub(super) fn find_for_waiting(&self, netmap: Option<&Netmap>, pod: &str) -> Found {
        let follows = !self.unknown && !self.obligation.enforce;
        if let Some(netmap) = netmap.filter(|_| follows)
            && let Some(obligation) = self.evaluated(netmap)
            && let recorders @ Found::Recorders(..) = found(&obligation, netmap, pod)
        {
            return recorders;
        }
        self.find(netmap, pod)
    }
}

/// The recorders of an obligation.
fn found(obligation: &Obligation, netmap: &Netmap, pod: &str) -> Found {
    match resolve(obligation, netmap, pod) {
        found if found.is_empty() => Found::None(Recorders::Unresolvable),
        found => Found::Recorders(found, Needs::of(obligation)),
    }
}

impl Needs {
    #[cfg(test)]
    pub(super) const fn acks() -> Self {
        Self { acks: true, level: None }
    }

    pub(super) fn of(obligation: &Obligation) -> Self {
        let Obligation { enforce, require_ack, .. } = *obligation;
        Self { acks: enforce, level: require_ack.filter(|_| enforce) }
    }
}
