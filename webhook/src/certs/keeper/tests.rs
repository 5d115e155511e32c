use podwitness_runtime::{clock::ManualClock, drain::Drain, readiness::Readiness};
use serde_json::json;

use super::*;
use crate::certs::{
    mint::{LEAF_LIFE, ROOT_LIFE},
    testing::{Cluster, accepts},
};

const NOW: i64 = 1_800_000_000;

fn keeper(cluster: &Cluster) -> (Keeper, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(NOW));
    (Keeper::new(&cluster.client(), "ns", Arc::clone(&clock) as _), clock)
}

fn served(cluster: &Cluster, leaf: Leaf, host: &str, now: i64) {
    let [chain, _, roots] = TLS;
    accepts(&cluster.entry(leaf.secret, roots), &cluster.entry(leaf.secret, chain), host, now).unwrap();
}

#[tokio::test]
async fn the_first_look_makes_everything_and_the_next_nothing() {
    let cluster = Cluster::default();
    let (keeper, _) = keeper(&cluster);
    assert_eq!(keeper.pass().await.unwrap(), Written::Stored);
    served(&cluster, ADMIT, "podwitness-admit.ns.svc", NOW);
    served(&cluster, CONTROL, "podwitness-control.ns.svc", NOW);
    assert_eq!(cluster.0.lock().unwrap().secrets[ADMIT.secret]["type"], json!("kubernetes.io/tls"));
    let before = cluster.0.lock().unwrap().secrets.clone();
    assert_eq!(keeper.pass().await.unwrap(), Written::Stored);
    assert_eq!(cluster.0.lock().unwrap().secrets, before);
}

#[tokio::test]
async fn a_leaf_is_renewed_after_two_thirds_of_its_life() {
    let cluster = Cluster::default();
    let (keeper, clock) = keeper(&cluster);
    keeper.pass().await.unwrap();
    let before = cluster.entry(ADMIT.secret, "tls.crt");
    clock.set(NOW + LEAF_LIFE / 2);
    keeper.pass().await.unwrap();
    assert_eq!(cluster.entry(ADMIT.secret, "tls.crt"), before);
    clock.set(NOW + LEAF_LIFE * 2 / 3);
    keeper.pass().await.unwrap();
    assert_ne!(cluster.entry(ADMIT.secret, "tls.crt"), before);
    served(&cluster, ADMIT, "podwitness-admit.ns.svc", NOW + LEAF_LIFE);
}

#[tokio::test]
async fn replicas_agree_on_one_authority() {
    let cluster = Cluster::default();
    let ((one, _), (other, _)) = (keeper(&cluster), keeper(&cluster));
    let (first, second) = tokio::join!(one.pass(), other.pass());
    first.unwrap();
    second.unwrap();
    one.pass().await.unwrap();
    other.pass().await.unwrap();
    let root = cluster.entry(AUTHORITY_SECRET, "root.crt");
    assert_eq!(cluster.entry(ADMIT.secret, "ca.crt"), root);
    assert_eq!(cluster.entry(CONTROL.secret, "ca.crt"), root);
    served(&cluster, ADMIT, "podwitness-admit.ns.svc", NOW);
}

#[tokio::test]
async fn a_conflict_changes_nothing_and_is_tried_again() {
    let cluster = Cluster::default();
    let (keeper, clock) = keeper(&cluster);
    keeper.pass().await.unwrap();
    clock.set(NOW + LEAF_LIFE);
    cluster.0.lock().unwrap().conflicts = 1;
    assert_eq!(keeper.pass().await.unwrap(), Written::Conflict);
    assert_eq!(keeper.pass().await.unwrap(), Written::Stored);
    served(&cluster, ADMIT, "podwitness-admit.ns.svc", NOW + LEAF_LIFE);
}

#[tokio::test]
async fn a_root_signs_only_after_the_api_server_was_told() {
    let cluster = Cluster::default();
    let (keeper, clock) = keeper(&cluster);
    keeper.pass().await.unwrap();
    let old = cluster.entry(AUTHORITY_SECRET, "root.crt");
    clock.set(NOW + ROOT_LIFE * 2 / 3);
    keeper.pass().await.unwrap();
    let bundle = cluster.entry(ADMIT.secret, "ca.crt");
    assert!(bundle.starts_with(&old) && bundle.len() > old.len(), "the next root is handed out");

    clock.set(NOW + ROOT_LIFE * 2 / 3 + 10 * 86_400);
    keeper.pass().await.unwrap();
    assert_eq!(cluster.entry(AUTHORITY_SECRET, "root.crt"), old, "nobody told the API server");
    let told = k8s_openapi::ByteString(bundle.into_bytes());
    cluster.0.lock().unwrap().webhooks = Some(json!({"metadata": {"name": WEBHOOK_CONFIGURATION},
        "webhooks": [{"name": "a.podwitness.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"caBundle": told}}]}));
    keeper.pass().await.unwrap();
    assert_ne!(cluster.entry(AUTHORITY_SECRET, "root.crt"), old);
    assert!(cluster.entry(ADMIT.secret, "ca.crt").contains(&old));
    served(&cluster, ADMIT, "podwitness-admit.ns.svc", clock.now_unix());
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_not_replaced() {
    let cluster = Cluster::default();
    let broken = json!({"metadata": {"name": AUTHORITY_SECRET, "resourceVersion": "1"}, "data": {}});
    cluster.0.lock().unwrap().secrets.insert(AUTHORITY_SECRET.to_owned(), broken.clone());
    let error = keeper(&cluster).0.pass().await.unwrap_err();
    assert!(error.to_string().contains("root.crt"), "{error}");
    assert_eq!(cluster.0.lock().unwrap().secrets[AUTHORITY_SECRET], broken);
}

#[tokio::test(start_paused = true)]
async fn the_loop_is_ready_after_its_first_look_and_ends_with_the_drain() {
    let cluster = Cluster::default();
    let readiness = Readiness::new();
    let (signal, watch) = Drain::new();
    let running = tokio::spawn(keeper(&cluster).0.run(readiness.block("certificates"), watch));
    tokio::time::timeout(PERIOD, readiness.ready()).await.unwrap();
    signal.drain(Duration::from_secs(1)).await;
    running.await.unwrap();
}
