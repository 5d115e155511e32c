//! Matching of `src`, `dst` and the scope of a rule. Only `*` is special in a glob.

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
    spec.dst.iter().any(|dst| {
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
    })
}

/// Whether a grant's `src` means this caller. An identity that nobody verified matches every `src`.
pub(super) fn src_fits(spec: &GrantSpec, caller: &Caller) -> bool {
    let fits = |src: &String| user_fits(src, &caller.authenticated) || user_fits(src, &caller.effective);
    !caller.verified && !spec.src.is_empty() || spec.src.iter().any(fits)
}

/// Whether a rule's scope covers this request. One through a node's kubelet is also what it does in a pod, whatever
/// its verb; where nobody knows what that is, it is in every scope.
pub(super) fn scope_fits(rule: &Rule, request: &RequestInfo) -> bool {
    let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|g| glob(g, value));
    let in_pod = request.pod_action().filter(|action| action.through_node);
    if in_pod.is_some_and(|PodAction { action, namespace, .. }| {
        action == Action::Unknown
            || any(&rule.namespaces, &namespace) && any(&rule.resources, action.resource())
    }) {
        return true;
    }
    let resource = if request.subresource.is_empty() {
        request.resource.clone()
    } else {
        format!("{}/{}", request.resource, request.subresource)
    };
    any(&rule.namespaces, &request.namespace)
        && any(&rule.verbs, &request.verb)
        && any(&rule.resources, &resource)
}

fn user_fits(src: &str, user: &User) -> bool {
    if src == "*" {
        return true;
    }
    if let Some(group) = src.strip_prefix("group:") {
        return user.groups.iter().any(|g| g == group);
    }
    if let Some((namespace, name)) = src.strip_prefix("serviceaccount:").and_then(|rest| rest.split_once('/'))
    {
        return user.service_account().is_some_and(|(ns, n)| glob(namespace, ns) && glob(name, n));
    }
    user.name == src.strip_prefix("user:").unwrap_or(src)
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
