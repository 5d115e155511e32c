//! What the containers of a pod take of a resource together, at the time when they take most.
//!
//! Source: `PodRequests` and `PodLimits` of `k8s.io/component-helpers/resource/helpers.go`, by which the scheduler, quotas
//! and LimitRanges count.

use serde_json::Value;

use super::{
    pod::{Container, List, text},
    quantity,
};

/// Requests or limits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Side {
    Requests,
    Limits,
}

impl Side {
    /// The field of `resources`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
}

/// What a `resources` object says of a resource, in thousandths of its unit.
pub(super) fn said(resources: Option<&Value>, side: Side, resource: &str) -> Option<u128> {
    match resources?.get(side.name())?.get(resource)? {
        Value::String(text) => quantity::thousandths(text),
        // A number is a quantity too until the API server has written it back as text.
        number => quantity::thousandths(&number.to_string()),
    }
}

/// What these containers, init containers first, take together: in thousandths, and nothing where none of them says it.
pub(super) fn of<'a>(
    containers: impl Iterator<Item = Container<'a>>,
    side: Side,
    resource: &str,
) -> Option<u128> {
    let amounts = containers
        .map(|container| (container, said(container.value.get("resources"), side, resource)))
        .collect::<Vec<_>>();
    amounts.iter().any(|(_, amount)| amount.is_some()).then(|| most(amounts))
}

/// The same of amounts that are known. Init containers run one at a time, beside those that go on; all others follow when
/// they have ended.
pub(super) fn most<'a>(amounts: impl IntoIterator<Item = (Container<'a>, Option<u128>)>) -> u128 {
    let (mut going_on, mut at_once) = (0_u128, 0_u128);
    for (container, amount) in amounts {
        let amount = amount.unwrap_or_default();
        if container.list == List::Init && text(container.value, "restartPolicy") != "Always" {
            at_once = at_once.max(going_on.saturating_add(amount));
        } else {
            going_on = going_on.saturating_add(amount);
        }
    }
    going_on.max(at_once)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admit::pod::others;

    fn total(init: &[(&str, &str)], apps: &[&str]) -> Option<u128> {
        let requests = |cpu: &str| match cpu {
            "" => json!({}),
            _ => json!({"requests": {"cpu": cpu}}),
        };
        let init: Vec<Value> = init
            .iter()
            .map(|(policy, cpu)| json!({"restartPolicy": policy, "resources": requests(cpu)}))
            .collect();
        let apps: Vec<Value> = apps.iter().map(|cpu| json!({"resources": requests(cpu)})).collect();
        let pod = json!({"spec": {"initContainers": init, "containers": apps}});
        of(others(&pod), Side::Requests, "cpu")
    }

    #[test]
    fn a_pod_takes_what_runs_at_a_time() {
        for (init, apps, expected) in [
            (&[][..], &["100m", "1"][..], Some(1100)),
            (&[], &["", ""], None),
            (&[], &["", "1u"], Some(1)),
            (&[("", "2")], &["100m", "1"], Some(2000)),
            (&[("", "2"), ("", "3")], &["1"], Some(3000)),
            (&[("Always", "2"), ("", "3")], &["1"], Some(5000)),
            (&[("", "3"), ("Always", "2")], &["1"], Some(3000)),
            (&[("Always", "2"), ("Always", "1"), ("", "")], &["4"], Some(7000)),
        ] {
            assert_eq!(total(init, apps), expected, "{init:?} {apps:?}");
        }
    }
}
