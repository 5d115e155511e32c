//! What there should be for a Recorder: pure, so that it is tested as the YAML that an admin would have written.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use podwitness_core::{
    inject::{CONTROL_PORT, TUNNEL_PORT},
    labels,
};
use podwitness_crd::{Recorder, RecorderSpec};
use serde_json::{Map, Value, json};

use super::{objects::Kind, pod, storage};

/// Value of `app.kubernetes.io/managed-by`; what carries it is watched.
pub const MANAGER: &str = "podwitness-control";
/// Port of health and metrics.
pub(super) const ADMIN_PORT: u16 = 8080;
/// Port of the viewer, on the pod's loopback.
pub(super) const VIEW_PORT: u16 = 8081;

/// What is the same for every recorder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Namespace of the control plane and its recorders.
    pub namespace: String,
    /// Image of a recorder that names none.
    pub image: String,
    /// Percentage of a node's file system below which its kubelet evicts pods.
    pub eviction_percent: u8,
}

/// An object that there should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it that is ours to say.
    pub body: Value,
}

/// The objects of a recorder, in the order in which they are made; none for one that does not run here.
#[must_use]
pub fn desired(recorder: &Recorder, settings: &Settings) -> Vec<Object> {
    if !podwitness_crd::recorder::runs_in_cluster(&recorder.spec) {
        return Vec::new();
    }
    let spec = &recorder.spec;
    let frame = Frame { recorder, settings };
    let mut objects = vec![
        frame.object(Kind::ServiceAccount, account_name(recorder), service_account(spec)),
        frame.object(Kind::Service, recorder.name_any(), service(recorder)),
        frame.object(Kind::NetworkPolicy, recorder.name_any(), network_policy(recorder)),
    ];
    if spec.replicas > 1 {
        objects.push(frame.object(Kind::PodDisruptionBudget, recorder.name_any(), budget(recorder)));
    }
    objects.push(frame.object(Kind::StatefulSet, recorder.name_any(), stateful_set(recorder, settings)));
    objects
}

/// Name of the service account of a recorder's pods.
pub(super) fn account_name(recorder: &Recorder) -> String {
    let chosen = &recorder.spec.stateful_set.pod.service_account.name;
    chosen.clone().unwrap_or_else(|| recorder.name_any())
}

/// Labels by which the pods of a recorder are found. They never change, because a StatefulSet's selector cannot.
pub(super) fn selector(recorder: &Recorder) -> BTreeMap<String, String> {
    let name = recorder.name_any();
    [
        ("app.kubernetes.io/name".to_owned(), "recorder".to_owned()),
        ("app.kubernetes.io/instance".into(), name),
    ]
    .into()
}

/// Labels of everything that belongs to a recorder, over those that it adds.
pub(super) fn own_labels(recorder: &Recorder, added: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = added.clone();
    all.extend(selector(recorder));
    all.insert("app.kubernetes.io/managed-by".into(), MANAGER.into());
    all.insert("app.kubernetes.io/part-of".into(), "podwitness".into());
    all
}

struct Frame<'a> {
    recorder: &'a Recorder,
    settings: &'a Settings,
}

/// An object's labels, annotations and content.
struct Content {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    fields: Value,
}

impl From<Value> for Content {
    fn from(fields: Value) -> Self {
        Self { labels: BTreeMap::new(), annotations: BTreeMap::new(), fields }
    }
}

impl Frame<'_> {
    fn object(&self, kind: Kind, name: String, content: impl Into<Content>) -> Object {
        let Content { labels, annotations, fields } = content.into();
        let resource = kind.resource();
        let mut metadata = json!({
            "name": name,
            "namespace": self.settings.namespace,
            "labels": own_labels(self.recorder, &labels),
            "ownerReferences": [{
                "apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "name": self.recorder.name_any(),
                "uid": self.recorder.uid().unwrap_or_default(), "controller": true, "blockOwnerDeletion": true,
            }],
        });
        set_unless_empty(&mut metadata, "annotations", &annotations);
        let mut body =
            json!({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata});
        merge(&mut body, fields);
        Object { kind, name, body }
    }
}

