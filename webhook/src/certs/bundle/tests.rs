use podwitness_runtime::readiness::Readiness;

use super::*;
use crate::certs::testing::Cluster;

fn configuration() -> serde_json::Value {
    let entries = ["required", "optional"].map(|mode| {
        json!({"name": format!("{mode}.podwitness.dev"), "failurePolicy": "Fail", "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "podwitness-admit", "namespace": "ns"}}})
    });
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": WEBHOOK_CONFIGURATION}, "webhooks": entries})
}

fn published(cluster: &Cluster) -> Option<bool> {
    let stored = cluster.0.lock().unwrap().webhooks.clone()?;
    Some(is_published(&serde_json::from_value(stored).unwrap(), "roots"))
}

#[tokio::test(start_paused = true)]
async fn roots_are_written_into_every_entry_and_nothing_else_changes() {
    let cluster = Cluster::default();
    cluster.0.lock().unwrap().webhooks = Some(configuration());
    Publisher::new(&cluster.client()).publish("roots").await.unwrap();
    assert_eq!(published(&cluster), Some(true));
    let stored = cluster.0.lock().unwrap().webhooks.clone().unwrap();
    let mut expected = configuration();
    for entry in expected["webhooks"].as_array_mut().unwrap() {
        entry["clientConfig"]["caBundle"] = json!("cm9vdHM=");
    }
    assert_eq!(stored, expected);
}

#[tokio::test(start_paused = true)]
async fn readiness_waits_for_the_configuration_and_a_replaced_one_is_filled_again() {
    let cluster = Cluster::default();
    let readiness = Readiness::new();
    let (roots, watching) = watch::channel(None);
    let publisher = Publisher::new(&cluster.client());
    let running = tokio::spawn(publisher.run(watching, readiness.block("webhook configuration")));
    tokio::time::sleep(PERIOD * 2).await;
    assert!(!readiness.is_ready(), "there are no roots yet");
    roots.send_replace(Some("roots".into()));
    tokio::time::sleep(PERIOD * 2).await;
    assert!(!readiness.is_ready(), "there is no configuration yet");
    cluster.0.lock().unwrap().webhooks = Some(configuration());
    tokio::time::timeout(PERIOD, readiness.ready()).await.unwrap();
    assert_eq!(published(&cluster), Some(true));
    cluster.0.lock().unwrap().webhooks = Some(configuration());
    tokio::time::sleep(PERIOD * 2).await;
    assert_eq!(published(&cluster), Some(true));
    drop(roots);
    running.await.unwrap();
}

#[test]
fn a_configuration_without_entries_is_not_published() {
    assert!(!is_published(&MutatingWebhookConfiguration::default(), ""));
}
