//! Namespaces at the moment when they are labelled. Nothing is changed or refused here; who labels a namespace of which
//! nothing would be recorded is told so.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::admission::{AdmissionRequest, Operation};
use serde::Deserialize as _;
use serde_json::Value;

use super::{decide::Verdict, namespaces::Namespace, review::Object, world::World};

/// The verdict on a namespace.
pub(super) fn judge(request: &AdmissionRequest<Object>, world: &World) -> Verdict {
    let is_namespace = request.resource.group.is_empty() && request.resource.resource == "namespaces";
    let operation = matches!(request.operation, Operation::Create | Operation::Update);
    if !is_namespace || !operation || request.sub_resource.as_deref().is_some_and(|sub| !sub.is_empty()) {
        return Verdict::Skipped("not-a-namespace");
    }
    let Some((name, new)) = request.object.as_ref().and_then(read) else {
        return Verdict::Skipped("not-a-namespace");
    };
    if new.inject().is_none() {
        return Verdict::Skipped("no-label");
    }
    if request.old_object.as_ref().and_then(read).is_some_and(|(_, old)| old.is_meant_as(&new)) {
        return Verdict::Skipped("labels-unchanged");
    }
    Verdict::Labelled { warnings: world.unrecorded(&new, &name).into_iter().collect() }
}

/// Name and labels of a namespace.
fn read(object: &Object) -> Option<(String, Namespace)> {
    let meta = object.value.get("metadata").filter(|meta| meta.is_object())?;
    let meta = ObjectMeta::deserialize(meta).ok()?;
    let name = object.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    Some((name.to_owned(), Namespace::read(&meta)))
}
