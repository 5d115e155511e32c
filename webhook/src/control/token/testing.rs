//! A cluster's signing key, and tokens made with it.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::JwkSet};
use serde_json::{Value, json};

/// The time at which test tokens are looked at.
pub const NOW: i64 = 1_800_000_000;

/// A cluster that signs tokens with ES256.
pub struct Cluster {
    kid: &'static str,
    pair: EcdsaKeyPair,
}

impl Cluster {
    pub fn new(kid: &'static str) -> Self {
        Self { kid, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    /// The JSON of `/openid/v1/jwks`.
    pub fn jwks_json(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.kid, "alg": "ES256", "crv": "P-256", "x": x, "y": y}]})
    }

    pub fn jwks(&self) -> JwkSet {
        serde_json::from_value(self.jwks_json()).unwrap()
    }

    pub fn sign(&self, claims: &Value) -> String {
        let pkcs8 = self.pair.to_pkcs8v1().unwrap();
        let header = Header { kid: Some(self.kid.into()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(pkcs8.as_ref())).unwrap()
    }
}

/// Claims of a token projected into the pod `shop/till`.
pub fn claims() -> Value {
    json!({
        "aud": ["podwitness.dev"], "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 3600, "iss": "https://c",
        "sub": "system:serviceaccount:shop:till",
        "kubernetes.io": {
            "namespace": "shop", "node": {"name": "n1", "uid": "uid-n1"},
            "pod": {"name": "till", "uid": "uid-till"}, "serviceaccount": {"name": "till", "uid": "uid-sa"}}
    })
}

/// The API server's answer about that token.
pub fn review() -> Value {
    json!({
        "authenticated": true, "audiences": ["podwitness.dev"],
        "user": {"username": "system:serviceaccount:shop:till", "uid": "uid-sa", "groups": [], "extra": {
            "authentication.kubernetes.io/pod-name": ["till"], "authentication.kubernetes.io/pod-uid": ["uid-till"]}}
    })
}
