//! The answer: pure, from the question and the facts.

use podwitness_core::{
    grant::{
        AckLevel, Fate, Grant, Grants, Obligation, Opaque, PodTarget, Rule, dst_fits, dst_item_fits,
        evaluate, explain, src_item_fits,
    },
    identity::Caller,
    labels::BYPASS_UNTIL,
    request_info::RequestInfo,
};
use podwitness_crd::{RecorderState, bypass_until, rfc3339};
use serde::Serialize;

use super::{Facts, Pod, Question, pod};
use crate::args::{EXIT_REFUSED, EXIT_UNRECORDED};

/// What becomes of the request's recording.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A recorder takes it.
    Recorded,
    /// It waits in the pod until a recorder is ready.
    Kept,
    /// The request is refused, because no recorder can take it.
    Refused,
    /// Nothing is recorded.
    NotRecorded,
}

impl Outcome {
    /// The exit code that says so.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Recorded | Self::Kept => 0,
            Self::Refused => EXIT_REFUSED,
            Self::NotRecorded => EXIT_UNRECORDED,
        }
    }
}

/// The whole answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// What becomes of it.
    pub outcome: Outcome,
    /// Why, in one sentence.
    pub because: String,
    /// `NAMESPACE/POD`.
    pub pod: String,
    /// Whose request it is.
    pub caller: Caller,
    /// What is asked for.
    pub request: Asked,
    /// Grants that apply, in order.
    pub applies: Vec<Applied>,
    /// What they ask for together.
    pub follows: Option<Follows>,
    /// Grants that match the pod and do not apply, in order.
    pub others: Vec<Other>,
    /// How many grants match other pods.
    pub elsewhere: usize,
    /// What else has to be known.
    pub notes: Vec<String>,
}

/// A request, as a rule's scope sees it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// API verb.
    pub verb: String,
    /// Resource with subresource.
    pub resource: String,
    /// Namespace; empty for cluster scope.
    pub namespace: String,
}

/// A grant that applies.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: i32,
    /// Whether it is a default grant.
    pub default: bool,
    /// Items of `src` that match the caller.
    pub src: Vec<String>,
    /// Items of `dst` that match the pod.
    pub dst: Vec<String>,
    /// Rules that cover the request.
    pub rules: Vec<Rule>,
}

/// A grant that does not apply.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Other {
    /// Its name.
    pub name: String,
    /// `no-rule`, `other-caller`, `other-request`, `behind-others`.
    pub reason: &'static str,
    /// The same in words.
    pub why: String,
}

/// What the grants that apply ask for together.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Follows {
    /// Whether what cannot be recorded does not happen.
    pub fail_closed: bool,
    /// Recorders by tag, in the order in which they are tried.
    pub recorders: Vec<Choice>,
    /// Whether API requests become events.
    pub events: bool,
    /// What an acknowledgement has to survive.
    pub require_ack: Option<AckLevel>,
    /// Bytes shown before they are acknowledged, under fail closed.
    pub lead: u64,
    /// Flags and variables whose values are not kept.
    pub mask_flags: Vec<String>,
    /// What happens to upgrades that cannot be inspected.
    pub opaque: Opaque,
}

/// Recorders of a tag.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// The tag.
    pub tag: String,
    /// Whether they may take the recording: under fail closed only those of rules that enforce.
    pub counts: bool,
    /// Those that have it.
    pub recorders: Vec<Candidate>,
}

/// A recorder and its state.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Name of the `Recorder`.
    pub name: String,
    /// Its pods.
    pub replicas: Vec<String>,
    /// What its acknowledgements survive.
    pub ack: Option<AckLevel>,
    /// What it says of itself.
    pub message: String,
    /// Why it cannot take the recording.
    pub obstacle: Option<String>,
}

/// Why a default grant does not apply that otherwise would.
const BEHIND_OTHERS: &str = "behind-others";

