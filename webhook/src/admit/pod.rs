//! Looking into a pod as JSON. Nothing is decoded into types, so that fields which this program does not know survive;
//! what has the wrong type reads as absent, because the API server has validated the shape before.

use podwitness_core::inject::CONTAINER;
use serde_json::Value;

/// The lists of containers in a pod; the last one is empty when it is created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum List {
    Init,
    App,
    Debug,
}

/// A container and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Container<'a> {
    pub(super) list: List,
    pub(super) index: usize,
    pub(super) value: &'a Value,
}

impl List {
    /// The field of the specification.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Init => "initContainers",
            Self::App => "containers",
            Self::Debug => "ephemeralContainers",
        }
    }
}

impl<'a> Container<'a> {
    pub(super) fn name(&self) -> &'a str {
        text(self.value, "name")
    }

    /// JSON pointer tokens of a field of this container.
    pub(super) fn path(&self, rest: &[&str]) -> Vec<String> {
        let head = ["spec".to_owned(), self.list.name().to_owned(), self.index.to_string()];
        head.into_iter().chain(rest.iter().map(|token| (*token).to_owned())).collect()
    }

    /// Its path as Kubernetes writes it, such as `spec.containers[0]`.
    pub(super) fn field(&self) -> String {
        format!("spec.{}[{}]", self.list.name(), self.index)
    }

    /// Whether this is the sidecar.
    pub(super) fn is_sidecar(&self) -> bool {
        self.list == List::Init && self.name() == CONTAINER
    }
}

/// Every container but the sidecar, in the order in which they start.
pub(super) fn others(pod: &Value) -> impl Iterator<Item = Container<'_>> {
    all(pod).filter(|container| !container.is_sidecar())
}

/// The sidecar, if the pod has one.
pub(super) fn sidecar(pod: &Value) -> Option<Container<'_>> {
    all(pod).find(Container::is_sidecar)
}

/// Debug containers.
pub(super) fn debug(pod: &Value) -> impl Iterator<Item = Container<'_>> {
    of(pod, List::Debug)
}

/// Every container but debug containers, in the order in which they start.
pub(super) fn all(pod: &Value) -> impl Iterator<Item = Container<'_>> {
    of(pod, List::Init).chain(of(pod, List::App))
}

fn of(pod: &Value, list: List) -> impl Iterator<Item = Container<'_>> {
    let containers = items(pod.pointer("/spec"), list.name());
    containers.iter().enumerate().map(move |(index, value)| Container { list, index, value })
}

/// The pod's volumes.
pub(super) fn volumes(pod: &Value) -> &[Value] {
    items(pod.pointer("/spec"), "volumes")
}

/// The list under `field`, empty where there is none.
pub(super) fn items<'a>(object: Option<&'a Value>, field: &str) -> &'a [Value] {
    object.and_then(|object| object.get(field)).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text under `field`, empty where there is none.
pub(super) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Whether `field` is true.
pub(super) fn flag(object: Option<&Value>, field: &str) -> bool {
    object.and_then(|object| object.get(field)).and_then(Value::as_bool).unwrap_or_default()
}

/// An annotation of the pod.
pub(super) fn annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod.pointer("/metadata/annotations")?.get(key)?.as_str()
}
