//! What the sidecar writes to the node's disk, requested and limited beside what other containers say of their own.
//!
//! The kubelet (`pkg/kubelet/eviction/eviction_manager.go`) evicts a pod whose `emptyDir` is above its `sizeLimit`, and
//! one that writes more in all than its containers' limits together (`PodLimits`: the sum of those that there are, once
//! any container has one; containers without a limit add nothing, and are counted all the same). Under disk pressure it
//! evicts first what is above its requests (`rankDiskPressureFunc` of `helpers.go`, `PodRequests`). Volumes in memory
//! are not counted.
//!
//! So the sidecar says as much as it may write at most, where any other container says something: its recordings are
//! then paid for by itself. Where none does it says nothing either: a limit of its own would be one of the whole pod, and
//! a request would take place on the node from pods that reckon with none.

use serde_json::{Value, json};

use super::{pod, quantity::memory_text};

/// Key of the resource.
const KEY: &str = "ephemeral-storage";
/// What may come on top of the spool: the log, which the kubelet keeps to 5 files of 10 MiB (`containerLogMaxFiles`,
/// `containerLogMaxSize`) and looks at every 10 s, and what directories and started blocks take on the disk.
const BESIDE_SPOOL: u64 = 64 << 20;

/// Adds requests and limits to the sidecar's `resources`, as far as other containers of the pod have any. `spool_limit`
/// is what the spool holds at most, in bytes.
pub(super) fn add(pod: &Value, spool_limit: u64, resources: &mut Value) {
    let amount = memory_text(spool_limit.saturating_add(BESIDE_SPOOL));
    // The API server takes a limit without a request for both.
    let (limited, requested) = (any_has(pod, "limits"), any_has(pod, "requests"));
    let sides = [("limits", limited), ("requests", requested || limited)];
    let Some(resources) = resources.as_object_mut() else { return };
    for (side, _) in sides.into_iter().filter(|(_, wanted)| *wanted) {
        if let Some(fields) = resources.entry(side).or_insert_with(|| json!({})).as_object_mut() {
            fields.insert(KEY.to_owned(), json!(amount));
        }
    }
}

fn any_has(pod: &Value, side: &str) -> bool {
    let has = |resources: &Value| resources.get(side)?.get(KEY).cloned();
    pod::others(pod).any(|container| container.value.get("resources").and_then(has).is_some())
}

#[cfg(test)]
mod tests;