/// Answers a question.
#[must_use]
pub fn answer(question: &Question, facts: &Facts) -> Answer {
    let Question { caller, request, .. } = question;
    let Pod { namespace, name } = &question.pod;
    let target = PodTarget { namespace, name: Some(name), tags: &facts.tags };
    // What the control plane publishes for this pod.
    let published: Grants =
        facts.grants.iter().filter(|grant| dst_fits(&grant.spec, target)).cloned().collect();
    let obligation = evaluate(&published, caller, request);
    let (mut applies, mut others) = (Vec::new(), Vec::new());
    for (grant, fate) in explain(&published, caller, request) {
        match fate {
            Fate::Applies(rules) => applies.push(applied(grant, &rules, caller, target)),
            fate => others.push(other(grant, &fate, question)),
        }
    }
    let follows = obligation.as_ref().map(|obligation| follows(obligation, facts));
    let keeps_away = others.iter().any(|other| other.reason == BEHIND_OTHERS);
    let (outcome, because) = outcome(question, facts, follows.as_ref(), keeps_away);
    Answer {
        outcome,
        because,
        pod: format!("{namespace}/{name}"),
        caller: caller.clone(),
        request: Asked::of(request),
        applies,
        follows,
        others,
        elsewhere: facts.grants.len().saturating_sub(published.len()),
        notes: notes(question, facts, &published, obligation.as_ref()),
    }
}

impl Asked {
    fn of(request: &RequestInfo) -> Self {
        let RequestInfo { resource, subresource, .. } = request;
        let slash = if subresource.is_empty() { "" } else { "/" };
        Self {
            verb: request.verb.clone(),
            resource: format!("{resource}{slash}{subresource}"),
            namespace: request.namespace.clone(),
        }
    }
}

fn applied(grant: &Grant, rules: &[&Rule], caller: &Caller, target: PodTarget<'_>) -> Applied {
    let src = grant.spec.src.iter().filter(|src| src_item_fits(src, caller));
    let dst = grant.spec.dst.iter().filter(|dst| dst_item_fits(dst, target));
    Applied {
        name: grant.name.clone(),
        priority: grant.spec.priority,
        default: grant.spec.default,
        src: src.cloned().collect(),
        dst: dst.cloned().collect(),
        rules: rules.iter().map(|rule| (*rule).clone()).collect(),
    }
}

fn other(grant: &Grant, fate: &Fate<'_>, question: &Question) -> Other {
    let (reason, why) = match fate {
        Fate::Applies(_) => ("", String::new()),
        Fate::NoRule => ("no-rule", "it has no tailscale.com/cap/kubernetes".to_owned()),
        Fate::OtherCaller => {
            let who = &question.caller.authenticated.name;
            let or = if question.caller.effective == question.caller.authenticated {
                String::new()
            } else {
                format!(" or {}", question.caller.effective.name)
            };
            (
                "other-caller",
                format!("src {} matches neither {who}{or} nor their groups", grant.spec.src.join(", ")),
            )
        }
        Fate::OtherRequest => {
            let Asked { verb, resource, .. } = Asked::of(&question.request);
            let scopes: Vec<String> = grant.spec.app.kubernetes.iter().map(scope).collect();
            let scopes = scopes.join("; ");
            ("other-request", format!("no rule covers {verb} {resource} there; it has: {scopes}"))
        }
        Fate::BehindOthers => (BEHIND_OTHERS, "it is a default grant, and others apply".to_owned()),
    };
    Other { name: grant.name.clone(), reason, why }
}

fn scope(rule: &Rule) -> String {
    let fields = [("namespaces", &rule.namespaces), ("verbs", &rule.verbs), ("resources", &rule.resources)];
    let said = fields.iter().filter(|(_, list)| !list.is_empty());
    let said: Vec<String> = said.map(|(name, list)| format!("{name} {}", list.join(", "))).collect();
    said.join(" and ")
}

