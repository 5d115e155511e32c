//! Requests and limits of the sidecar: what it is wanted to have ([`tuning`](super::tuning)), fitted
//! ([`fit()`]) into the namespace's LimitRanges and into what the pod as a whole may have.
//!
//! Memory is always limited, so that one pod's recordings cannot take the node's. CPU is limited only where it has to be: by
//! a LimitRange, by a ResourceQuota that counts limits, or where the pod is Guaranteed and has to stay so
//! (`pkg/apis/core/v1/helper/qos/qos.go`).
//!
//! Where the pod as a whole has a limit (`spec.resources`, KEP-2837), the kernel holds all containers to it together:
//! others could take all of it from the sidecar, whatever its own limit says.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Settings,
    fit::{Fitted, Frame, Misfit, Sums, Wanted, Why, fit},
    pod, quantity, quota,
    ranges::Bounds,
    refusal::{Reason, Refusal},
    totals::{self, Side},
    tuning::{Amount, FLOORS, Tuning},
};

/// How one kind of resource is counted and written.
struct Kind {
    name: &'static str,
    /// Thousandths in one unit of [`Amount`].
    unit: u128,
    /// Thousandths of which every value is a multiple.
    step: u128,
    /// Least limit, in units.
    floor: u64,
    show: fn(u64) -> String,
}

const CPU: Kind = Kind { name: "cpu", unit: 1, step: 1, floor: FLOORS.cpu, show: quantity::cpu_text };
const MEMORY: Kind =
    Kind { name: "memory", unit: 1000, step: 1000 << 10, floor: FLOORS.memory, show: quantity::memory_text };

impl Kind {
    fn thousandths(&self, units: u64) -> u128 {
        u128::from(units).saturating_mul(self.unit)
    }

    fn text(&self, thousandths: u128) -> String {
        let units = thousandths.checked_div(self.unit).and_then(|units| u64::try_from(units).ok());
        (self.show)(units.unwrap_or(u64::MAX))
    }
}

/// The `resources` of the sidecar in this pod.
///
/// # Errors
/// Where a LimitRange, or what the pod as a whole has, leaves no value that is possible.
pub(super) fn of(pod: &Value, tuning: &Tuning, settings: &Settings) -> Result<Value, Refusal> {
    let cpu = one(pod, &CPU, tuning.cpu, &settings.ranges.container.cpu, &settings.ranges.pod.cpu, settings)?;
    let bounds = &settings.ranges;
    let memory = one(pod, &MEMORY, tuning.memory, &bounds.container.memory, &bounds.pod.memory, settings)?;
    // What the LimitRanger would fill in of other resources: it runs before us once more and not after us.
    let filled = |from: &BTreeMap<String, String>| -> Map<String, Value> {
        from.iter().map(|(resource, quantity)| (resource.clone(), json!(quantity))).collect()
    };
    let (mut limits, mut requests) = (filled(&bounds.limits), filled(&bounds.requests));
    for (kind, fitted) in [(&CPU, cpu), (&MEMORY, memory)] {
        requests.insert(kind.name.to_owned(), json!(kind.text(fitted.request)));
        if let Some(limit) = fitted.limit {
            limits.insert(kind.name.to_owned(), json!(kind.text(limit)));
        }
    }
    Ok(json!({"limits": limits, "requests": requests}))
}

fn one(
    pod: &Value,
    kind: &Kind,
    amount: Amount,
    container: &Bounds,
    of_pod: &Bounds,
    settings: &Settings,
) -> Result<Fitted, Refusal> {
    let whole = Sums {
        request: totals::said(pod.pointer("/spec/resources"), Side::Requests, kind.name),
        limit: totals::said(pod.pointer("/spec/resources"), Side::Limits, kind.name),
    };
    let frame = Frame {
        floor: kind.thousandths(kind.floor),
        step: kind.step,
        container: *container,
        pod: *of_pod,
        others: Sums {
            request: totals::of(pod::others(pod), Side::Requests, kind.name),
            limit: totals::of(pod::others(pod), Side::Limits, kind.name),
        },
        whole,
        asks_for_limit: quota::counts_limits(pod, kind.name, &settings.quotas),
    };
    let wanted = wanted(kind, amount, is_guaranteed(pod), whole != Sums::default());
    fit(wanted, &frame).map_err(|misfit| refusal(kind, &misfit))
}

