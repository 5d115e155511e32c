//! What is found out about a grant: pure, so that it is tested on objects as the API server gives them.

use std::sync::Arc;

use podwitness_core::grant::{AckLevel, GrantSpec, Rule, WithoutEffect};
use podwitness_crd::{Fails, GrantRecorder, MAX_STATUS_RECORDERS, Recorder, RecorderState};

/// Whether a condition holds, its reason and its message.
pub(super) type Finding = (bool, &'static str, String);

/// Recorders that a message or a column names; the rest is counted.
const MAX_NAMED: usize = 8;

/// A grant's tags and the recorders that have them.
pub(super) struct Findings {
    tags: Vec<Tag>,
    /// Rules, by their place from 1, that name no recorder and cover what no rule beside them that names one does.
    silent: Vec<usize>,
    /// Whether it keeps default grants away from what it covers.
    displaces: bool,
    enforces: bool,
    require_ack: Option<AckLevel>,
}

struct Tag {
    name: String,
    /// Whether a rule that enforces names it.
    enforced: bool,
    recorders: Vec<RecorderState>,
}

impl Findings {
    /// Looks for the recorders of a grant.
    pub(super) fn of(spec: &GrantSpec, recorders: &[Arc<Recorder>]) -> Self {
        let rules = &spec.app.kubernetes;
        let mut tags: Vec<Tag> = Vec::new();
        for rule in rules {
            for name in &rule.recorder {
                match tags.iter_mut().find(|tag| tag.name == *name) {
                    Some(tag) => tag.enforced |= rule.enforce_recorder,
                    None => tags.push(Tag {
                        name: name.clone(),
                        enforced: rule.enforce_recorder,
                        recorders: RecorderState::with_tag(name, recorders.iter().map(AsRef::as_ref)),
                    }),
                }
            }
        }
        let recorded =
            |rule: &Rule| rules.iter().any(|other| !other.recorder.is_empty() && covers(other, rule));
        let silent = rules.iter().enumerate().filter(|(_, rule)| !recorded(rule));
        let silent = silent.map(|(place, _)| place.saturating_add(1)).collect();
        let enforces = spec.enforces();
        // Only who waits for acknowledgements minds what they survive.
        let require_ack = rules.iter().filter_map(|rule| rule.require_ack).max().filter(|_| enforces);
        let displaces = !spec.default && !rules.is_empty();
        Self { tags, silent, displaces, enforces, require_ack }
    }

    /// What holds where a recording cannot be made.
    pub(super) const fn fails(&self) -> Fails {
        if self.enforces { Fails::Closed } else { Fails::Open }
    }

    /// Whether every recorder tag has a recorder.
    pub(super) fn resolved(&self) -> Finding {
        if self.tags.is_empty() {
            let message = format!(
                "the grant names no recorder: what it covers is not recorded{}; name a tag in recorder, or delete the grant",
                self.neither()
            );
            return (false, "NoRecorderNamed", message);
        }
        let missing: Vec<&str> =
            self.tags.iter().filter(|tag| tag.recorders.is_empty()).map(|tag| &*tag.name).collect();
        if !missing.is_empty() {
            return (false, "NoRecorder", format!("no Recorder has {}", missing.join(", ")));
        }
        if !self.silent.is_empty() {
            let rules = some(self.silent.iter().map(|place| format!("rule {place}")).collect());
            let message = format!(
                "without a recorder: {rules}; what no other rule covers is not recorded{}; name a tag in recorder, or take the rule away",
                self.neither()
            );
            return (false, "RuleWithoutRecorder", message);
        }
        let of = |tag: &Tag| {
            let names = tag.recorders.iter().map(|recorder| recorder.name.clone()).collect();
            format!("{}: {}", tag.name, some(names))
        };
        (true, "Resolved", some(self.tags.iter().map(of).collect()))
    }

    /// Whether any recorder that satisfies the grant can take recordings. Fail closed is satisfied only by those that
    /// a rule names which enforces.
    pub(super) fn ready(&self) -> Finding {
        let mut obstacles = Vec::new();
        for tag in self.tags.iter().filter(|tag| tag.enforced || !self.enforces) {
            for recorder in &tag.recorders {
                match recorder.obstacle(self.require_ack) {
                    None => {
                        return (true, "Ready", format!("recorder {}: {}", recorder.name, recorder.message));
                    }
                    Some(obstacle) if !obstacles.contains(&obstacle) => obstacles.push(obstacle),
                    Some(_) => {}
                }
            }
        }
        if !obstacles.is_empty() {
            return (false, "NotReady", format!("{}; {}", some(obstacles), self.consequence()));
        }
        let (_, reason, message) = self.resolved();
        if reason == "NoRecorderNamed" {
            return (false, reason, message);
        }
        (false, "NoRecorder", format!("{message}; {}", self.consequence()))
    }

    const fn neither(&self) -> &'static str {
        if self.displaces { ", by default grants neither" } else { "" }
    }

    const fn consequence(&self) -> &'static str {
        if self.enforces {
            "sessions are refused until a Recorder with this tag is ready"
        } else {
            "recordings wait in their pods until then"
        }
    }

    /// One line for people: each recorder with its replicas, or why there is none.
    pub(super) fn recording(&self) -> String {
        let mut shown: Vec<String> = Vec::new();
        for recorder in self.tags.iter().flat_map(|tag| &tag.recorders) {
            let where_to =
                if recorder.external { "external".to_owned() } else { recorder.replicas.len().to_string() };
            let text = format!("{} ({where_to})", recorder.name);
            if !shown.contains(&text) {
                shown.push(text);
            }
        }
        match (self.tags.is_empty(), shown.is_empty()) {
            (true, _) if self.displaces => "none: no tag named, default grants kept away".to_owned(),
            (true, _) => "none: no tag named".to_owned(),
            (false, true) => {
                let tags = self.tags.iter().map(|tag| tag.name.clone()).collect();
                format!("none: no Recorder has {}", some(tags))
            }
            (false, false) => some(shown),
        }
    }

    /// Recorders by tag.
    pub(super) fn recorders(&self) -> Vec<GrantRecorder> {
        let of = |tag: &Tag, recorder: &RecorderState| GrantRecorder {
            tag: tag.name.clone(),
            name: recorder.name.clone(),
            ready: recorder.ready,
            replicas: u32::try_from(recorder.replicas.len()).unwrap_or(u32::MAX),
            message: recorder.message.clone(),
        };
        let all = self.tags.iter().flat_map(|tag| tag.recorders.iter().map(|recorder| of(tag, recorder)));
        all.take(MAX_STATUS_RECORDERS).collect()
    }
}

