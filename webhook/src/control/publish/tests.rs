use futures_util::FutureExt as _;
use kube::runtime::{
    reflector::{Store, store},
    watcher::Event,
};
use podwitness_core::grant::GrantSpec;
use podwitness_crd::{Grant, GrantObjectSpec, Recorder, RecorderSpec};
use serde_json::json;

use super::{
    super::{
        pod::testing::{pod, replica},
        testing::Api,
    },
    *,
};
use crate::recorders::objects::testing::empty;

const GRANTS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/grants.podwitness.dev";
const RECORDERS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/recorders.podwitness.dev";
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

fn cache<K>(objects: Vec<K>) -> Store<K>
where
    K: kube::runtime::reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    let (cache, mut writer) = store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
    cache
}

fn grants(names: &[&str]) -> Store<Grant> {
    let all = GrantSpec { src: vec!["*".into()], dst: vec!["*".into()], ..GrantSpec::default() };
    cache(names.iter().map(|name| Grant::new(name, GrantObjectSpec(all.clone()))).collect())
}

fn remembering() -> Recorder {
    let mut recorder = Recorder::new("podwitness", RecorderSpec::default());
    recorder.status = serde_json::from_value(json!({"replicas": [{"pod": "podwitness-0",
        "podUID": "uid-rec", "key": KEY, "address": "fd70::1", "endpoint": "10.0.1.9:51820"}]}))
    .unwrap();
    recorder
}

fn publisher(api: &Api) -> Publisher {
    define(api, GRANTS, "u1", false);
    define(api, RECORDERS, "u2", false);
    let caches = Caches {
        pods: cache(vec![pod(replica())]),
        namespaces: cache(vec![]),
        grants: grants(&["default", "prod"]),
        recorders: cache(vec![remembering()]),
        services: cache(vec![]),
        slices: cache(vec![]),
        nodes: cache(vec![]),
        cluster_info: cache(vec![]),
        objects: empty(),
    };
    Publisher {
        caches,
        filled: Filled::at_once(),
        changed: Arc::new(Notify::new()),
        enrolments: Enrolments::default(),
        endpoints: Endpoints::default(),
        addresses: found(&["10.96.0.1:443"]),
        serving: watch::Sender::new(None).subscribe(),
        fixed: Fixed { cluster: "c".into(), issuers: vec![], trust: TrustSetting::Pod },
        roots: watch::Sender::new(Some("PEM".into())).subscribe(),
        worlds: watch::Sender::new(None),
        hold: Hold::new(api.client()),
        metrics: Metrics::default(),
        status: Arc::new(Notify::new()),
    }
}

fn found(addresses: &[&str]) -> watch::Receiver<Option<Arc<Found>>> {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    watch::Sender::new(Some(Arc::new(Found { addresses, ..Found::default() }))).subscribe()
}

fn define(api: &Api, path: &str, uid: &str, terminating: bool) {
    let mut metadata = json!({"name": "x", "uid": uid});
    if terminating {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    api.answer(
        "GET",
        path,
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}),
    );
}

fn published(publisher: &Publisher) -> (u64, usize, usize) {
    let published = publisher.worlds.borrow().clone().unwrap();
    (published.generation, published.world.grants.len(), published.world.api_servers.addresses.len())
}

#[tokio::test]
async fn a_world_is_published_once_per_change() {
    let mut publisher = publisher(&Api::default());
    publisher.once().await.unwrap();
    assert_eq!(published(&publisher), (1, 2, 1));
    publisher.once().await.unwrap();
    assert_eq!(published(&publisher), (1, 2, 1));
    publisher.caches.grants = grants(&["default", "prod", "shop"]);
    publisher.once().await.unwrap();
    assert_eq!(published(&publisher), (2, 3, 1));
    publisher.caches.grants = grants(&["default"]);
    publisher.once().await.unwrap();
    assert_eq!(published(&publisher), (3, 1, 1));
}

