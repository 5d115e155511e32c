//! Pods as the injectors of meshes leave them, in a namespace that names their init containers.

use podwitness_core::allow::Allow;
use serde_json::{Value, json};

use super::*;
use crate::admit::{
    refusal::Reason,
    testing::{apply, pod, settings, with},
};

/// Name, image and user of an init container, and the images that the Namespace names (`docs/meshes.md`).
const MESHES: [(&str, &str, u32, &str); 3] = [
    ("istio-init", "docker.io/istio/proxyv2:1.27.1", 0, "docker.io/istio/proxyv2"),
    ("linkerd-init", "cr.l5d.io/linkerd/proxy-init:v2.4.3", 65534, "cr.l5d.io/linkerd/proxy-init"),
    ("kuma-init", "docker.io/kumahq/kuma-init:2.12.0", 0, "docker.io/kumahq/kuma-init"),
];

/// A pod with the init container before a native sidecar.
fn meshed(name: &str, image: &str, user: u32) -> Value {
    let capabilities = json!({"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]});
    let init = json!({"name": name, "image": image, "securityContext": {"allowPrivilegeEscalation": false,
        "privileged": false, "capabilities": capabilities, "runAsUser": user}});
    let proxy = json!({"name": "proxy", "image": image, "restartPolicy": "Always",
        "securityContext": {"capabilities": {"drop": ["ALL"]}, "runAsUser": 1337}});
    with(pod(), "/spec/initContainers", json!([init, proxy]))
}

fn in_namespace(allow: &str) -> Settings {
    Settings { allow: Allow::parse(allow).0, ..settings(Inject::Required) }
}

#[test]
fn the_init_containers_of_meshes_run_after_the_sidecar_where_the_namespace_names_them() {
    for (name, image, user, prefix) in MESHES {
        let settings = in_namespace(&format!("init:NET_ADMIN:{prefix}, init:NET_RAW:{prefix}"));
        let before = meshed(name, image, user);
        let after = apply(before.clone(), &mutate(&before, &settings).unwrap());
        let init: Vec<&str> = items(after.get("spec"), "initContainers")
            .iter()
            .map(|container| text(container, "name"))
            .collect();
        assert_eq!(init, [CONTAINER, name, "proxy"]);
        let mut left = after["spec"]["initContainers"][1].clone();
        // The bundle is mounted in every container.
        left.as_object_mut().unwrap().remove("volumeMounts");
        assert_eq!(left, before["spec"]["initContainers"][0], "otherwise it is left as it is");
        assert_eq!(mutate(&after, &settings), Ok(vec![]));
    }
}

#[test]
fn a_mesh_whose_init_container_comes_first_again_is_put_behind_the_sidecar() {
    let (name, image, user, prefix) = MESHES[0];
    let settings = in_namespace(&format!("init:NET_ADMIN:{prefix}, init:NET_RAW:{prefix}"));
    let before = meshed(name, image, user);
    let mut after = apply(before.clone(), &mutate(&before, &settings).unwrap());
    after["spec"]["initContainers"].as_array_mut().unwrap().swap(0, 1);
    let repaired = apply(after.clone(), &mutate(&after, &settings).unwrap());
    assert_eq!(repaired["spec"]["initContainers"][0]["name"], CONTAINER);
    assert_eq!(repaired["spec"]["initContainers"][1]["name"], name);
}

#[test]
fn what_a_mesh_needs_is_named_where_the_namespace_does_not() {
    for (name, image, user, _) in MESHES {
        let refusal = mutate(&meshed(name, image, user), &in_namespace("")).unwrap_err();
        assert_eq!(refusal.reason, Reason::Capability);
        for capability in ["NET_ADMIN", "NET_RAW"] {
            assert!(refusal.message.contains(&format!("init:{capability}:{image}")), "{refusal}");
        }
    }
}