fn follows(obligation: &Obligation, facts: &Facts) -> Follows {
    let require_ack = obligation.require_ack.filter(|_| obligation.enforce);
    let candidate = |state: RecorderState| Candidate {
        obstacle: state.obstacle(require_ack),
        name: state.name,
        replicas: state.replicas,
        ack: state.ack,
        message: state.message,
    };
    let choices = obligation.recorders.iter().map(|choice| Choice {
        tag: choice.tag.clone(),
        counts: choice.enforced || !obligation.enforce,
        recorders: RecorderState::with_tag(&choice.tag, &facts.recorders)
            .into_iter()
            .map(candidate)
            .collect(),
    });
    Follows {
        fail_closed: obligation.enforce,
        recorders: choices.collect(),
        events: obligation.events,
        require_ack: obligation.require_ack,
        lead: obligation.lead,
        mask_flags: obligation.mask_flags.clone(),
        opaque: obligation.opaque,
    }
}

/// `keeps_away` says that a default grant would apply, if it were not for those that do.
fn outcome(
    question: &Question,
    facts: &Facts,
    follows: Option<&Follows>,
    keeps_away: bool,
) -> (Outcome, String) {
    let not = |because: &str| (Outcome::NotRecorded, because.to_owned());
    if let Some(because) = pod::unwitnessed(&question.pod, facts) {
        return (Outcome::NotRecorded, because);
    }
    if let Some(until) = bypass(facts).filter(|until| *until > facts.now) {
        return not(&format!(
            "the namespace suspends recording until {} (annotation {BYPASS_UNTIL}): everything is passed on unrecorded; end \
             it with kubectl annotate namespace {} {BYPASS_UNTIL}-",
            rfc3339(until),
            question.pod.namespace
        ));
    }
    let Some(follows) = follows else {
        return not("no grant applies; create one with src and dst that match");
    };
    let is_session = question.request.pod_action().is_some();
    if !is_session && !follows.events {
        return not(
            "it is no session, and no grant that applies asks for events; set enableEvents in a rule",
        );
    }
    if follows.recorders.is_empty() && keeps_away {
        return not(
            "no grant that applies names a recorder, and they keep the default grant away; name a tag in recorder, or delete them",
        );
    }
    if follows.recorders.is_empty() {
        return not("no grant that applies names a recorder; name a tag in recorder");
    }
    let usable = follows
        .recorders
        .iter()
        .filter(|choice| choice.counts)
        .flat_map(|choice| choice.recorders.iter().filter(|candidate| candidate.obstacle.is_none()));
    match (usable.map(|candidate| candidate.name.as_str()).next(), follows.fail_closed) {
        (Some(name), _) => (Outcome::Recorded, format!("recorder {name} is ready")),
        (None, false) => (Outcome::Kept, "no recorder is ready; it waits in the pod until one is".to_owned()),
        (None, true) => (
            Outcome::Refused,
            "it fails closed, and no recorder that satisfies it is ready; see kubectl get recorders"
                .to_owned(),
        ),
    }
}

/// Until when the namespace suspends recording, in seconds since 1970.
fn bypass(facts: &Facts) -> Option<i64> {
    facts.bypass_until.as_deref().and_then(bypass_until)
}

fn notes(
    question: &Question,
    facts: &Facts,
    published: &Grants,
    obligation: Option<&Obligation>,
) -> Vec<String> {
    let mut notes = facts.unknown.clone();
    notes.extend(pod::notes(&question.pod, facts));
    if facts.bypass_until.is_some() && bypass(facts).is_none() {
        notes.push(format!("annotation {BYPASS_UNTIL} of the namespace is not a time and has no effect"));
    }
    if !facts.accepted().is_empty() {
        notes.push(format!(
            "the namespace accepts of its pods what Pod Security baseline does not ({}); who uses that may evade or \
             alter recordings",
            facts.accepted().join(", ")
        ));
    }
    if let (Some(older), true) = (&question.older, question.caller.verified) {
        let before = evaluate(published, &question.caller, older);
        if before.as_ref() != obligation {
            notes.push(format!(
                "clients that use SPDY ask for it by the verb create, to which {} apply",
                before.map_or_else(|| "no grants".to_owned(), |before| before.grants.join(", "))
            ));
        }
    }
    notes
}
