//! The pods of a recorder: `ingest` takes recordings in through its tunnel, `view` shows them on the pod's loopback and
//! can write nothing.

use podwitness_core::inject::{CONTROL_PORT, HEALTH_PORT, TUNNEL_PORT};
use podwitness_crd::{
    Recorder,
    recorder::{ContainerTemplate, PullPolicy, Verbatim},
};
use serde_json::{Value, json};

use super::{
    desired::{ADMIN_PORT, Settings, VIEW_PORT, account_name, merge, pod_labels, selector, set_unless_empty},
    effect, storage,
};

/// User and group of the recorder's processes.
const USER: u32 = 64322;
/// Where recordings lie in both containers.
const RECORDINGS: &str = "/data/recordings";

/// Template of the pods.
pub(super) fn template(recorder: &Recorder, settings: &Settings) -> Value {
    let ours = &recorder.spec.stateful_set.pod;
    let mut annotations = ours.annotations.clone();
    annotations.insert("kubectl.kubernetes.io/default-container".into(), "ingest".into());
    json!({
        "metadata": {"labels": pod_labels(recorder), "annotations": annotations},
        "spec": spec(recorder, settings),
    })
}

fn spec(recorder: &Recorder, settings: &Settings) -> Value {
    let added = &recorder.spec.stateful_set.pod;
    let mut containers = vec![ingest(recorder, settings)];
    if recorder.spec.enable_ui {
        containers.push(view(recorder, settings));
    }
    let mut spec = json!({
        "serviceAccountName": account_name(recorder),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 40,
        "securityContext": pod_security(added.security_context.as_ref()),
        "containers": containers,
        "volumes": volumes(recorder),
    });
    if let Some(affinity) = &added.affinity {
        merge(&mut spec, json!({"affinity": affinity}));
    }
    if !added.image_pull_secrets.is_empty() {
        merge(&mut spec, json!({"imagePullSecrets": added.image_pull_secrets}));
    }
    if !added.tolerations.is_empty() {
        merge(&mut spec, json!({"tolerations": added.tolerations}));
    }
    if recorder.spec.replicas > 1 {
        let spread =
            ["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(|key| apart(recorder, key));
        merge(&mut spec, json!({"topologySpreadConstraints": spread}));
    }
    set_unless_empty(&mut spec, "nodeSelector", &added.node_selector);
    spec
}

fn apart(recorder: &Recorder, key: &str) -> Value {
    json!({
        "topologyKey": key,
        "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(recorder)},
    })
}

fn ingest(recorder: &Recorder, settings: &Settings) -> Value {
    let storage = &recorder.spec.storage;
    let authority = format!("podwitness-control.{}.svc:{CONTROL_PORT}", settings.namespace);
    let mut env = vec![
        json!({"name": "PODWITNESS_CONTROL", "value": authority}),
        json!({"name": "PODWITNESS_CONTROL_CA_FILE", "value": "/var/run/podwitness/control/ca.crt"}),
        json!({"name": "PODWITNESS_TOKEN", "value": "/var/run/podwitness/identity/token"}),
        json!({"name": "PODWITNESS_STATE", "value": "/var/run/podwitness/state"}),
        json!({"name": "PODWITNESS_ISSUERS", "value": "/etc/podwitness/issuers/issuers.json"}),
        json!({"name": "PODWITNESS_HEALTH", "value": format!("[::]:{HEALTH_PORT}")}),
    ];
    env.extend(storage::env(storage));
    let added = &recorder.spec.stateful_set.pod.container;
    env.extend(storage::space_env(storage, settings, |name| added.env.iter().any(|one| one.name == name)));
    let mut mounts = vec![json!({"name": "recordings", "mountPath": RECORDINGS})];
    mounts.extend([
        json!({"name": "identity", "mountPath": "/var/run/podwitness/identity", "readOnly": true}),
        json!({"name": "control-ca", "mountPath": "/var/run/podwitness/control", "readOnly": true}),
        json!({"name": "issuers", "mountPath": "/etc/podwitness/issuers", "readOnly": true}),
        json!({"name": "state", "mountPath": "/var/run/podwitness/state"}),
        json!({"name": "wireguard", "mountPath": "/var/run/wireguard"}),
        json!({"name": "tun", "mountPath": "/dev/net"}),
    ]);
    mounts.extend(storage::mounts(storage));
    let resources = json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}});
    let mut container = container("ingest", recorder, settings, env);
    merge(
        &mut container,
        json!({
            "ports": [
                {"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"},
                {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
                {"name": "tunnel", "containerPort": TUNNEL_PORT, "protocol": "UDP"},
            ],
            "startupProbe": {"httpGet": {"path": "/healthz", "port": "health"}, "periodSeconds": 1, "failureThreshold": 60},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}, "periodSeconds": 2},
            "livenessProbe": {
                "httpGet": {"path": "/healthz", "port": "health"},
                "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
            },
            "resources": added.resources.as_ref().map_or(resources, |chosen| json!(chosen)),
            "securityContext": container_security(added.security_context.as_ref(), &["NET_ADMIN"]),
            "volumeMounts": mounts,
        }),
    );
    container
}

