//! Namespaces at the moment when they are labelled or annotated. Nothing is changed or refused here. A warning says what
//! labels and annotations do, where nothing would be recorded, which keys and values have no effect, and which pods have
//! to be restarted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::admission::{AdmissionRequest, Operation};
use podwitness_core::{
    inject::Inject,
    labels::{self, Holder},
};
use serde::Deserialize as _;
use serde_json::Value;

use super::{annotations, decide::Verdict, keys, namespaces::Namespace, review::Object, world::World};

/// Cap on warnings about items of [`labels::ALLOW`]; the API server passes on 4 KiB of warnings.
const MAX_WARNINGS: usize = 12;

/// What the label takes from pods, for who sets it.
const HELD: &str = "podwitness: required: containers lose NET_RAW (ping fails, unless the pod sets sysctl \
    net.ipv4.ping_group_range) and are held to Pod Security baseline; refusals name what to change, or what annotation \
    podwitness.dev/allow accepts";

/// A namespace that is reviewed.
struct Change {
    name: String,
    new: Namespace,
    /// As it was; absent where it is created.
    old: Option<Namespace>,
}

/// The verdict on a namespace; `now` in seconds since 1970.
pub(super) async fn judge(request: &AdmissionRequest<Object>, world: &World, now: i64) -> Verdict {
    let is_namespace = request.resource.group.is_empty() && request.resource.resource == "namespaces";
    let operation = matches!(request.operation, Operation::Create | Operation::Update);
    if !is_namespace || !operation || request.sub_resource.as_deref().is_some_and(|sub| !sub.is_empty()) {
        return Verdict::Skipped("not-a-namespace");
    }
    let Some((object, change)) = request.object.as_ref().and_then(|object| Some((object, read(object)?)))
    else {
        return Verdict::Skipped("not-a-namespace");
    };
    let old = request.old_object.as_ref();
    let change = Change { old: old.and_then(read).map(|(_, old)| old), name: change.0, new: change.1 };
    let keys = keys::mistakes(Holder::Namespace, "/metadata", &object.value, old.map(|old| &old.value));
    let Change { name, new, old } = &change;
    // In the order in which the reason is chosen and the warnings stand.
    let said = [
        ("no-grant", change.unrecorded(world)),
        ("value", annotations::warnings(name, new, old.as_ref(), world.config.amounts, now)),
        ("allow", change.widened()),
        ("key", keys::limit(keys)),
        ("required", change.held()),
        ("older-pods", change.older(world).await),
    ];
    let reason = said.iter().find(|(_, warnings)| !warnings.is_empty()).map(|(reason, _)| *reason);
    match reason {
        None if new.inject().is_none() => Verdict::Skipped("no-label"),
        None if change.is_nothing() => Verdict::Skipped("labels-unchanged"),
        reason => Verdict::Labelled {
            warnings: said.into_iter().flat_map(|(_, warnings)| warnings).collect(),
            reason: reason.unwrap_or_default(),
        },
    }
}

impl Change {
    /// Whether labels and annotations mean what they meant before.
    fn is_nothing(&self) -> bool {
        self.is_meant_as_before() && self.allows_as_before()
    }

    fn is_meant_as_before(&self) -> bool {
        self.old.as_ref().is_some_and(|old| old.is_meant_as(&self.new))
    }

    fn allows_as_before(&self) -> bool {
        self.old
            .as_ref()
            .is_some_and(|old| old.inject() == self.new.inject() && old.allow() == self.new.allow())
    }

    fn unrecorded(&self, world: &World) -> Vec<String> {
        if self.new.inject().is_none() || self.is_meant_as_before() {
            return Vec::new();
        }
        world.unrecorded(&self.new, &self.name).into_iter().collect()
    }

    fn held(&self) -> Vec<String> {
        let was_required = self.old.as_ref().is_some_and(|old| old.inject() == Some(Inject::Required));
        let is_held = self.new.inject() == Some(Inject::Required) && !was_required;
        is_held.then(|| HELD.to_owned()).into_iter().collect()
    }

    /// A namespace that is created has no pods.
    async fn older(&self, world: &World) -> Vec<String> {
        let Some(old) = &self.old else { return Vec::new() };
        if self.new.inject().is_none() || old.inject() == self.new.inject() {
            return Vec::new();
        }
        world.older_pods(&self.name, &self.new).await.into_iter().collect()
    }

    /// What a namespace accepts beyond the baseline. Where injection is optional, nothing is held to it.
    fn widened(&self) -> Vec<String> {
        if self.new.inject() != Some(Inject::Required) || self.allows_as_before() {
            return Vec::new();
        }
        let (allow, unknown) = self.new.allow();
        let accepted = allow.items().iter().map(|item| format!("{item}: {}", item.effect()));
        let ignored = unknown.iter().map(|item| format!("{item:?} is not understood and accepts nothing"));
        let all: Vec<String> = accepted.chain(ignored).collect();
        let more = all.len().saturating_sub(MAX_WARNINGS);
        let more = (more > 0).then(|| format!("and {more} more"));
        let named = all.into_iter().take(MAX_WARNINGS).chain(more);
        named.map(|said| format!("podwitness: annotation {}: {said}", labels::ALLOW)).collect()
    }
}

/// Name of a namespace, and what it says.
fn read(object: &Object) -> Option<(String, Namespace)> {
    let meta = object.value.get("metadata").filter(|meta| meta.is_object())?;
    let meta = ObjectMeta::deserialize(meta).ok()?;
    let name = object.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    Some((name.to_owned(), Namespace::read(&meta)))
}
