//! Whether the namespace's ResourceQuotas have room for the sidecar.
//!
//! The API server decides after this webhook, against numbers that change with every pod, so that what is said here is the
//! best that can be known: by the status of the quotas. It is asked only where injection is optional.
//!
//! Source: `pkg/quota/v1/evaluator/core/pods.go` and `staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{ResourceQuota, ScopedResourceSelectorRequirement},
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::Value;

use super::{
    pod::{self, items, text},
    quantity,
    refusal::{Reason, Refusal},
    totals::{self, Side},
};

/// A ResourceQuota, as far as it counts what a sidecar adds. Amounts are thousandths.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Quota {
    name: String,
    scopes: Vec<Scope>,
    /// By the quota's own names of resources: what there is, and what is used.
    counted: BTreeMap<&'static str, (u128, u128)>,
}

/// Which pods a quota counts.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Scope {
    BestEffort(bool),
    Terminating(bool),
    PriorityClass {
        operator: String,
        values: Vec<String>,
    },
    CrossNamespaceAffinity,
    /// It counts no pod, or none by what is known here.
    Unknown,
}

/// Names by which a quota counts resources of containers.
const COUNTED: [(&str, Side, &str); 9] = [
    ("cpu", Side::Requests, "cpu"),
    ("requests.cpu", Side::Requests, "cpu"),
    ("limits.cpu", Side::Limits, "cpu"),
    ("memory", Side::Requests, "memory"),
    ("requests.memory", Side::Requests, "memory"),
    ("limits.memory", Side::Limits, "memory"),
    ("ephemeral-storage", Side::Requests, "ephemeral-storage"),
    ("requests.ephemeral-storage", Side::Requests, "ephemeral-storage"),
    ("limits.ephemeral-storage", Side::Limits, "ephemeral-storage"),
];
/// The name by which it counts pods.
const PODS: &str = "pods";
/// One pod, in thousandths.
const ONE_POD: u128 = 1000;

impl Quota {
    /// What matters here of a ResourceQuota.
    pub(super) fn read(quota: &ResourceQuota) -> Self {
        let spec = quota.spec.as_ref();
        let plain = spec.iter().flat_map(|spec| spec.scopes.iter().flatten());
        let selected = spec.iter().flat_map(|spec| {
            spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten())
        });
        let scopes = plain.map(|name| Scope::read(name, "Exists", &[])).chain(selected.map(Scope::select));
        let status = quota.status.as_ref();
        let find = |list: Option<&BTreeMap<String, Quantity>>, name: &str| {
            quantity::thousandths(&list?.get(name)?.0)
        };
        let counted = COUNTED.iter().map(|(name, ..)| *name).chain([PODS]).filter_map(|name| {
            let hard = find(status.and_then(|status| status.hard.as_ref()), name)?;
            let used = find(status.and_then(|status| status.used.as_ref()), name).unwrap_or_default();
            Some((name, (hard, used)))
        });
        Self {
            name: quota.metadata.name.clone().unwrap_or_default(),
            scopes: scopes.collect(),
            counted: counted.collect(),
        }
    }

    /// Whether it counts the pod; a pod with a sidecar is never of class BestEffort.
    fn counts(&self, pod: &Value, is_best_effort: bool) -> bool {
        self.scopes.iter().all(|scope| scope.holds(pod, is_best_effort))
    }

    /// Why it would refuse the pod.
    fn refuses(&self, pod: &Value) -> Option<String> {
        if !self.counts(pod, is_best_effort(pod)) {
            return None;
        }
        let of_containers = COUNTED.iter().filter_map(|(name, side, resource)| {
            let (hard, used) = *self.counted.get(name)?;
            if *resource != "ephemeral-storage"
                && let Some(container) = without(pod, *side, resource)
            {
                return Some(format!("container {container} has no {name}"));
            }
            exceeded(name, hard, used, usage(pod, *side, resource)?)
        });
        let of_pods = self.counted.get(PODS).and_then(|(hard, used)| exceeded(PODS, *hard, *used, ONE_POD));
        of_containers.chain(of_pods).next()
    }
}

impl Scope {
    fn select(requirement: &ScopedResourceSelectorRequirement) -> Self {
        let values = requirement.values.as_deref().unwrap_or_default();
        Self::read(&requirement.scope_name, &requirement.operator, values)
    }

    fn read(name: &str, operator: &str, values: &[String]) -> Self {
        match name {
            "BestEffort" => Self::BestEffort(true),
            "NotBestEffort" => Self::BestEffort(false),
            "Terminating" => Self::Terminating(true),
            "NotTerminating" => Self::Terminating(false),
            "PriorityClass" => Self::PriorityClass { operator: operator.to_owned(), values: values.to_vec() },
            "CrossNamespacePodAffinity" => Self::CrossNamespaceAffinity,
            _ => Self::Unknown,
        }
    }

