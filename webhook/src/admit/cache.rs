//! A bounded cache that a watch fills.
//!
//! It changes only by what the watch delivers: a list that fails leaves it as it is, one that succeeds replaces it
//! whole. Above its cap further objects are left out, and the cache says that it overflowed.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use futures_util::{Stream, StreamExt as _};
use kube::{
    Resource,
    runtime::watcher::{self, Event},
};
use podwitness_runtime::readiness::BlockReady;

use crate::failures::Failures;

/// Values by name, and by namespace and name.
#[derive(Debug)]
pub(super) struct Cache<T> {
    cap: usize,
    content: RwLock<Content<T>>,
}

#[derive(Debug)]
struct Content<T> {
    items: BTreeMap<String, Arc<T>>,
    overflowed: bool,
    /// What a list in progress has delivered so far.
    next: Option<(BTreeMap<String, Arc<T>>, bool)>,
}

impl<T> Cache<T> {
    /// Holds at most `cap` values.
    pub(super) const fn new(cap: usize) -> Self {
        let content = Content { items: BTreeMap::new(), overflowed: false, next: None };
        Self { cap, content: RwLock::new(content) }
    }

    /// The value under `name`.
    pub(super) fn get(&self, name: &str) -> Option<Arc<T>> {
        self.read().items.get(name).cloned()
    }

    /// Whether any value satisfies `test`, or there are values that are not known here.
    pub(super) fn any_or_overflowed(&self, test: impl Fn(&T) -> bool) -> bool {
        let content = self.read();
        content.overflowed || content.items.values().any(|value| test(value))
    }

    /// The values of a namespace, by name.
    pub(super) fn within(&self, namespace: &str) -> Vec<Arc<T>> {
        let (first, last) = (format!("{namespace}/"), format!("{namespace}0"));
        self.read().items.range(first..last).map(|(_, value)| Arc::clone(value)).collect()
    }

    /// All values with their names; `None` where there are values that are not known here.
    pub(super) fn entries(&self) -> Option<Vec<(String, Arc<T>)>> {
        let content = self.read();
        let all = content.items.iter().map(|(name, value)| (name.clone(), Arc::clone(value)));
        (!content.overflowed).then(|| all.collect())
    }

    /// All values, by name.
    pub(super) fn values(&self) -> Vec<Arc<T>> {
        self.read().items.values().cloned().collect()
    }

    /// Takes one event of the watch.
    pub(super) fn take<K: Resource>(&self, event: Event<K>, read: impl Fn(&K) -> T) {
        let mut content = self.write();
        match event {
            Event::Init => content.next = Some((BTreeMap::new(), false)),
            Event::InitApply(object) => {
                if let Some((items, overflowed)) = &mut content.next {
                    put(items, overflowed, self.cap, &object, read);
                }
            }
            Event::InitDone => {
                if let Some((items, overflowed)) = content.next.take() {
                    (content.items, content.overflowed) = (items, overflowed);
                }
            }
            Event::Apply(object) => {
                let Content { items, overflowed, .. } = &mut *content;
                put(items, overflowed, self.cap, &object, read);
            }
            Event::Delete(object) => {
                content.items.remove(&key(&object).unwrap_or_default());
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Content<T>> {
        // Every change is complete before the lock is let go, whoever panics.
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content<T>> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Its name, after that of its namespace and a slash where it is in one.
fn key<K: Resource>(object: &K) -> Option<String> {
    let name = object.meta().name.clone()?;
    Some(
        object
            .meta()
            .namespace
            .as_ref()
            .map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}")),
    )
}

fn put<K: Resource, T>(
    items: &mut BTreeMap<String, Arc<T>>,
    overflowed: &mut bool,
    cap: usize,
    object: &K,
    read: impl Fn(&K) -> T,
) {
    let Some(name) = key(object) else { return };
    if items.len() >= cap && !items.contains_key(&name) {
        *overflowed = true;
        return;
    }
    items.insert(name, Arc::new(read(object)));
}

/// Fills `cache` from a watch, for ever; `first` is held until it was filled once.
pub(super) async fn follow<K: Resource, T>(
    what: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    cache: &Cache<T>,
    read: impl Fn(&K) -> T,
    first: BlockReady,
) {
    let mut first = Some(first);
    let mut failures = Failures::of(what);
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let filled = matches!(event, Event::InitDone);
                cache.take(event, &read);
                failures.clear();
                if filled {
                    drop(first.take());
                }
            }
            Err(error) => failures.note(&error),
        }
    }
}

#[cfg(test)]
mod tests;