/// Whether a rule covers whatever another does, as far as can be seen without looking into globs.
fn covers(wide: &Rule, narrow: &Rule) -> bool {
    let scopes = [
        (&wide.namespaces, &narrow.namespaces),
        (&wide.verbs, &narrow.verbs),
        (&wide.resources, &narrow.resources),
    ];
    scopes.into_iter().all(|(wide, narrow)| wide.is_empty() || wide == narrow)
}

/// Whether every part of a grant has an effect.
pub(super) fn effective(spec: &GrantSpec) -> Finding {
    let found = WithoutEffect::of(spec);
    let parts = || some(found.parts.clone());
    if found.no_rule {
        return (
            false,
            "NoRule",
            "app has no tailscale.com/cap/kubernetes, so that the grant has no effect".to_owned(),
        );
    }
    if found.nobody {
        return (false, "MatchesNobody", format!("src matches no user here; without effect: {}", parts()));
    }
    if found.no_pod {
        return (false, "MatchesNoPod", format!("dst matches no pod here; without effect: {}", parts()));
    }
    if found.no_request {
        let message = format!("no rule matches any request; without effect: {}", parts());
        return (false, "MatchesNoRequest", message);
    }
    if !found.is_none() {
        return (false, "PartsWithoutEffect", format!("without effect here: {}", parts()));
    }
    (true, "Effective", "every part has an effect".to_owned())
}

/// A list of which the first items are named.
fn some(mut items: Vec<String>) -> String {
    let more = items.len().saturating_sub(MAX_NAMED);
    items.truncate(MAX_NAMED);
    let named = items.join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}
