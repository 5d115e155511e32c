//! Capabilities of containers that are not ours.

use serde_json::{Value, json};

use super::{
    patch::Patch,
    pod::{Container, items},
};

/// With it a process could mark its packets as the sidecar's, which exempts them from interception.
const NET_RAW: &str = "NET_RAW";

/// Takes NET_RAW from a container; container runtimes give it unless told otherwise. One that adds it was accepted by
/// its namespace, or it would have been refused before.
pub(super) fn drop_net_raw(container: &Container<'_>, patch: &mut Patch) {
    let context = container.value.get("securityContext").filter(|context| context.is_object());
    let capabilities = context.and_then(|context| context.get("capabilities")).filter(|c| c.is_object());
    let drop = capabilities.and_then(|capabilities| capabilities.get("drop")).filter(|drop| drop.is_array());
    let mut dropped = items(capabilities, "drop").iter().filter_map(Value::as_str).map(normalised);
    let is_added = items(capabilities, "add").iter().any(|capability| capability == NET_RAW);
    if is_added || dropped.any(|capability| matches!(capability.as_str(), "ALL" | NET_RAW)) {
        return;
    }
    let at = |rest: &[&str]| container.path(rest);
    match (context, capabilities, drop) {
        (None, ..) => patch.add(&at(&["securityContext"]), json!({"capabilities": {"drop": [NET_RAW]}})),
        (_, None, _) => patch.add(&at(&["securityContext", "capabilities"]), json!({"drop": [NET_RAW]})),
        (.., None) => patch.add(&at(&["securityContext", "capabilities", "drop"]), json!([NET_RAW])),
        _ => patch.add(&at(&["securityContext", "capabilities", "drop", "-"]), json!(NET_RAW)),
    }
}

/// Runtimes take capabilities in any case, with or without prefix.
fn normalised(capability: &str) -> String {
    let upper = capability.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map_or_else(|| upper.clone(), ToOwned::to_owned)
}
