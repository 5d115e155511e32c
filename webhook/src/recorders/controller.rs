//! Makes what [`desired`] says, and keeps it so: after every change of a Recorder or of an object of one, and now and
//! then without a change.
//!
//! An object that was made, and is still in the cache as it was then, is left alone, so that a cluster in which nothing
//! happens sees no request. A Recorder that is being deleted keeps its finalizer until its objects are gone.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams},
    runtime::reflector::Store,
};
use podwitness_crd::{Recorder, recorder::runs_in_cluster};
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{
    desired::{Object, Settings, desired},
    objects::{Caches, Kind, Objects},
    outcome::{Outcomes, Problem},
    valid,
};
use crate::control::{FIELD_MANAGER, filled::Filled};

/// Keeps a Recorder until its objects are gone.
pub const FINALIZER: &str = "podwitness.dev/recorder";

/// How long changes are gathered.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// After this time every object is applied again, whatever the caches say.
const AGAIN: Duration = Duration::from_secs(300);
/// After this time what went wrong is tried again.
const AGAIN_FAILED: Duration = Duration::from_secs(5);
/// For one change of a Recorder's finalizer.
const LIMIT: Duration = Duration::from_secs(5);

/// Keeps the objects of all Recorders.
pub struct Controller {
    /// Recorders.
    pub recorders: Store<Recorder>,
    /// Their objects.
    pub caches: Caches,
    /// Whether the Recorders are known.
    pub filled: Filled,
    /// What is the same for all.
    pub settings: Settings,
    /// Told of every change of a Recorder or an object.
    pub changed: Arc<Notify>,
    /// Where what came of it is kept.
    pub outcomes: Outcomes,
    /// Told when something else came of it than before.
    pub report: Arc<Notify>,
    /// Changes objects.
    pub client: Client,
}

/// An object as it was when it was made.
struct Made {
    body: Value,
    uid: Option<String>,
    version: Option<String>,
}

/// Objects that were made, by kind and name.
type Memory = HashMap<(Kind, String), Made>;

impl Controller {
    /// Works for as long as it runs; the caches are waited for first.
    pub async fn run(self) {
        self.filled.wait().await;
        self.caches.filled().await;
        let (mut memory, mut forget) = (Memory::new(), Instant::now() + AGAIN);
        loop {
            if Instant::now() >= forget {
                memory.clear();
                forget = Instant::now() + AGAIN;
            }
            let well = self.once(&mut memory).await;
            let again = if well { forget.saturating_duration_since(Instant::now()) } else { AGAIN_FAILED };
            if timeout(again, self.changed.notified()).await.is_ok() {
                sleep(DEBOUNCE).await;
            }
        }
    }

    /// Looks at every Recorder; says whether all went well.
    async fn once(&self, memory: &mut Memory) -> bool {
        let (recorders, mut well) = (self.recorders.state(), true);
        for recorder in &recorders {
            let problem = self.reconcile(recorder, memory).await.err();
            if self.outcomes.put(recorder, problem.clone()) {
                if let Some(problem) = &problem {
                    tracing::warn!(recorder = recorder.name_any(), %problem, "a recorder is not as it should be");
                }
                self.report.notify_one();
            }
            well &= problem.is_none();
        }
        let lives = |uid: &str| recorders.iter().any(|recorder| recorder.meta().uid.as_deref() == Some(uid));
        self.outcomes.prune(lives);
        well
    }

    async fn reconcile(&self, recorder: &Recorder, memory: &mut Memory) -> Result<(), Problem> {
        let Some(uid) = recorder.meta().uid.as_deref() else { return Ok(()) };
        if recorder.meta().deletion_timestamp.is_some() {
            return self.take_away(recorder, uid, memory).await;
        }
        if runs_in_cluster(&recorder.spec) {
            valid::check(recorder)?;
            self.finalizer(recorder, true).await?;
        }
        let wanted = desired(recorder, &self.settings);
        for object in &wanted {
            // Pods come last, and not where the service account that they name is somebody else's.
            self.put(object, uid, memory).await?;
        }
        self.sweep(uid, &wanted, memory).await
    }

    /// Makes an object, unless it is as it was made.
    async fn put(&self, object: &Object, uid: &str, memory: &mut Memory) -> Result<(), Problem> {
        let key = (object.kind, object.name.clone());
        let live = self.caches.of(uid).into_iter().find(|(kind, metadata)| {
            *kind == object.kind && metadata.name.as_deref() == Some(object.name.as_str())
        });
        let as_made = |made: &Made| {
            let same =
                |metadata: &ObjectMeta| made.uid == metadata.uid && made.version == metadata.resource_version;
            made.body == object.body && live.as_ref().is_some_and(|(_, metadata)| same(metadata))
        };
        if memory.get(&key).is_some_and(as_made) {
            return Ok(());
        }
        let applied =
            Objects::new(self.client.clone(), self.settings.namespace.clone()).put(object, uid).await?;
        let changed = live.is_none_or(|(_, metadata)| metadata.resource_version != applied.resource_version);
        if changed {
            tracing::info!(kind = %object.kind, name = object.name, "an object of a recorder was applied");
        }
        let made = Made { body: object.body.clone(), uid: applied.uid, version: applied.resource_version };
        memory.insert(key, made);
        Ok(())
    }

    /// Deletes what the Recorder controls and no longer needs.
    async fn sweep(&self, uid: &str, wanted: &[Object], memory: &mut Memory) -> Result<(), Problem> {
        let objects = Objects::new(self.client.clone(), self.settings.namespace.clone());
        for (kind, metadata) in self.caches.of(uid) {
            let name = metadata.name.clone().unwrap_or_default();
            if wanted.iter().any(|object| object.kind == kind && object.name == name) {
                continue;
            }
            if metadata.deletion_timestamp.is_none() {
                objects.delete(kind, &metadata).await?;
                tracing::info!(%kind, name, "an object of a recorder is deleted");
            }
            memory.remove(&(kind, name));
        }
        Ok(())
    }

    /// Deletes everything that the Recorder controls, and lets it go once all of it is gone. Claims are not among it:
    /// what becomes of them is between the StatefulSet and its retention policy.
    async fn take_away(&self, recorder: &Recorder, uid: &str, memory: &mut Memory) -> Result<(), Problem> {
        self.sweep(uid, &[], memory).await?;
        if self.caches.of(uid).is_empty() {
            self.finalizer(recorder, false).await?;
        }
        Ok(())
    }

    /// Sets or takes away the finalizer, in the version of the Recorder that was looked at.
    async fn finalizer(&self, recorder: &Recorder, wanted: bool) -> Result<(), Problem> {
        let before = recorder.finalizers();
        if before.iter().any(|name| name == FINALIZER) == wanted {
            return Ok(());
        }
        let mut names: Vec<&str> =
            before.iter().map(String::as_str).filter(|name| *name != FINALIZER).collect();
        if wanted {
            names.push(FINALIZER);
        }
        let patch = json!({"metadata": {
            "finalizers": names, "resourceVersion": recorder.resource_version(), "uid": recorder.uid(),
        }});
        let (api, name): (Api<Recorder>, _) = (Api::all(self.client.clone()), recorder.name_any());
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let answer = timeout(LIMIT, api.patch_metadata(&name, &params, &Patch::Merge(&patch))).await;
        match answer {
            Ok(Ok(_)) => Ok(()),
            // Changed or gone in the meantime: the next look sees what it is now.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
            Ok(Err(error)) => Err(Problem::Finalizer(error.to_string())),
            Err(_) => Err(Problem::Finalizer("the API server does not answer in time".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
