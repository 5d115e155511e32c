//! Requests and limits of the sidecar: always set, so that quotas count it and autoscalers do not trip over it; equal
//! where the pod is Guaranteed, so that it stays so (`pkg/apis/core/v1/helper/qos/qos.go`).
//!
//! Where the pod as a whole has a limit (`spec.resources`, KEP-2837), the kernel holds all containers to it together:
//! others could take all of it from the sidecar, whatever its own limit says.

use serde_json::{Value, json};

use super::{
    pod::{self, List, text},
    quantity,
    refusal::{Reason, Refusal},
    tuning::{Amount, FLOORS, Tuning},
};

/// CPU of the sidecar in a Guaranteed pod, where what may be used has to be set aside.
const GUARANTEED_CPU: u64 = 100;

/// How one kind of resource is read and written.
struct Kind {
    name: &'static str,
    parse: fn(&str) -> Option<u64>,
    show: fn(u64) -> String,
}

const CPU: Kind = Kind { name: "cpu", parse: quantity::cpu, show: quantity::cpu_text };
const MEMORY: Kind = Kind { name: "memory", parse: quantity::memory, show: quantity::memory_text };

/// The `resources` of the sidecar in this pod.
pub(super) fn of(pod: &Value, tuning: &Tuning) -> Value {
    let (mut cpu, mut memory) = (tuning.cpu, tuning.memory);
    if is_guaranteed(pod) {
        cpu.limit = if cpu.explicit { cpu.limit } else { cpu.request.max(GUARANTEED_CPU) };
        cpu.request = cpu.limit;
        memory.request = memory.limit;
    }
    let (cpu, memory) = (within_pod(pod, &CPU, cpu), within_pod(pod, &MEMORY, memory));
    json!({
        "limits": {"cpu": (CPU.show)(cpu.limit), "memory": (MEMORY.show)(memory.limit)},
        "requests": {"cpu": (CPU.show)(cpu.request), "memory": (MEMORY.show)(memory.request)},
    })
}

/// Whether a limit of the pod as a whole leaves the sidecar what it needs to do its work.
///
/// # Errors
/// Where less of it is left to the sidecar than its floor, by what the other containers are given.
pub(super) fn check(pod: &Value) -> Result<(), Refusal> {
    for (kind, floor) in [(&CPU, FLOORS.cpu), (&MEMORY, FLOORS.memory)] {
        let Some(limit) = find(pod.pointer("/spec/resources"), "limits", kind) else { continue };
        let taken = taken(pod, kind);
        if limit.saturating_sub(taken) < floor {
            let (name, limit, floor) = (kind.name, (kind.show)(limit), (kind.show)(floor));
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
fn taken(pod: &Value, kind: &Kind) -> u64 {
    let (mut always, mut first) = (0_u64, 0_u64);
    for container in pod::others(pod) {
        let resources = container.value.get("resources");
        let given = ["limits", "requests"].into_iter().find_map(|list| find(resources, list, kind));
        let given = given.unwrap_or_default();
        // Init containers run one at a time, beside those that go on; others follow when they have ended.
        if container.list == List::Init && text(container.value, "restartPolicy") != "Always" {
            first = first.max(always.saturating_add(given));
        } else {
            always = always.saturating_add(given);
        }
    }
    always.max(first)
}

/// Where the pod as a whole has an amount, that counts: containers must fit below it, and we set nothing aside of it.
fn within_pod(pod: &Value, kind: &Kind, amount: Amount) -> Amount {
    let of_pod = pod.pointer("/spec/resources");
    let request = find(of_pod, "requests", kind);
    let limit = find(of_pod, "limits", kind);
    if request.is_none() && limit.is_none() {
        return amount;
    }
    Amount { request: 0, limit: amount.limit.min(limit.unwrap_or(amount.limit)), ..amount }
}

/// Whether every container has limits for both resources and requests no less.
fn is_guaranteed(pod: &Value) -> bool {
    pod::others(pod).all(|container| {
        let resources = container.value.get("resources");
        [CPU, MEMORY].iter().all(|kind| {
            let limit = find(resources, "limits", kind);
            let request = find(resources, "requests", kind);
            limit.is_some_and(|limit| limit > 0) && (request.is_none() || request == limit)
        })
    })
}

fn find(resources: Option<&Value>, side: &str, kind: &Kind) -> Option<u64> {
    match resources?.get(side)?.get(kind.name)? {
        Value::String(text) => (kind.parse)(text),
        // A number is a quantity too until the API server has written it back as text.
        number => (kind.parse)(&number.to_string()),
    }
}

#[cfg(test)]
mod tests;