/// In a Guaranteed pod what may be used is set aside, so the least is wanted unless more was asked for. Where the pod as a
/// whole has an amount that counts, and nothing of it is set aside for us.
fn wanted(kind: &Kind, amount: Amount, is_guaranteed: bool, has_whole: bool) -> Wanted {
    let fallback = amount.request.max(kind.floor);
    let limit = if is_guaranteed && !amount.explicit { Some(fallback) } else { amount.limit };
    Wanted {
        request: if has_whole { 0 } else { kind.thousandths(amount.request) },
        limit: limit.map(|limit| kind.thousandths(limit)),
        fallback: kind.thousandths(fallback),
        equal: is_guaranteed,
    }
}

fn refusal(kind: &Kind, misfit: &Misfit) -> Refusal {
    let Misfit { what, least, most, ratio } = misfit;
    let by_range = [least.1, most.1]
        .iter()
        .any(|why| !matches!(why, Why::Floor | Why::Other | Why::WholeRequest | Why::WholeLimit));
    let reason = if by_range || ratio.is_some() { Reason::LimitRange } else { Reason::Resources };
    let most_why = match ratio {
        Some(ratio) => format!(
            "by maxLimitRequestRatio {} of the LimitRange",
            quantity::cpu_text(u64::try_from(*ratio).unwrap_or(u64::MAX))
        ),
        None => most.1.to_string(),
    };
    reason.because(format!(
        "the {what} of {} of the sidecar would have to be at least {} ({}) and at most {} ({most_why}): change the one or \
         the other",
        kind.name,
        kind.text(least.0),
        least.1,
        kind.text(most.0),
    ))
}

/// Whether a limit of the pod as a whole leaves the sidecar what it needs to do its work.
///
/// # Errors
/// Where less of it is left to the sidecar than its floor, by what the other containers are given.
pub(super) fn check(pod: &Value) -> Result<(), Refusal> {
    for kind in [&CPU, &MEMORY] {
        let whole = totals::said(pod.pointer("/spec/resources"), Side::Limits, kind.name);
        let Some(limit) = whole else { continue };
        if limit.saturating_sub(taken(pod, kind)) < kind.thousandths(kind.floor) {
            let (name, limit, floor) = (kind.name, kind.text(limit), (kind.show)(kind.floor));
            return Err(Reason::Resources.because(format!(
                "spec.resources.limits.{name} is {limit} for all containers together, and less than {floor} of it is \
                 left for the sidecar: lower the limits or requests of {name} of other containers, or raise that of \
                 the pod"
            )));
        }
    }
    Ok(())
}

/// What containers other than the sidecar are given at a time: their limits, and their requests where they have none. Such
/// a container may take more; the kernel then ends one of the pod's, and a sidecar that it ends refuses until it is back.
fn taken(pod: &Value, kind: &Kind) -> u128 {
    totals::most(pod::others(pod).map(|container| {
        let resources = container.value.get("resources");
        let said = |side| totals::said(resources, side, kind.name);
        (container, said(Side::Limits).or_else(|| said(Side::Requests)))
    }))
}

/// Whether the pod is Guaranteed by its containers: each has limits for both resources and requests no less. A pod with
/// `spec.resources` has its class by these.
fn is_guaranteed(pod: &Value) -> bool {
    let is_equal = |container: pod::Container<'_>| {
        let resources = container.value.get("resources");
        [CPU, MEMORY].iter().all(|kind| {
            let limit = totals::said(resources, Side::Limits, kind.name);
            let request = totals::said(resources, Side::Requests, kind.name);
            limit.is_some_and(|limit| limit > 0) && (request.is_none() || request == limit)
        })
    };
    !pod.pointer("/spec/resources").is_some_and(Value::is_object) && pod::others(pod).all(is_equal)
}

#[cfg(test)]
mod tests;
