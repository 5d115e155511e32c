//! From grants, a caller and a request to the obligation that follows.

use serde::{Deserialize, Serialize};

use super::{
    AckLevel, Grant, Grants, MAX_LEAD, Opaque, Rule,
    select::{self, Scope},
};
use crate::{identity::Caller, request_info::RequestInfo};

/// What the matching grants ask for, taken together. No match at all is `None`, not an empty obligation.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Obligation {
    /// Names of the grants that apply, in order.
    pub grants: Vec<String>,
    /// Recorders by tag, in order, without repeats.
    pub recorders: Vec<RecorderChoice>,
    /// Fail closed, if any rule says so.
    pub enforce: bool,
    /// Record API requests as events, if any rule says so.
    pub events: bool,
    /// What an acknowledgement has to survive: the strongest asked for.
    pub require_ack: Option<AckLevel>,
    /// Bytes shown before they are acknowledged: the least asked for.
    pub lead: u64,
    /// Flags and variables whose values in a command are not kept: all that any rule names, without repeats.
    #[serde(default)]
    pub mask_flags: Vec<String>,
    /// What happens to opaque upgrades: refused unless every rule allows them.
    pub opaque: Opaque,
}

/// A tag whose recorders may be used.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct RecorderChoice {
    /// Tag, such as `tag:podwitness`.
    pub tag: String,
    /// Whether a rule that enforces names it: only such recorders satisfy fail closed.
    pub enforced: bool,
}

/// The obligation of `caller` for `request`; `None` where no grant matches.
///
/// `grants` are those whose `dst` fits the pod. Default grants count only where no other matches.
#[must_use]
pub fn evaluate(grants: &Grants, caller: &Caller, request: &RequestInfo) -> Option<Obligation> {
    let scope = Scope::of(request);
    let [others, defaults] = grants.meant(caller);
    merge(&matching(&others, caller, &scope)).or_else(|| merge(&matching(&defaults, caller, &scope)))
}

pub(super) type Match<'a> = (&'a Grant, Vec<&'a Rule>);

fn matching<'a>(grants: &[&'a Grant], caller: &Caller, scope: &Scope<'_>) -> Vec<Match<'a>> {
    grants
        .iter()
        .filter(|grant| caller.verified || select::src_fits(&grant.spec, caller))
        .map(|grant| (*grant, rules_for(grant, scope)))
        .filter(|(_, rules)| !rules.is_empty())
        .collect()
}

/// The rules of a grant that cover a request.
pub(super) fn rules_for<'a>(grant: &'a Grant, scope: &Scope<'_>) -> Vec<&'a Rule> {
    grant.spec.app.kubernetes.iter().filter(|rule| scope.fits(rule)).collect()
}

/// What matching grants ask for together.
pub(super) fn merge(matches: &[Match<'_>]) -> Option<Obligation> {
    if matches.is_empty() {
        return None;
    }
    let rules = || matches.iter().flat_map(|(_, rules)| rules.iter().copied());
    let mut recorders: Vec<RecorderChoice> = Vec::new();
    for rule in rules() {
        for tag in &rule.recorder {
            match recorders.iter_mut().find(|choice| choice.tag == *tag) {
                Some(choice) => choice.enforced |= rule.enforce_recorder,
                None => recorders.push(RecorderChoice { tag: tag.clone(), enforced: rule.enforce_recorder }),
            }
        }
    }
    let mut masks: Vec<String> = Vec::new();
    for flag in rules().flat_map(|rule| &rule.mask_flags) {
        if !masks.contains(flag) {
            masks.push(flag.clone());
        }
    }
    Some(Obligation {
        recorders,
        enforce: rules().any(|rule| rule.enforce_recorder),
        events: rules().any(|rule| rule.enable_events),
        require_ack: rules().filter_map(|rule| rule.require_ack).max(),
        lead: rules().filter_map(|rule| rule.lead).min().unwrap_or(MAX_LEAD).min(MAX_LEAD),
        mask_flags: masks,
        opaque: rules().map(|rule| rule.opaque.unwrap_or(Opaque::Refuse)).max().unwrap_or(Opaque::Refuse),
        grants: matches.iter().map(|(grant, _)| grant.name.clone()).collect(),
    })
}
