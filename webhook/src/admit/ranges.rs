//! What a namespace's LimitRanges demand of its containers and pods.
//!
//! Source: `plugin/pkg/admission/limitranger/admission.go`. It fills in defaults before this webhook and once more after
//! it, and refuses pods at the end.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{LimitRange, LimitRangeItem},
    apimachinery::pkg::api::resource::Quantity,
};

use super::quantity;

type Quantities = Option<BTreeMap<String, Quantity>>;

/// Bounds of one resource, in thousandths of its unit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bounds {
    /// Least request and least limit.
    pub min: Option<u128>,
    /// Highest request and highest limit; there has to be a limit.
    pub max: Option<u128>,
    /// Highest limit divided by request; there has to be a limit, and a request above zero.
    pub ratio: Option<u128>,
    /// Whether a limit is filled in where a container has none.
    pub default: bool,
}

/// Bounds of CPU and memory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BothBounds {
    /// Thousandths of a CPU.
    pub cpu: Bounds,
    /// Thousandths of a byte.
    pub memory: Bounds,
}

/// All LimitRanges of a namespace together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ranges {
    /// Of each container, init containers included.
    pub container: BothBounds,
    /// Of all containers of a pod together.
    pub pod: BothBounds,
    /// Limits of other resources that are filled in, as they are written.
    pub limits: BTreeMap<String, String>,
    /// Requests of other resources that are filled in.
    pub requests: BTreeMap<String, String>,
}

impl Bounds {
    /// Whether a container is refused that has no limit, or is given one.
    pub(super) const fn asks_for_limit(&self) -> bool {
        self.max.is_some() || self.ratio.is_some() || self.default
    }

    fn narrow(&mut self, other: Self) {
        let least = |one: Option<u128>, other: Option<u128>| one.into_iter().chain(other).min();
        self.min = self.min.max(other.min);
        self.max = least(self.max, other.max);
        self.ratio = least(self.ratio, other.ratio);
        self.default |= other.default;
    }
}

impl BothBounds {
    fn narrow(&mut self, other: Self) {
        self.cpu.narrow(other.cpu);
        self.memory.narrow(other.memory);
    }
}

impl Ranges {
    /// What one LimitRange demands.
    pub(super) fn read(range: &LimitRange) -> Self {
        let mut all = Self::default();
        let items = range.spec.iter().flat_map(|spec| &spec.limits);
        for item in items {
            match item.type_.as_str() {
                "Container" => {
                    all.container.narrow(both(item));
                    all.limits.extend(others(&item.default));
                    all.requests.extend(others(&item.default_request));
                }
                "Pod" => all.pod.narrow(both(item)),
                _ => {}
            }
        }
        all
    }

    /// What it demands together with another. Of two defaults the first one found counts, as in the plugin.
    pub(super) fn narrow(&mut self, other: &Self) {
        self.container.narrow(other.container);
        self.pod.narrow(other.pod);
        for (mine, theirs) in [(&mut self.limits, &other.limits), (&mut self.requests, &other.requests)] {
            for (resource, quantity) in theirs {
                mine.entry(resource.clone()).or_insert_with(|| quantity.clone());
            }
        }
    }
}

fn both(item: &LimitRangeItem) -> BothBounds {
    BothBounds { cpu: bounds(item, "cpu"), memory: bounds(item, "memory") }
}

fn bounds(item: &LimitRangeItem, resource: &str) -> Bounds {
    let find = |list: &Quantities| quantity::thousandths(&list.as_ref()?.get(resource)?.0);
    Bounds {
        min: find(&item.min),
        max: find(&item.max),
        ratio: find(&item.max_limit_request_ratio),
        default: find(&item.default).is_some(),
    }
}

/// What is filled in of resources other than CPU and memory, which the sidecar has of its own.
fn others(list: &Quantities) -> impl Iterator<Item = (String, String)> {
    let all = list.iter().flatten().filter(|(resource, _)| !matches!(resource.as_str(), "cpu" | "memory"));
    all.map(|(resource, quantity)| (resource.clone(), quantity.0.clone()))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A LimitRange with these items.
    pub(in crate::admit) fn range(items: &Value) -> LimitRange {
        serde_json::from_value(json!({"metadata": {"name": "r", "namespace": "shop"},
            "spec": {"limits": items}}))
        .unwrap()
    }

    #[test]
    fn several_limit_ranges_hold_together() {
        let mut all = Ranges::read(&range(&json!([
            {"type": "Container", "min": {"cpu": "50m", "memory": "64Mi"}, "max": {"cpu": "2"},
                "default": {"cpu": "500m", "ephemeral-storage": "1Gi"}},
            {"type": "Pod", "maxLimitRequestRatio": {"memory": "1.5"}},
            {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}])));
        all.narrow(&Ranges::read(&range(&json!([
            {"type": "Container", "min": {"cpu": "20m"}, "max": {"cpu": "1", "memory": "1Gi"},
                "default": {"ephemeral-storage": "2Gi"}, "defaultRequest": {"ephemeral-storage": "1Mi"}}]))));
        let cpu = Bounds { min: Some(50), max: Some(1000), ratio: None, default: true };
        let memory =
            Bounds { min: Some((64 << 20) * 1000), max: Some((1 << 30) * 1000), ..Bounds::default() };
        assert_eq!(all.container, BothBounds { cpu, memory });
        assert_eq!(all.pod.memory.ratio, Some(1500));
        assert_eq!(all.limits, [("ephemeral-storage".to_owned(), "1Gi".to_owned())].into());
        assert_eq!(all.requests, [("ephemeral-storage".to_owned(), "1Mi".to_owned())].into());
    }
}