fn view(recorder: &Recorder, settings: &Settings) -> Value {
    let storage = &recorder.spec.storage;
    let mut mounts = vec![json!({"name": "recordings", "mountPath": RECORDINGS, "readOnly": true})];
    mounts.extend(storage::mounts(storage));
    let added = &recorder.spec.stateful_set.pod.container;
    let mut container = container("view", recorder, settings, storage::env(storage));
    merge(
        &mut container,
        json!({
            "ports": [{"name": "view", "containerPort": VIEW_PORT, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
            "securityContext": container_security(added.security_context.as_ref(), &[]),
            "volumeMounts": mounts,
        }),
    );
    container
}

/// What both containers have.
fn container(role: &str, recorder: &Recorder, settings: &Settings, ours: Vec<Value>) -> Value {
    let added = &recorder.spec.stateful_set.pod.container;
    let policy = added.image_pull_policy.unwrap_or(PullPolicy::IfNotPresent);
    json!({
        "name": role,
        "image": effect::image(&recorder.spec).unwrap_or(&settings.image),
        "imagePullPolicy": policy,
        "args": [role],
        "env": env(added, ours),
    })
}

/// A Recorder's variables before ours, so that none of ours is replaced and ours may not be named at all; of two with
/// one name the last one counts, as it would in a pod.
fn env(added: &ContainerTemplate, ours: Vec<Value>) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for variable in added.env.iter().filter(|variable| !effect::reserved(&variable.name)) {
        all.retain(|earlier| earlier.get("name") != Some(&json!(variable.name)));
        all.push(json!({"name": variable.name, "value": variable.value}));
    }
    all.extend(ours);
    all
}

/// Ours, replaced field by field.
fn pod_security(added: Option<&Verbatim>) -> Value {
    // Recordings come in on port 80 of the tunnel's address, and the program is not root.
    let port = json!({"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"});
    let mut context = json!({
        "runAsNonRoot": true,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let added = added.map(|added| json!(added)).unwrap_or_default();
    let mut sysctls = list(&added, "sysctls");
    sysctls.retain(|sysctl| sysctl.get("name") != port.get("name"));
    sysctls.push(port);
    merge(&mut context, added);
    merge(&mut context, json!({"sysctls": sysctls}));
    context
}

/// Ours, replaced field by field; the capabilities that the container needs are there whatever is added.
fn container_security(added: Option<&Verbatim>, needed: &[&str]) -> Value {
    let mut context = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true});
    let added = added.map(|added| json!(added)).unwrap_or_default();
    let mut capabilities = added.get("capabilities").cloned().unwrap_or_else(|| json!({"drop": ["ALL"]}));
    let mut more = list(&capabilities, "add");
    for name in needed.iter().map(|name| json!(name)) {
        if !more.contains(&name) {
            more.push(name);
        }
    }
    if !more.is_empty() {
        merge(&mut capabilities, json!({"add": more}));
    }
    merge(&mut context, added);
    merge(&mut context, json!({"capabilities": capabilities}));
    context
}

fn list(object: &Value, key: &str) -> Vec<Value> {
    object.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn volumes(recorder: &Recorder) -> Vec<Value> {
    let mut volumes = storage::volumes(&recorder.spec.storage);
    volumes.extend([
        json!({"name": "identity", "projected": {"sources": [
            {"serviceAccountToken": {"audience": "podwitness.dev", "expirationSeconds": 3600, "path": "token"}},
        ]}}),
        // Only the root; the pod waits until the control plane has made it.
        json!({"name": "control-ca", "secret": {
            "secretName": "podwitness-control-tls", "items": [{"key": "ca.crt", "path": "ca.crt"}],
        }}),
        json!({"name": "issuers", "configMap": {"name": "podwitness-issuers", "optional": true}}),
        json!({"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}),
        json!({"name": "wireguard", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
        json!({"name": "tun", "hostPath": {"path": "/dev/net", "type": "Directory"}}),
    ]);
    volumes
}
