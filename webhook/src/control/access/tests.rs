use serde_json::json;

use super::{
    super::token::testing::{Cluster, NOW, claims, review},
    testing::*,
    *,
};

#[tokio::test]
async fn a_projected_token_of_an_injected_pod_is_a_sidecar() {
    let Setup { api, cluster, access } = setup();
    let token = cluster.sign(&claims());
    let caller = access.caller(&bearer(&token)).await.unwrap();
    assert_eq!((caller.role, caller.pod.name(), caller.bound.exp), (Role::Sidecar, "till", NOW + 3600));
    assert_eq!(caller.mode, Some(Inject::Required));
    let asked = &api.bodies("POST", REVIEWS)[0];
    assert_eq!(asked["spec"]["audiences"], json!(["podwitness.dev"]));
    assert_eq!(asked["spec"]["token"], json!(token));
}

#[tokio::test]
async fn a_replica_of_a_recorder_is_known_by_its_objects() {
    let Setup { api, cluster, access } = setup();
    let (claims, review) = as_replica();
    accept(&api, &review);
    let caller = access.caller(&bearer(&cluster.sign(&claims))).await.unwrap();
    assert_eq!((caller.role, caller.mode), (Role::Recorder("podwitness".into()), None));
}

#[tokio::test]
async fn a_stranger_makes_us_ask_the_api_server_nothing() {
    let Setup { api, access, .. } = setup();
    let (stranger, impostor) = (Cluster::new("k9"), Cluster::new("k1"));
    for token in [stranger.sign(&claims()), impostor.sign(&claims()), "nonsense".to_owned()] {
        assert_eq!(access.caller(&bearer(&token)).await.unwrap_err().label(), "unauthenticated");
    }
    assert_eq!(api.count(REVIEWS), 0);
}

#[tokio::test]
async fn the_api_server_has_the_last_word_on_a_token() {
    let Setup { api, cluster, access } = setup();
    let token = cluster.sign(&claims());
    let mut revoked = review();
    revoked["authenticated"] = json!(false);
    accept(&api, &revoked);
    assert_eq!(access.caller(&bearer(&token)).await.unwrap_err().label(), "unauthenticated");
    api.forget("POST", REVIEWS);
    assert_eq!(access.caller(&bearer(&token)).await.unwrap_err().label(), "unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_asks_too_often_is_slowed_before_the_api_server_is_asked() {
    let Setup { api, cluster, access } = setup();
    let headers = bearer(&cluster.sign(&claims()));
    for _ in 0..POD_RATE.burst {
        access.caller(&headers).await.unwrap();
    }
    assert_eq!(access.caller(&headers).await.unwrap_err().label(), "rate-limited");
    assert_eq!(api.count(REVIEWS), POD_RATE.burst as usize);
    tokio::time::advance(POD_RATE.every).await;
    assert!(access.caller(&headers).await.is_ok());
}