/// Pods that may do nothing at the API server: the account is what a platform hangs an identity on.
fn service_account(spec: &RecorderSpec) -> Content {
    let annotations = spec.stateful_set.pod.service_account.annotations.clone();
    let fields = json!({"automountServiceAccountToken": false});
    Content { annotations, ..fields.into() }
}

/// Headless: sidecars learn the replicas' addresses from the control plane, each with its key. The viewer's port is for
/// `kubectl port-forward`, which asks the cluster who may; from the cluster's network it is not reached, because the
/// viewer listens on loopback for want of a login of its own.
fn service(recorder: &Recorder) -> Value {
    let mut ports = vec![
        json!({"name": "tunnel", "port": TUNNEL_PORT, "targetPort": "tunnel", "protocol": "UDP"}),
        json!({"name": "admin", "port": ADMIN_PORT, "targetPort": "admin", "protocol": "TCP"}),
    ];
    if recorder.spec.enable_ui {
        ports.push(json!({"name": "view", "port": VIEW_PORT, "targetPort": "view", "protocol": "TCP"}));
    }
    json!({"spec": {"clusterIP": "None", "selector": selector(recorder), "ports": ports}})
}

/// The tunnel takes packets from everywhere: it answers only who holds a key, and addresses may be translated on the
/// way. Metrics are for pods of namespaces that a label names, health for the kubelet, which needs no rule. A recorder
/// itself speaks with name servers, the control plane, the pods it answers, and its bucket.
fn network_policy(recorder: &Recorder) -> Value {
    let control = json!({"podSelector": {"matchLabels": {"app.kubernetes.io/name": "podwitness-control"}}});
    let scrapers = json!({"namespaceSelector": {"matchLabels": {labels::METRICS: "read"}}});
    let dns = [json!({"port": 53, "protocol": "UDP"}), json!({"port": 53, "protocol": "TCP"})];
    let mut egress = vec![
        json!({"ports": dns}),
        json!({"to": [control], "ports": [{"port": CONTROL_PORT, "protocol": "TCP"}]}),
        json!({"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP"}]}),
    ];
    let ports = storage::ports(&recorder.spec.storage);
    if !ports.is_empty() {
        let ports: Vec<_> = ports.iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
        egress.push(json!({"ports": ports}));
    }
    json!({"spec": {
        "podSelector": {"matchLabels": selector(recorder)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"ports": [{"port": "tunnel", "protocol": "UDP"}]},
            {"from": [scrapers], "ports": [{"port": "admin", "protocol": "TCP"}]},
        ],
        "egress": egress,
    }})
}

fn budget(recorder: &Recorder) -> Value {
    json!({"spec": {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector(recorder)},
    }})
}

/// Replicas know nothing of each other, so that they start at once; an update still goes one by one, each once the one
/// before is ready.
fn stateful_set(recorder: &Recorder, settings: &Settings) -> Content {
    let template = &recorder.spec.stateful_set;
    let mut spec = json!({
        "replicas": recorder.spec.replicas,
        "serviceName": recorder.name_any(),
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "selector": {"matchLabels": selector(recorder)},
        "template": pod::template(recorder, settings),
    });
    merge(&mut spec, storage::claims(&recorder.spec.storage));
    Content {
        labels: template.labels.clone(),
        annotations: template.annotations.clone(),
        fields: json!({"spec": spec}),
    }
}

/// Puts the fields of `more` into `object`; where both have one, that of `more` stays.
pub(super) fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

/// Puts a map into an object under `key`, unless there is nothing in it.
pub(super) fn set_unless_empty(object: &mut Value, key: &str, map: &BTreeMap<String, String>) {
    if !map.is_empty() {
        merge(object, Value::Object(Map::from_iter([(key.to_owned(), json!(map))])));
    }
}

/// Labels of a recorder's pods.
pub(super) fn pod_labels(recorder: &Recorder) -> BTreeMap<String, String> {
    let mut all = own_labels(recorder, &recorder.spec.stateful_set.pod.labels);
    all.insert(labels::RECORDER.into(), recorder.name_any());
    all.insert(labels::ACK.into(), recorder.spec.storage.ack().as_str().into());
    all
}

#[cfg(test)]
mod tests;
