//! Namespaces at the moment when they are labelled or annotated. Nothing is changed or refused here; who labels a
//! namespace of which nothing would be recorded is told so, and who accepts more than the baseline what that means.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::admission::{AdmissionRequest, Operation};
use podwitness_core::{inject::Inject, labels};
use serde::Deserialize as _;
use serde_json::Value;

use super::{decide::Verdict, namespaces::Namespace, review::Object, world::World};

/// Cap on warnings about items of [`labels::ALLOW`]; the API server passes on 4 KiB of warnings.
const MAX_WARNINGS: usize = 12;

/// What the label takes from pods, for who sets it.
const HELD: &str = "podwitness: required: containers lose NET_RAW (ping fails, unless the pod sets sysctl \
    net.ipv4.ping_group_range) and are held to Pod Security baseline; refusals name what to change, or what annotation \
    podwitness.dev/allow accepts";

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
    let old = request.old_object.as_ref().and_then(read).map(|(_, old)| old);
    let is_meant_as = old.as_ref().is_some_and(|old| old.is_meant_as(&new));
    let allows_as =
        old.as_ref().is_some_and(|old| old.inject() == new.inject() && old.allow() == new.allow());
    if is_meant_as && allows_as {
        return Verdict::Skipped("labels-unchanged");
    }
    let unrecorded = if is_meant_as { None } else { world.unrecorded(&new, &name) };
    let was_required = old.is_some_and(|old| old.inject() == Some(Inject::Required));
    let held = (new.inject() == Some(Inject::Required) && !was_required).then(|| HELD.to_owned());
    let widened = if allows_as { Vec::new() } else { widened(&new) };
    let reason = match (&unrecorded, widened.is_empty(), &held) {
        (Some(_), ..) => "no-grant",
        (None, false, _) => "allow",
        (None, true, Some(_)) => "required",
        (None, true, None) => "",
    };
    Verdict::Labelled { warnings: unrecorded.into_iter().chain(held).chain(widened).collect(), reason }
}

/// What a namespace accepts beyond the baseline. Where injection is optional, nothing is held to it.
fn widened(namespace: &Namespace) -> Vec<String> {
    if namespace.inject() != Some(Inject::Required) {
        return Vec::new();
    }
    let (allow, unknown) = namespace.allow();
    let accepted = allow.items().iter().map(|item| format!("{item}: {}", item.effect()));
    let ignored = unknown.iter().map(|item| format!("{item:?} is not understood and accepts nothing"));
    let all: Vec<String> = accepted.chain(ignored).collect();
    let more = all.len().saturating_sub(MAX_WARNINGS);
    let more = (more > 0).then(|| format!("and {more} more"));
    let named = all.into_iter().take(MAX_WARNINGS).chain(more);
    named.map(|said| format!("podwitness: annotation {}: {said}", labels::ALLOW)).collect()
}

/// Name of a namespace, and what it says.
fn read(object: &Object) -> Option<(String, Namespace)> {
    let meta = object.value.get("metadata").filter(|meta| meta.is_object())?;
    let meta = ObjectMeta::deserialize(meta).ok()?;
    let name = object.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    Some((name.to_owned(), Namespace::read(&meta)))
}
