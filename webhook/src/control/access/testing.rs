//! Access in front of a test API server that knows the pods `shop/till` and `podwitness-system/podwitness-0`.

use http::header::AUTHORIZATION;
use kube::runtime::{reflector::store, watcher::Event};
use podwitness_runtime::clock::ManualClock;
use serde_json::{Value, json};

use super::{
    super::{
        pod::testing::{injected, pod, replica},
        pods,
        role::testing::owners,
        testing::Api as TestApi,
        token::testing::{Cluster, NOW, claims, review},
    },
    *,
};

pub const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Access, its API server, and the cluster that signs tokens for it.
pub struct Setup {
    pub api: TestApi,
    pub cluster: Cluster,
    pub access: Access,
}

pub fn setup() -> Setup {
    let api = TestApi::default();
    let cluster = Cluster::new("k1");
    api.answer("GET", "/openid/v1/jwks", cluster.jwks_json());
    accept(&api, &review());
    let ours =
        Ours { system_namespace: "podwitness-system".into(), images: vec!["podwitness.dev/sidecar".into()] };
    let pods = pods::testing::pods(vec![pod(injected()), pod(replica())], api.client());
    let clock = Arc::new(ManualClock::at(NOW));
    let (namespaces, mut writer) = store();
    let shop = json!({"metadata": {"name": "shop", "labels": {"podwitness.dev/inject": "required"}}});
    writer.apply_watcher_event(&Event::Apply(serde_json::from_value(shop).unwrap()));
    let known = Known { pods, namespaces, owners: owners("uid-set", "uid-recorder") };
    let access = Access::new(api.client(), known, ours, clock);
    Setup { api, cluster, access }
}

/// Lets the API server answer reviews so.
pub fn accept(api: &TestApi, status: &Value) {
    api.answer("POST", REVIEWS, json!({"metadata": {}, "spec": {}, "status": status}));
}

/// Claims and review of the recorder's replica.
pub fn as_replica() -> (Value, Value) {
    let (mut claims, mut review) = (claims(), review());
    let user = "system:serviceaccount:podwitness-system:podwitness";
    claims["sub"] = json!(user);
    claims["kubernetes.io"]["namespace"] = json!("podwitness-system");
    claims["kubernetes.io"]["serviceaccount"]["name"] = json!("podwitness");
    claims["kubernetes.io"]["pod"] = json!({"name": "podwitness-0", "uid": "uid-rec"});
    review["user"]["username"] = json!(user);
    review["user"]["extra"] = json!({
        "authentication.kubernetes.io/pod-name": ["podwitness-0"],
        "authentication.kubernetes.io/pod-uid": ["uid-rec"]});
    (claims, review)
}

/// Headers with this token.
pub fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    headers
}
