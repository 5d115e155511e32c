//! Parts of a grant that match nothing in a cluster: a grant of a Tailscale policy file is accepted as it is, and what
//! has no effect is named, with the word that was probably meant.

mod words;

pub use words::{API_VERBS, METHODS};

use std::net::IpAddr;

use super::{GrantSpec, Rule};
use crate::nearest::nearest;

/// Prefixes of a Tailscale `src` that match no user here.
const SRC_WITHOUT_EFFECT: [&str; 5] = ["autogroup:", "host:", "ipset:", "svc:", "tag:"];
/// Prefixes of a `dst` that match pods.
const DST_OF_PODS: [&str; 3] = ["namespace:", "pod:", "tag:"];
/// What a `src` begins with, without its colon.
const SRC_KINDS: [&str; 3] = ["user", "group", "serviceaccount"];
/// What a `dst` begins with, without its colon.
const DST_KINDS: [&str; 3] = ["namespace", "pod", "tag"];
/// Names that the API server gives to groups and to no user.
const GROUPS: [&str; 5] = [
    "system:authenticated",
    "system:masters",
    "system:nodes",
    "system:serviceaccounts",
    "system:unauthenticated",
];

/// What of a grant has no effect.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WithoutEffect {
    /// Its parts, such as `src autogroup:member`, or `verbs gett (did you mean get?)`.
    pub parts: Vec<String>,
    /// Parts that may have an effect, and more probably are mistakes; not counted by [`Self::is_none`].
    pub doubtful: Vec<String>,
    /// No item of `src` can match a caller whose identity is verified.
    pub nobody: bool,
    /// No item of `dst` can match a pod.
    pub no_pod: bool,
    /// There is no rule of the Kubernetes capability.
    pub no_rule: bool,
    /// There are rules, and none can match a request.
    pub no_request: bool,
}

impl WithoutEffect {
    /// Looks through a grant.
    #[must_use]
    pub fn of(spec: &GrantSpec) -> Self {
        let rules = &spec.app.kubernetes;
        let mut found = Self {
            nobody: !spec.src.iter().any(|src| src_matches_anyone(src)),
            no_pod: !spec.dst.iter().any(|dst| dst_matches_pods(dst)),
            no_rule: rules.is_empty(),
            no_request: !rules.is_empty() && rules.iter().all(matches_no_request),
            ..Self::default()
        };
        let src = spec.src.iter().filter(|src| !src_matches_anyone(src));
        found.parts.extend(src.map(|src| format!("src {src}")));
        let dst = spec.dst.iter().filter(|dst| !dst_matches_pods(dst));
        found.parts.extend(dst.map(|dst| with_hint("dst", dst, meant_dst(dst))));
        found.parts.extend((!spec.ip.is_empty()).then(|| "ip".to_owned()));
        let impersonates = rules.iter().any(|rule| rule.impersonate.is_some());
        found.parts.extend(impersonates.then(|| "impersonate".to_owned()));
        rules.iter().for_each(|rule| found.add_rule(rule));
        let src = spec.src.iter().filter_map(|src| Some(with_hint("src", src, Some(meant_src(src)?))));
        found.doubtful.extend(src);
        found
    }

    /// Whether every part has an effect.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.parts.is_empty() && !self.nobody && !self.no_pod && !self.no_rule && !self.no_request
    }

    fn add_rule(&mut self, rule: &Rule) {
        let verbs = rule.verbs.iter().filter(|verb| !words::is_verb(verb));
        let mut parts: Vec<String> =
            verbs.map(|verb| with_hint("verbs", verb, words::meant_verb(verb))).collect();
        let resources = rule.resources.iter().filter(|resource| words::is_no_resource(resource));
        parts.extend(resources.map(|name| with_hint("resources", name, words::meant_resource(name))));
        for part in parts {
            if !self.parts.contains(&part) {
                self.parts.push(part);
            }
        }
        let doubtful = rule.resources.iter().filter(|resource| !words::is_no_resource(resource));
        let doubtful =
            doubtful.filter_map(|name| Some(with_hint("resources", name, Some(words::near_resource(name)?))));
        self.doubtful.extend(doubtful);
    }
}

fn with_hint(field: &str, item: &str, meant: Option<String>) -> String {
    meant.map_or_else(|| format!("{field} {item}"), |meant| format!("{field} {item} (did you mean {meant}?)"))
}

/// Whether no request is in the scope of a rule, whatever it asks for.
fn matches_no_request(rule: &Rule) -> bool {
    let none = |list: &[String], matches: fn(&str) -> bool| {
        !list.is_empty() && !list.iter().any(|item| matches(item))
    };
    none(&rule.verbs, words::is_verb) || none(&rule.resources, |item| !words::is_no_resource(item))
}

/// Whether an item of `src` can match a caller. Addresses cannot: a request from a pod has no address of its user.
#[must_use]
pub fn src_matches_anyone(src: &str) -> bool {
    !is_address(src) && !SRC_WITHOUT_EFFECT.iter().any(|prefix| src.starts_with(prefix))
}

/// Whether an item of `dst` can match a pod.
#[must_use]
pub fn dst_matches_pods(dst: &str) -> bool {
    dst == "*" || DST_OF_PODS.iter().any(|prefix| dst.starts_with(prefix))
}

fn is_address(item: &str) -> bool {
    item.split('/').next().is_some_and(|text| text.parse::<IpAddr>().is_ok())
}

/// What was probably meant by a `src` that is taken for the name of a user.
fn meant_src(src: &str) -> Option<String> {
    if GROUPS.contains(&src) || src.starts_with("system:serviceaccounts:") {
        return Some(format!("group:{src}"));
    }
    let (kind, rest) = src.split_once(':')?;
    if rest.is_empty() || SRC_KINDS.contains(&kind) || !src_matches_anyone(src) {
        return None;
    }
    let kind = match kind {
        "sa" => "serviceaccount",
        _ => nearest(kind, SRC_KINDS)?,
    };
    Some(format!("{kind}:{rest}"))
}

/// What was probably meant by a `dst` that matches no pod.
fn meant_dst(dst: &str) -> Option<String> {
    if is_address(dst) || dst.starts_with("autogroup:") {
        return None;
    }
    let is_name = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.*".contains(c))
    };
    match dst.split_once(':') {
        Some(("ns", rest)) => Some(format!("namespace:{rest}")),
        Some((kind, rest)) => nearest(kind, DST_KINDS).map(|kind| format!("{kind}:{rest}")),
        None => match dst.split_once('/') {
            Some((namespace, pod)) if is_name(namespace) && is_name(pod) => Some(format!("pod:{dst}")),
            None if is_name(dst) && !dst.contains('.') => Some(format!("namespace:{dst}")),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests;
