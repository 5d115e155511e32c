//! The ports on which the sidecar answers probes and metrics, on the pod's addresses. It starts first, and a program that
//! wants one of them would not start: where a container declares one, the sidecar takes another. The port of loopback to
//! which connections are redirected it draws itself, and is told which not to take.
//!
//! Containers of a pod share its addresses, so that a `containerPort` counts whatever the container. A `hostPort` is a
//! port of the node, which leads to a `containerPort`; only the latter is in the pod.

use std::collections::BTreeMap;

use podwitness_core::inject::{ADMIN_PORT, PROBE_PORT, SidecarPorts};
use serde_json::Value;

use super::pod::{items, others, text};

/// Ports of the sidecar in this pod.
pub(super) fn of(pod: &Value) -> SidecarPorts {
    let declared = declared(pod);
    // Ports above the two are tried in their order. A pod that declares all of them has none left for anybody.
    let mut free = (PROBE_PORT.saturating_add(1)..=u16::MAX).filter(|port| !declared.contains_key(port));
    let mut unless_declared = |port: u16| {
        if declared.contains_key(&port) { free.next().unwrap_or(port) } else { port }
    };
    SidecarPorts { admin: unless_declared(ADMIN_PORT), probe: unless_declared(PROBE_PORT) }
}

/// What to say where the sidecar has not the ports that it has elsewhere.
pub(super) fn warnings(pod: &Value) -> Vec<String> {
    let (declared, ports) = (declared(pod), of(pod));
    let moved = [("metrics", ADMIN_PORT, ports.admin), ("health", PROBE_PORT, ports.probe)];
    let moved = moved.into_iter().filter(|(_, usual, port)| usual != port);
    moved
        .map(|(what, usual, port)| {
            let container = declared.get(&usual).copied().unwrap_or_default();
            format!(
                "podwitness: container {container} declares port {usual}, so that the sidecar's {what} are on {port}"
            )
        })
        .collect()
}

/// TCP ports that containers declare, and the first of them that does.
pub(super) fn declared(pod: &Value) -> BTreeMap<u16, &str> {
    let mut declared = BTreeMap::new();
    for container in others(pod) {
        for port in items(Some(container.value), "ports") {
            let is_tcp = matches!(text(port, "protocol"), "" | "TCP");
            let number = port.get("containerPort").and_then(Value::as_u64);
            if let Some(number) = number.filter(|_| is_tcp).and_then(|number| u16::try_from(number).ok()) {
                declared.entry(number).or_insert_with(|| container.name());
            }
        }
    }
    declared
}

#[cfg(test)]
mod tests {
    use podwitness_core::inject::Inject;
    use serde_json::json;

    use super::*;
    use crate::admit::{
        mutate,
        testing::{apply, pod, settings, with},
    };

    fn with_ports(ports: Value) -> Value {
        with(pod(), "/spec/containers/0/ports", ports)
    }

    fn tcp(port: u16) -> Value {
        json!({"containerPort": port, "protocol": "TCP"})
    }

    #[test]
    fn a_port_that_a_container_declares_is_left_to_it() {
        let usual = SidecarPorts::default();
        for (ports, expected) in [
            (json!([]), usual),
            (json!([tcp(8080)]), usual),
            (json!([tcp(15430)]), SidecarPorts { admin: 15432, ..usual }),
            (json!([{"containerPort": 15431}]), SidecarPorts { probe: 15432, ..usual }),
            (json!([tcp(15430), tcp(15431)]), SidecarPorts { admin: 15432, probe: 15433 }),
            (json!([tcp(15430), tcp(15432), tcp(15431)]), SidecarPorts { admin: 15433, probe: 15434 }),
            (json!([{"containerPort": 15430, "protocol": "UDP"}]), usual),
            (json!([{"containerPort": 80, "hostPort": 15430, "protocol": "TCP"}]), usual),
        ] {
            let pod = with_ports(ports);
            assert_eq!(of(&pod), expected, "{pod}");
            assert_eq!(warnings(&pod).is_empty(), expected == usual, "{pod}");
        }
        let init = json!([{"name": "setup", "image": "i", "ports": [tcp(15430)]}]);
        assert_eq!(of(&with(pod(), "/spec/initContainers", init)).admin, 15432);
    }

    #[test]
    fn the_warning_names_the_container_and_both_ports() {
        let said = warnings(&with_ports(json!([tcp(15430)])));
        assert_eq!(said.len(), 1);
        assert!(["app", "15430", "15432", "metrics"].iter().all(|part| said[0].contains(part)), "{said:?}");
    }

    #[test]
    fn the_kubelet_and_the_sidecar_are_told_the_same_ports() {
        let before = with_ports(json!([tcp(15431)]));
        let patch = mutate(&before, &settings(Inject::Optional)).unwrap();
        let after = apply(before, &patch);
        let sidecar = &after["spec"]["initContainers"][0];
        let declared = json!({"name": "PODWITNESS_DECLARED_PORTS", "value": "15431"});
        assert!(sidecar["env"].as_array().unwrap().contains(&declared));
        assert_eq!(sidecar["startupProbe"]["httpGet"]["port"], 15432);
        assert!(
            sidecar["env"]
                .as_array()
                .unwrap()
                .contains(&json!({"name": "PODWITNESS_PORTS", "value": "15430,15432"}))
        );
        assert_eq!(mutate(&after, &settings(Inject::Optional)), Ok(vec![]));
    }
}
