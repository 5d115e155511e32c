//! Why each grant applies or does not: the answer of [`evaluate`](super::evaluate()), grant by grant.

use super::{Grant, Grants, Rule, evaluate::rules_for, select};
use crate::{identity::Caller, request_info::RequestInfo};

/// What becomes of one grant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fate<'a> {
    /// It applies, by these rules.
    Applies(Vec<&'a Rule>),
    /// It has no rule of the Kubernetes capability.
    NoRule,
    /// Its `src` does not mean the caller.
    OtherCaller,
    /// None of its rules covers the request.
    OtherRequest,
    /// It would apply, but it is a default grant, and one that is none applies.
    BehindOthers,
}

/// The fate of every grant, in the order in which they apply; default grants come last.
#[must_use]
pub fn explain<'a>(grants: &'a Grants, caller: &Caller, request: &RequestInfo) -> Vec<(&'a Grant, Fate<'a>)> {
    let scope = select::Scope::of(request);
    let fate = |grant: &'a Grant| {
        if grant.spec.app.kubernetes.is_empty() {
            return Fate::NoRule;
        }
        if !select::src_fits(&grant.spec, caller) {
            return Fate::OtherCaller;
        }
        match rules_for(grant, &scope) {
            rules if rules.is_empty() => Fate::OtherRequest,
            rules => Fate::Applies(rules),
        }
    };
    let [others, defaults] =
        grants.in_order().map(|list| list.into_iter().map(|grant| (grant, fate(grant))).collect::<Vec<_>>());
    let any = others.iter().any(|(_, fate)| matches!(fate, Fate::Applies(_)));
    let behind = defaults.into_iter().map(|(grant, fate)| match fate {
        Fate::Applies(_) if any => (grant, Fate::BehindOthers),
        fate => (grant, fate),
    });
    others.into_iter().chain(behind).collect()
}