    fn holds(&self, pod: &Value, is_best_effort: bool) -> bool {
        match self {
            Self::BestEffort(wanted) => is_best_effort == *wanted,
            Self::Terminating(wanted) => {
                let deadline = pod.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64);
                deadline.is_some_and(|seconds| seconds >= 0) == *wanted
            }
            Self::PriorityClass { operator, values } => {
                let class = pod.get("spec").map(|spec| text(spec, "priorityClassName")).unwrap_or_default();
                let is_named = values.iter().any(|value| value == class);
                match operator.as_str() {
                    "In" => !class.is_empty() && is_named,
                    "NotIn" => !is_named,
                    "Exists" => !class.is_empty(),
                    "DoesNotExist" => class.is_empty(),
                    _ => false,
                }
            }
            Self::CrossNamespaceAffinity => has_affinity_elsewhere(pod),
            Self::Unknown => false,
        }
    }
}

/// Whether a quota counts this resource's limits, which every container of the pod then has to have.
pub(super) fn counts_limits(pod: &Value, resource: &str, quotas: &[Quota]) -> bool {
    quotas.iter().any(|quota| {
        let counted = COUNTED.iter().any(|(name, side, of)| {
            *side == Side::Limits && *of == resource && quota.counted.contains_key(name)
        });
        counted && quota.counts(pod, false)
    })
}

/// Whether the pod is refused for want of quota as it became, and was not as it came.
///
/// # Errors
/// With the quota, and what is missing.
pub(super) fn check(before: &Value, after: &Value, quotas: &[Quota]) -> Result<(), Refusal> {
    if quotas.iter().any(|quota| quota.refuses(before).is_some()) {
        return Ok(());
    }
    let refused = quotas.iter().find_map(|quota| Some((&quota.name, quota.refuses(after)?)));
    refused.map_or(Ok(()), |(name, why)| {
        Err(Reason::Quota.because(format!(
            "ResourceQuota {name} has no room for the sidecar ({why}): raise it, or lower what the sidecar has by the \
             annotations podwitness.dev/memory-limit, memory-request, cpu-request of the pod or the Namespace"
        )))
    })
}

fn exceeded(name: &str, hard: u128, used: u128, wanted: u128) -> Option<String> {
    let show = |thousandths: u128| {
        let unit: fn(u64) -> String =
            if name.ends_with("cpu") { quantity::cpu_text } else { quantity::memory_text };
        let whole = if name.ends_with("cpu") { Some(thousandths) } else { thousandths.checked_div(1000) };
        unit(whole.and_then(|whole| u64::try_from(whole).ok()).unwrap_or(u64::MAX))
    };
    (used.saturating_add(wanted) > hard).then(|| {
        format!("{name}: the pod would take {}, {} of {} are used", show(wanted), show(used), show(hard))
    })
}

/// A container that does not say what a quota of CPU and memory wants of every container, unless the pod as a whole says
/// anything.
fn without<'a>(pod: &'a Value, side: Side, resource: &str) -> Option<&'a str> {
    if pod.pointer("/spec/resources").is_some_and(Value::is_object) {
        return None;
    }
    let says = |value: &Value| totals::said(value.get("resources"), side, resource).is_some();
    pod::all(pod).find(|container| !says(container.value)).map(|container| container.name())
}

/// What the pod takes: what it says as a whole, or else its containers together, and what its RuntimeClass adds.
fn usage(pod: &Value, side: Side, resource: &str) -> Option<u128> {
    let whole = totals::said(pod.pointer("/spec/resources"), side, resource);
    let taken = whole.or_else(|| totals::of(pod::all(pod), side, resource));
    let overhead = pod
        .pointer("/spec/overhead")
        .and_then(|overhead| overhead.get(resource))
        .and_then(Value::as_str)
        .and_then(quantity::thousandths);
    match (side, taken) {
        (Side::Requests, None) => overhead,
        (Side::Limits, None | Some(0)) => taken,
        (_, Some(taken)) => Some(taken.saturating_add(overhead.unwrap_or_default())),
    }
}

/// Whether neither the pod nor a container says anything of CPU and memory.
fn is_best_effort(pod: &Value) -> bool {
    let says = |resources: Option<&Value>| {
        [Side::Requests, Side::Limits].into_iter().any(|side| {
            ["cpu", "memory"]
                .iter()
                .any(|resource| totals::said(resources, side, resource).is_some_and(|amount| amount > 0))
        })
    };
    let whole = pod.pointer("/spec/resources").filter(|resources| resources.is_object());
    match whole {
        Some(_) => !says(whole),
        None => !pod::all(pod).any(|container| says(container.value.get("resources"))),
    }
}

/// Whether a term of affinity between pods names namespaces.
fn has_affinity_elsewhere(pod: &Value) -> bool {
    let elsewhere = |term: &Value| {
        !items(Some(term), "namespaces").is_empty()
            || term.get("namespaceSelector").is_some_and(Value::is_object)
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = pod.pointer("/spec/affinity").and_then(|affinity| affinity.get(kind));
        let required = items(affinity, "requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = items(affinity, "preferredDuringSchedulingIgnoredDuringExecution").iter();
        required.chain(preferred.filter_map(|preferred| preferred.get("podAffinityTerm"))).any(elsewhere)
    })
}

#[cfg(test)]
mod tests;
