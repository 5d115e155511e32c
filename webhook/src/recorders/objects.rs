//! The objects of recorders as they are in the cluster: caches of their metadata, and the way to change them.

use std::{fmt, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::PartialObjectMeta,
    runtime::reflector::Store,
};
use tokio::time::timeout;

use super::{desired::Object, outcome::Problem};
use crate::control::FIELD_MANAGER;

/// For one request.
const LIMIT: Duration = Duration::from_secs(10);

/// Kinds of objects that make up a recorder.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// `core/v1 ServiceAccount`.
    ServiceAccount,
    /// `core/v1 Service`.
    Service,
    /// `networking.k8s.io/v1 NetworkPolicy`.
    NetworkPolicy,
    /// `policy/v1 PodDisruptionBudget`.
    PodDisruptionBudget,
    /// `apps/v1 StatefulSet`.
    StatefulSet,
}

impl Kind {
    /// How the API server calls it.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        }
    }

    /// What has to have another name where an object of this kind has the wanted one.
    const fn named_by(self) -> &'static str {
        match self {
            Self::ServiceAccount => "service account in statefulSet.pod.serviceAccount.name",
            _ => "Recorder",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Metadata of what carries our label in the system namespace.
#[derive(Clone)]
pub struct Caches {
    /// Service accounts.
    pub service_accounts: Store<PartialObjectMeta<ServiceAccount>>,
    /// Services.
    pub services: Store<PartialObjectMeta<Service>>,
    /// Network policies.
    pub network_policies: Store<PartialObjectMeta<NetworkPolicy>>,
    /// Disruption budgets.
    pub budgets: Store<PartialObjectMeta<PodDisruptionBudget>>,
    /// StatefulSets.
    pub stateful_sets: Store<PartialObjectMeta<StatefulSet>>,
}

impl Caches {
    /// Completes when every cache has been filled once. Only one may wait for that.
    pub async fn filled(&self) {
        // An error says that the watch is gone, which ends the program elsewhere.
        let _ = self.service_accounts.wait_until_ready().await;
        let _ = self.services.wait_until_ready().await;
        let _ = self.network_policies.wait_until_ready().await;
        let _ = self.budgets.wait_until_ready().await;
        let _ = self.stateful_sets.wait_until_ready().await;
    }

    /// Everything that the Recorder with this uid controls.
    #[must_use]
    pub fn of(&self, uid: &str) -> Vec<(Kind, ObjectMeta)> {
        let mut all = Vec::new();
        gather(&self.stateful_sets, Kind::StatefulSet, &mut all);
        gather(&self.budgets, Kind::PodDisruptionBudget, &mut all);
        gather(&self.network_policies, Kind::NetworkPolicy, &mut all);
        gather(&self.services, Kind::Service, &mut all);
        gather(&self.service_accounts, Kind::ServiceAccount, &mut all);
        all.retain(|(_, metadata)| controlled_by(metadata, uid));
        all
    }
}

fn gather<K>(cache: &Store<PartialObjectMeta<K>>, kind: Kind, all: &mut Vec<(Kind, ObjectMeta)>)
where
    PartialObjectMeta<K>: kube::runtime::reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    all.extend(cache.state().iter().map(|object: &Arc<_>| (kind, object.metadata.clone())));
}

/// The owner that controls an object.
#[must_use]
pub fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn controlled_by(metadata: &ObjectMeta, uid: &str) -> bool {
    controller(metadata).is_some_and(|owner| owner.uid == uid)
}

/// Changes objects.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    namespace: String,
}

impl Objects {
    /// Of this namespace.
    #[must_use]
    pub const fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// Makes an object as it should be, unless something else has its name; its metadata then.
    ///
    /// # Errors
    /// Where it belongs to somebody else, or the API server does not take it.
    pub async fn put(&self, object: &Object, owner: &str) -> Result<ObjectMeta, Problem> {
        let Object { kind, name, body } = object;
        let refused = |error: &kube::Error| Problem::of_answer(*kind, name, error);
        let api = self.api(*kind);
        let live = within(api.get_metadata_opt(name)).await.map_err(|error| refused(&error))?;
        let mut body = body.clone();
        let params = match &live {
            Some(live) if !controlled_by(&live.metadata, owner) => {
                return Err(Problem::Conflict { kind: *kind, name: name.clone(), what: kind.named_by() });
            }
            // Only this very object, should it be replaced at this moment.
            Some(live) => {
                if let Some(metadata) = body.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
                    metadata.insert("uid".to_owned(), live.metadata.uid.clone().unwrap_or_default().into());
                }
                PatchParams::apply(FIELD_MANAGER).force()
            }
            // Not by force: who makes one of that name at this moment keeps it.
            None => PatchParams::apply(FIELD_MANAGER),
        };
        let applied = match within(api.patch(name, &params, &Patch::Apply(&body))).await {
            Err(kube::Error::Api(status))
                if status.code == 422 && live.is_some() && *kind == Kind::Service =>
            {
                // Ports are known by their number: one that somebody else has renumbered stays beside ours, under the
                // same name. A merge replaces the list.
                let params =
                    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
                within(api.patch(name, &params, &Patch::Merge(&body))).await
            }
            applied => applied,
        };
        Ok(applied.map_err(|error| refused(&error))?.metadata)
    }

    /// Deletes an object, once its dependents are gone.
    ///
    /// # Errors
    /// Where the API server does not delete it; that it is gone is no error.
    pub async fn delete(&self, kind: Kind, metadata: &ObjectMeta) -> Result<(), Problem> {
        let name = metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions { uid: metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match within(self.api(kind).delete(name, &params)).await {
            Ok(_) => Ok(()),
            // Gone, or another one of that name by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(Problem::of_answer(kind, name, &error)),
        }
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource())
    }
}

async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    timeout(LIMIT, request).await.unwrap_or_else(|_| {
        let text = "the API server does not answer in time";
        Err(kube::Error::Service(text.into()))
    })
}

#[cfg(test)]
pub(crate) mod testing {
    use kube::runtime::{reflector::store, watcher::Event};

    use super::*;

    /// Caches with nothing in them.
    pub fn empty() -> Caches {
        Caches {
            service_accounts: of(vec![]),
            services: of(vec![]),
            network_policies: of(vec![]),
            budgets: of(vec![]),
            stateful_sets: of(vec![]),
        }
    }

    /// A filled cache of objects of this metadata.
    pub fn of<K>(metadata: Vec<ObjectMeta>) -> Store<PartialObjectMeta<K>>
    where
        PartialObjectMeta<K>: kube::runtime::reflector::Lookup<DynamicType = ()> + Clone + 'static,
    {
        let (cache, mut writer) = store();
        writer.apply_watcher_event(&Event::Init);
        for metadata in metadata {
            let object = PartialObjectMeta { types: None, metadata, _phantom: std::marker::PhantomData };
            writer.apply_watcher_event(&Event::InitApply(object));
        }
        writer.apply_watcher_event(&Event::InitDone);
        cache
    }
}