#[tokio::test]
async fn grants_that_go_with_their_definition_stay_published() {
    let api = Api::default();
    let mut publisher = publisher(&api);
    publisher.once().await.unwrap();
    define(&api, GRANTS, "u1", true);
    publisher.caches.grants = grants(&["default"]);
    assert_eq!(publisher.once().await, Err(Held::Terminating("grants.podwitness.dev")));
    api.forget("GET", GRANTS);
    publisher.caches.grants = grants(&[]);
    assert_eq!(publisher.once().await, Err(Held::Missing("grants.podwitness.dev")));
    define(&api, GRANTS, "u9", false);
    assert_eq!(publisher.once().await, Err(Held::Empty("grants.podwitness.dev")));
    assert_eq!(published(&publisher), (1, 2, 1));
    publisher.caches.grants = grants(&["default"]);
    publisher.once().await.unwrap();
    assert_eq!(published(&publisher), (2, 1, 1));
}

#[tokio::test]
async fn nothing_is_published_while_the_definitions_cannot_be_looked_at() {
    let api = Api::default();
    let mut publisher = publisher(&api);
    api.answer_with("GET", RECORDERS, 403, super::super::testing::status(403, "Forbidden"));
    assert!(matches!(publisher.once().await, Err(Held::Unknown("recorders.podwitness.dev", _))));
    assert!(publisher.worlds.borrow().is_none());
}

#[tokio::test]
async fn an_api_server_without_an_address_is_an_accident() {
    let mut publisher = publisher(&Api::default());
    publisher.once().await.unwrap();
    publisher.addresses = found(&[]);
    publisher.once().await.unwrap();
    assert_eq!(published(&publisher), (1, 2, 1));
}

#[tokio::test]
async fn replicas_outlive_a_restart_of_the_control_plane_and_the_loss_of_their_status() {
    let mut publisher = publisher(&Api::default());
    publisher.remember();
    publisher.once().await.unwrap();
    let replicas = |publisher: &Publisher| {
        let published = publisher.worlds.borrow().clone().unwrap();
        published.world.recorders.iter().map(|peer| peer.public_key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(replicas(&publisher), [KEY]);
    publisher.caches.recorders = cache(vec![Recorder::new("podwitness", RecorderSpec::default())]);
    publisher.once().await.unwrap();
    assert_eq!(replicas(&publisher), [KEY]);
    publisher.caches.pods = cache(vec![]);
    publisher.once().await.unwrap();
    assert!(replicas(&publisher).is_empty());
}

#[tokio::test(start_paused = true)]
async fn changes_are_gathered_and_published_once_there_are_roots() {
    let publisher = publisher(&Api::default());
    let (changed, mut worlds) = (Arc::clone(&publisher.changed), publisher.worlds.subscribe());
    let (roots, receiver) = watch::channel(None);
    let running = tokio::spawn(Publisher { roots: receiver, ..publisher }.run());
    changed.notify_one();
    roots.send_replace(Some("PEM".into()));
    worlds.wait_for(Option::is_some).await.unwrap();
    changed.notify_one();
    roots.send_replace(Some("PEM, NEXT".into()));
    let next = worlds.wait_for(|world| world.as_ref().is_some_and(|w| w.generation == 2)).await.unwrap();
    assert_eq!(next.as_ref().unwrap().world.roots, ["PEM, NEXT"]);
    drop(next);
    running.abort();
}

#[tokio::test]
async fn a_world_is_published_however_slowly_status_is_written() {
    let mut publisher = publisher(&Api::default());
    let status = Arc::clone(&publisher.status);
    publisher.once().await.unwrap();
    // Nothing writes it here, and that keeps no change back.
    publisher.caches.grants = grants(&["default"]);
    publisher.once().await.unwrap();
    assert_eq!(published(&publisher), (2, 1, 1));
    status.notified().now_or_never().expect("it is told that there is something to write");
    assert!(status.notified().now_or_never().is_none(), "once for all rounds that were missed");
}
