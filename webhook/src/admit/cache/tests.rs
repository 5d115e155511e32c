use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use podwitness_runtime::readiness::Readiness;

use super::*;

fn object(name: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}

fn name(object: &ConfigMap) -> String {
    object.metadata.name.clone().unwrap_or_default()
}

fn take(cache: &Cache<String>, events: impl IntoIterator<Item = Event<ConfigMap>>) {
    events.into_iter().for_each(|event| cache.take(event, name));
}

fn list(names: &[&str]) -> Vec<Event<ConfigMap>> {
    let applied = names.iter().map(|name| Event::InitApply(object(name)));
    [Event::Init].into_iter().chain(applied).chain([Event::InitDone]).collect()
}

#[test]
fn a_list_replaces_the_content_only_when_it_is_complete() {
    let cache = Cache::new(10);
    take(&cache, list(&["a", "b"]));
    take(&cache, [Event::Init, Event::InitApply(object("c"))]);
    assert!(cache.get("a").is_some() && cache.get("c").is_none());
    take(&cache, [Event::InitDone]);
    assert!(cache.get("a").is_none() && cache.get("c").is_some());
}

#[test]
fn objects_come_change_and_go() {
    let cache = Cache::new(10);
    take(&cache, [Event::Apply(object("a")), Event::Apply(object("b")), Event::Delete(object("a"))]);
    assert!(cache.get("a").is_none());
    assert_eq!(cache.get("b").as_deref().map(String::as_str), Some("b"));
}

#[test]
fn what_does_not_fit_is_left_out_and_said_so_until_it_fits() {
    let cache = Cache::new(2);
    take(&cache, list(&["a", "b"]));
    assert!(!cache.any_or_overflowed(|_| false));
    take(&cache, [Event::Apply(object("b")), Event::Apply(object("c"))]);
    assert!(cache.get("c").is_none() && cache.any_or_overflowed(|_| false));
    take(&cache, list(&["c"]));
    assert!(cache.get("c").is_some() && !cache.any_or_overflowed(|_| false));
}

#[test]
fn objects_of_a_namespace_are_found_by_it() {
    let cache = Cache::new(10);
    let within = |namespace: &str, name: &str| {
        let mut object = object(name);
        object.metadata.namespace = Some(namespace.to_owned());
        Event::Apply(object)
    };
    take(&cache, [within("shop", "a"), within("shop", "b"), within("shop-2", "c"), within("shop0", "d")]);
    let found = |namespace: &str| cache.within(namespace).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((found("shop"), found("shop-2")), (vec!["a".into(), "b".into()], vec!["c".into()]));
    assert_eq!((found("sho"), found("shop/a")), (Vec::<String>::new(), vec![]));
}

#[tokio::test]
async fn readiness_waits_for_the_first_complete_list() {
    let (cache, readiness) = (Cache::new(10), Readiness::new());
    let first = readiness.block("things");
    let error = || Err(watcher::Error::NoResourceVersion);
    let events = [error(), Ok(Event::Init), Ok(Event::InitApply(object("a")))];
    let observed = readiness.clone();
    let events = futures_util::stream::iter(events).chain(futures_util::stream::once(async move {
        assert!(!observed.is_ready());
        Ok(Event::InitDone)
    }));
    let then = readiness.clone();
    let end = futures_util::stream::once(async move {
        assert!(then.is_ready());
        Ok(Event::Delete(object("b")))
    });
    follow("watch things", events.chain(end), &cache, name, first).await;
    assert!(cache.get("a").is_some());
}
