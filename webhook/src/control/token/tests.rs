use http::HeaderValue;
use serde_json::{Value, json};

use super::{testing::*, *};

fn with(edit: impl FnOnce(&mut Value), mut value: Value) -> Value {
    edit(&mut value);
    value
}

#[test]
fn a_token_projected_into_a_pod_says_which_pod() {
    let cluster = Cluster::new("k1");
    let bound = verify(&cluster.sign(&claims()), &cluster.jwks(), NOW).unwrap();
    let expected = Bound {
        namespace: "shop".into(),
        pod: "till".into(),
        pod_uid: "uid-till".into(),
        service_account: "till".into(),
        exp: NOW + 3600,
    };
    assert_eq!(bound, expected);
}

#[test]
fn what_does_not_hold_in_a_token_refuses_it() {
    let cluster = Cluster::new("k1");
    for (why, claims) in [
        ("audience", with(|c| c["aud"] = json!(["https://kubernetes.default.svc"]), claims())),
        ("audience", with(|c| drop(c.as_object_mut().unwrap().remove("aud")), claims())),
        ("expired", with(|c| c["exp"] = json!(NOW - 61), claims())),
        ("yet", with(|c| c["nbf"] = json!(NOW + 61), claims())),
        ("bound", with(|c| drop(c["kubernetes.io"].as_object_mut().unwrap().remove("pod")), claims())),
        ("bound", with(|c| drop(c.as_object_mut().unwrap().remove("kubernetes.io")), claims())),
        ("bound", with(|c| c["kubernetes.io"]["pod"]["uid"] = json!(""), claims())),
        ("bound", with(|c| c["sub"] = json!("system:serviceaccount:shop:other"), claims())),
    ] {
        let refusal = verify(&cluster.sign(&claims), &cluster.jwks(), NOW).unwrap_err();
        assert!(refusal.to_string().contains(why), "{why}: {refusal}");
        assert_eq!(refusal.label(), "unauthenticated");
    }
}

#[test]
fn only_the_cluster_s_own_keys_count() {
    let (cluster, stranger, impostor) = (Cluster::new("k1"), Cluster::new("k2"), Cluster::new("k1"));
    assert_eq!(verify(&stranger.sign(&claims()), &cluster.jwks(), NOW), Err(UNKNOWN_KEY));
    assert_eq!(verify(&impostor.sign(&claims()), &cluster.jwks(), NOW), Err(INVALID));
    for text in ["", "a.b.c", "no token"] {
        assert_eq!(verify(text, &cluster.jwks(), NOW), Err(MALFORMED), "{text}");
    }
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    let cluster = Cluster::new("k1");
    let header =
        jsonwebtoken::Header { kid: Some("k1".into()), ..jsonwebtoken::Header::new(Algorithm::HS256) };
    let secret = serde_json::to_vec(&cluster.jwks_json()).unwrap();
    let forged =
        jsonwebtoken::encode(&header, &claims(), &jsonwebtoken::EncodingKey::from_secret(&secret)).unwrap();
    assert_eq!(verify(&forged, &cluster.jwks(), NOW), Err(MALFORMED));
}

#[test]
fn the_api_server_has_to_say_the_same_of_the_bearer() {
    let cluster = Cluster::new("k1");
    let bound = verify(&cluster.sign(&claims()), &cluster.jwks(), NOW).unwrap();
    let confirmed = |review: Value| bound.confirmed_by(&serde_json::from_value(review).unwrap());
    assert_eq!(confirmed(review()), Ok(()));
    for wrong in [
        with(|r| r["authenticated"] = json!(false), review()),
        with(|r| r["audiences"] = json!(["other"]), review()),
        with(|r| drop(r.as_object_mut().unwrap().remove("audiences")), review()),
        with(|r| r["user"]["username"] = json!("system:serviceaccount:shop:other"), review()),
        with(|r| r["user"]["extra"]["authentication.kubernetes.io/pod-uid"] = json!(["uid-next"]), review()),
        with(|r| drop(r["user"].as_object_mut().unwrap().remove("extra")), review()),
    ] {
        assert!(confirmed(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn exactly_one_bearer_token_is_wanted() {
    let headers = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers
    };
    assert_eq!(bearer(&headers(&["Bearer abc"])), Ok("abc"));
    assert_eq!(bearer(&headers(&["bearer  abc "])), Ok("abc"));
    for wrong in [&[][..], &["Bearer a", "Bearer b"], &["Basic abc"], &["Bearer"], &["Bearer "]] {
        assert!(bearer(&headers(wrong)).is_err(), "{wrong:?}");
    }
    let long = format!("Bearer {}", "x".repeat(MAX_TOKEN + 1));
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&long).unwrap());
    assert!(bearer(&headers).is_err());
}
