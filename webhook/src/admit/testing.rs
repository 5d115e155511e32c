//! Settings and pods for tests.

use json_patch::PatchOperation;
use podwitness_core::{
    allow::Allow,
    inject::{ApiServerAddresses, ControlAddress, Credentials, Inject, Profile, UntilNetmap},
    trust::Trust,
};
use serde_json::{Value, json};

use super::{Amounts, Ranges, Settings};

pub(super) fn settings(inject: Inject) -> Settings {
    Settings {
        inject,
        profile: Profile::Interface,
        credentials: Credentials::Passthrough,
        namespace_annotations: [].into(),
        allow: Allow::default(),
        version: "0.1.0+4ce04e0d1a2b".into(),
        image: "podwitness.dev/sidecar:dev".into(),
        pull_secrets: vec![],
        amounts: Amounts::default(),
        ranges: Ranges::default(),
        quotas: vec![],
        spool_size: 512 << 20,
        node_tun: true,
        control: ControlAddress {
            name: "podwitness-control.podwitness-system.svc".into(),
            port: 8444,
            addresses: vec!["10.96.3.4".parse().unwrap()],
        },
        control_ca: "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n".into(),
        api_server: ApiServerAddresses {
            service: vec!["10.96.0.1:443".parse().unwrap()],
            endpoints: vec!["172.18.0.2:6443".parse().unwrap()],
        },
        until_netmap: UntilNetmap::Open,
        trust: Trust::Pod,
    }
}

/// A pod as the ServiceAccount plugin leaves it.
pub(super) fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "pod", "namespace": "shop"},
        "spec": {
            "serviceAccountName": "default",
            "containers": [{"name": "app", "image": "app:1", "volumeMounts": [token_mount()]}],
            "volumes": [token_volume()],
        }
    })
}

pub(super) fn token_mount() -> Value {
    json!({"name": "kube-api-access-abcde", "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"})
}

pub(super) fn token_volume() -> Value {
    json!({"name": "kube-api-access-abcde", "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}})
}

/// `pod` with another value at a pointer; the parent has to be there.
pub(super) fn with(mut pod: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
    pod
}

pub(super) fn apply(mut pod: Value, patch: &[PatchOperation]) -> Value {
    json_patch::patch(&mut pod, patch).unwrap();
    pod
}

/// What the ServiceAccount plugin does to a pod, as often as it runs.
pub(super) fn service_account_plugin(mut pod: Value) -> Value {
    let mut needs_volume = false;
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers {
            let fields = container.as_object_mut().unwrap();
            let mounts = fields.entry("volumeMounts").or_insert_with(|| json!([])).as_array_mut().unwrap();
            if !mounts.iter().any(|mount| mount["mountPath"] == token_mount()["mountPath"]) {
                mounts.push(token_mount());
                needs_volume = true;
            }
        }
    }
    let volumes = pod["spec"].as_object_mut().unwrap().entry("volumes").or_insert_with(|| json!([]));
    let volumes = volumes.as_array_mut().unwrap();
    if needs_volume && !volumes.iter().any(|volume| volume["name"] == token_volume()["name"]) {
        volumes.push(token_volume());
    }
    pod
}
