use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;

const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

fn recorder(external: &Value) -> Arc<Recorder> {
    let object = json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "metadata": {"name": "vault"},
        "spec": {"tags": ["tag:vault"], "external": external}});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn tunnel(endpoint: &str) -> Arc<Recorder> {
    recorder(&json!({"publicKey": KEY, "endpoint": endpoint}))
}

fn plain(address: &str) -> Arc<Recorder> {
    recorder(&json!({"address": address, "plaintext": true}))
}

fn ready(recorder: &Recorder, endpoints: &Endpoints) -> (ConditionStatus, &'static str) {
    let finding = finding(recorder, endpoints).unwrap();
    (finding.status, finding.reason)
}

#[test]
fn a_recorder_with_a_key_is_a_peer_of_the_tunnel() {
    let endpoints = Endpoints::default();
    let peer = peer(&tunnel("203.0.113.9:51820"), &endpoints).unwrap().unwrap();
    assert_eq!(
        (peer.name.as_str(), peer.replica.as_str(), peer.tags[0].as_str()),
        ("vault", "vault", "tag:vault")
    );
    assert_eq!(peer.recordings_at().to_string(), "[fd70:6f64:7769:66e0:3ef6:9449:47a8:bb44]:80");
    assert_eq!((peer.endpoint.to_string().as_str(), peer.plaintext), ("203.0.113.9:51820", None));
    assert_eq!(ready(&tunnel("203.0.113.9:51820"), &endpoints), (ConditionStatus::True, "External"));
}

#[test]
fn a_recorder_without_a_tunnel_is_shown_to_be_one() {
    let endpoints = Endpoints::default();
    let peer = peer(&plain("10.4.0.7:80"), &endpoints).unwrap().unwrap();
    assert_eq!((peer.recordings_at().to_string().as_str(), peer.public_key.as_str()), ("10.4.0.7:80", ""));
    let finding = finding(&plain("10.4.0.7:80"), &endpoints).unwrap();
    assert_eq!((finding.status, finding.reason), (ConditionStatus::True, "ExternalPlaintext"));
    assert!(finding.message.contains("NOT encrypted"), "{}", finding.message);
}

#[test]
fn nothing_is_sent_where_a_pod_would_reach_itself_or_the_tunnel() {
    for address in
        ["127.0.0.1:80", "[::1]:80", "0.0.0.0:80", "[fd70:6f64:7769::1]:80", "10.4.0.7:0", "10.4.0.7"]
    {
        assert_eq!(
            ready(&plain(address), &Endpoints::default()),
            (ConditionStatus::False, "Invalid"),
            "{address}"
        );
    }
    assert_eq!(ready(&tunnel("127.0.0.1:51820"), &Endpoints::default()).1, "Unresolved");
    let zero = recorder(
        &json!({"publicKey": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "endpoint": "192.0.2.1:1"}),
    );
    assert_eq!(ready(&zero, &Endpoints::default()).1, "Invalid");
    assert_eq!(ready(&recorder(&json!({"address": "192.0.2.1:1"})), &Endpoints::default()).1, "Invalid");
}

#[test]
fn a_name_keeps_its_address_until_it_has_another() {
    let endpoints = Endpoints::default();
    let addresses: Vec<SocketAddr> = ["192.0.2.1:1", "192.0.2.2:1"].map(|text| text.parse().unwrap()).into();
    assert!(endpoints.note("vault.example:1", &addresses));
    // It takes turns, or is not found.
    assert!(!endpoints.note("vault.example:1", &addresses.iter().rev().copied().collect::<Vec<_>>()));
    assert!(!endpoints.note("vault.example:1", &[]));
    assert_eq!(endpoints.find("vault.example:1"), addresses.first().copied());
    assert!(endpoints.note("vault.example:1", &addresses[1..]));
    assert_eq!(endpoints.find("vault.example:1"), addresses.last().copied());
}

#[test]
fn an_address_outlives_a_restart_of_the_control_plane() {
    let (before, after) = (Endpoints::default(), Endpoints::default());
    before.note("vault.example:1", &["192.0.2.1:1".parse().unwrap()]);
    let status = finding(&tunnel("vault.example:1"), &before).unwrap().found.unwrap();
    assert_eq!(ready(&tunnel("vault.example:1"), &after).1, "Unresolved");
    after.remember(&status);
    assert_eq!(ready(&tunnel("vault.example:1"), &after).1, "External");
}

#[tokio::test(start_paused = true)]
async fn names_are_followed_while_a_recorder_has_them() {
    let (endpoints, changed) = (Endpoints::default(), Arc::new(Notify::new()));
    endpoints.note("gone.example:1", &["192.0.2.1:1".parse().unwrap()]);
    let following = tokio::spawn(endpoints.clone().follow(Arc::clone(&changed)));
    endpoints.want(&[tunnel("name.invalid:51820"), tunnel("203.0.113.9:51820"), plain("10.4.0.7:80")]);
    let forgotten = async {
        while endpoints.find("gone.example:1").is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(600), forgotten).await.unwrap();
    assert_eq!(*endpoints.wanted.borrow(), ["name.invalid:51820".to_owned()].into());
    assert_eq!(endpoints.find("name.invalid:51820"), None);
    following.abort();
}
