//! Matching of `src`, `dst` and the scope of a rule. Only `*` is special in a glob.

use std::borrow::Cow;

use super::{GrantSpec, Rule};
use crate::{
    identity::{Caller, User},
    request_info::{Action, PodAction, RequestInfo},
};

/// A pod as `dst` sees it.
#[derive(Clone, Copy, Debug)]
pub struct PodTarget<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name; `None` at admission of a pod whose name is yet to be generated, which fits every glob.
    pub name: Option<&'a str>,
    /// Tags of the namespace, without the `tag:` prefix.
    pub tags: &'a [String],
}

/// Whether a grant's `dst` means this pod.
#[must_use]
pub fn dst_fits(spec: &GrantSpec, pod: PodTarget<'_>) -> bool {
    spec.dst.iter().any(|dst| dst_item_fits(dst, pod))
}

/// Whether one item of `dst` means this pod.
#[must_use]
pub fn dst_item_fits(dst: &str, pod: PodTarget<'_>) -> bool {
    if let Some(namespace) = dst.strip_prefix("namespace:") {
        return glob(namespace, pod.namespace);
    }
    if let Some((namespace, name)) = dst.strip_prefix("pod:").and_then(|rest| rest.split_once('/')) {
        return glob(namespace, pod.namespace) && pod.name.is_none_or(|n| glob(name, n));
    }
    if let Some(tag) = dst.strip_prefix("tag:") {
        return pod.tags.iter().any(|t| t == tag);
    }
    dst == "*"
}

/// Whether a grant's `src` means this caller. An identity that nobody verified matches every `src`.
pub(super) fn src_fits(spec: &GrantSpec, caller: &Caller) -> bool {
    spec.src.iter().any(|src| src_item_fits(src, caller))
}

/// Whether one item of `src` means this caller.
#[must_use]
pub fn src_item_fits(src: &str, caller: &Caller) -> bool {
    let src = Src::read(src);
    !caller.verified || src.fits(&caller.authenticated) || src.fits(&caller.effective)
}

/// A request as the scope of a rule sees it. One through a node's kubelet is also what it does in a pod, whatever its
/// verb; where nobody knows what that is, it is in every scope.
pub(super) struct Scope<'a> {
    request: &'a RequestInfo,
    /// With its subresource.
    resource: Cow<'a, str>,
    through_node: Option<PodAction>,
}

impl<'a> Scope<'a> {
    /// The scope of `request`.
    pub(super) fn of(request: &'a RequestInfo) -> Self {
        let resource = if request.subresource.is_empty() {
            Cow::Borrowed(&*request.resource)
        } else {
            Cow::Owned(format!("{}/{}", request.resource, request.subresource))
        };
        let through_node = request.pod_action().filter(|action| action.through_node);
        Self { request, resource, through_node }
    }

    /// Whether a rule covers it.
    pub(super) fn fits(&self, rule: &Rule) -> bool {
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|g| glob(g, value));
        let in_pod = |PodAction { action, namespace, .. }: &PodAction| {
            *action == Action::Unknown
                || any(&rule.namespaces, namespace) && any(&rule.resources, action.resource())
        };
        self.through_node.as_ref().is_some_and(in_pod)
            || any(&rule.namespaces, &self.request.namespace)
                && any(&rule.verbs, &self.request.verb)
                && any(&rule.resources, &self.resource)
    }
}

/// An item of `src`, read.
#[derive(Clone, Copy)]
pub(super) enum Src<'a> {
    Everyone,
    /// Exactly this name, also where it looks like something else.
    User(&'a str),
    Group(&'a str),
    /// Globs of namespace and name.
    Account(&'a str, &'a str),
}

impl<'a> Src<'a> {
    /// Reads an item.
    pub(super) fn read(src: &'a str) -> Self {
        if src == "*" {
            return Self::Everyone;
        }
        if let Some(group) = src.strip_prefix("group:") {
            return Self::Group(group);
        }
        match src.strip_prefix("serviceaccount:").and_then(|rest| rest.split_once('/')) {
            Some((namespace, name)) => Self::Account(namespace, name),
            None => Self::User(src.strip_prefix("user:").unwrap_or(src)),
        }
    }

    fn fits(self, user: &User) -> bool {
        match self {
            Self::Everyone => true,
            Self::User(name) => user.name == name,
            Self::Group(name) => user.groups.iter().any(|group| group == name),
            Self::Account(namespace, name) => {
                user.service_account().is_some_and(|(ns, n)| glob(namespace, ns) && glob(name, n))
            }
        }
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any run of characters. Linear in both.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else { return false };
    let Some(tail) = pattern.contains('*').then(|| parts.next_back().unwrap_or("")) else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(tail)
}
