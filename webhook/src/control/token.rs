//! Service-account tokens (KEP-1205): what one says, and whether it may be believed so far.
//!
//! Source: `pkg/serviceaccount/claims.go` in `kubernetes/kubernetes`. The signature is checked before anything is
//! asked of the API server, so that strangers cannot make us ask.

use http::{HeaderMap, header::AUTHORIZATION};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{Jwk, JwkSet},
};
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use podwitness_core::{identity::SERVICE_ACCOUNT_PREFIX, inject::TOKEN_AUDIENCE};
use serde::Deserialize;

use super::refusal::Refusal;

/// Cap on a token; one with a hundred audiences has about 4 KiB.
const MAX_TOKEN: usize = 16 << 10;
/// Clock skew granted to the API server that dated the token.
const SKEW: i64 = 60;
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// The pod for which a token speaks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bound {
    /// Namespace of pod and service account.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub pod_uid: String,
    /// Name of the service account.
    pub service_account: String,
    /// Unix seconds from which the token is void.
    pub exp: i64,
}

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    #[serde(default)]
    nbf: i64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Private>,
}

#[derive(Debug, Deserialize)]
struct Private {
    namespace: String,
    pod: Option<Reference>,
    serviceaccount: Reference,
}

#[derive(Debug, Deserialize)]
struct Reference {
    name: String,
    #[serde(default)]
    uid: String,
}

/// The bearer token of a request.
///
/// # Errors
/// Where there is none, several, or one that is too long.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Refusal::Unauthenticated("one Authorization header with a bearer token is wanted"));
    };
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or_default();
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > MAX_TOKEN {
        return Err(Refusal::Unauthenticated("one Authorization header with a bearer token is wanted"));
    }
    Ok(token)
}

/// The key id of a token, without believing it.
///
/// # Errors
/// Where the text is no JWT.
pub fn key_id(token: &str) -> Result<String, Refusal> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| MALFORMED)?;
    header.kid.ok_or(MALFORMED)
}

/// Checks a token against the cluster's keys at `now` (Unix seconds), and reads the pod it is bound to.
///
/// # Errors
/// Where the key is unknown, signature, audience or times do not hold, or it is bound to no pod.
pub fn verify(token: &str, keys: &JwkSet, now: i64) -> Result<Bound, Refusal> {
    let key = keys.find(&key_id(token)?).ok_or(UNKNOWN_KEY)?;
    let claims = decode(token, key)?;
    if now >= claims.exp.saturating_add(SKEW) {
        return Err(Refusal::Unauthenticated("the token has expired"));
    }
    if now < claims.nbf.saturating_sub(SKEW) {
        return Err(Refusal::Unauthenticated("the token is not valid yet"));
    }
    claims.bound().ok_or(Refusal::Unauthenticated("the token is not bound to a pod; project it into the pod"))
}

/// No key of the cluster's has the token's key id.
pub const UNKNOWN_KEY: Refusal = Refusal::Unauthenticated("the token is not signed by this cluster");
const MALFORMED: Refusal = Refusal::Unauthenticated("the token is not a service-account token");
const INVALID: Refusal =
    Refusal::Unauthenticated("the token is not valid here; its audience has to be podwitness.dev");

fn decode(token: &str, key: &Jwk) -> Result<Claims, Refusal> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let header = jsonwebtoken::decode_header(token).map_err(|_| MALFORMED)?;
    // Asymmetric ones only: with HS256 the public key would be the secret.
    if !matches!(header.alg, RS256 | RS384 | RS512 | PS256 | PS384 | PS512 | ES256 | ES384 | EdDSA) {
        return Err(MALFORMED);
    }
    let decoding = DecodingKey::from_jwk(key).map_err(|_| UNKNOWN_KEY)?;
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[TOKEN_AUDIENCE]);
    // Times are compared with the caller's clock, so that tests own it.
    validation.validate_exp = false;
    validation.set_required_spec_claims(&["exp", "aud", "sub"]);
    jsonwebtoken::decode::<Claims>(token, &decoding, &validation).map(|data| data.claims).map_err(|_| INVALID)
}

impl Claims {
    fn bound(self) -> Option<Bound> {
        let Private { namespace, pod, serviceaccount } = self.kubernetes?;
        let pod = pod.filter(|pod| !pod.name.is_empty() && !pod.uid.is_empty())?;
        let named = format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{}", serviceaccount.name);
        (named == self.sub).then_some(Bound {
            namespace,
            pod: pod.name,
            pod_uid: pod.uid,
            service_account: serviceaccount.name,
            exp: self.exp,
        })
    }
}

impl Bound {
    /// Whether the API server says the same of the token as the token itself.
    ///
    /// # Errors
    /// Where it does not.
    pub fn confirmed_by(&self, review: &TokenReviewStatus) -> Result<(), Refusal> {
        let audience = review.audiences.iter().flatten().any(|audience| audience == TOKEN_AUDIENCE);
        if review.authenticated != Some(true) || !audience {
            return Err(Refusal::Unauthenticated("the API server does not accept the token"));
        }
        let user = review.user.as_ref();
        let name = user.and_then(|user| user.username.as_deref());
        let extra = |key: &str| {
            let values = user.and_then(|user| user.extra.as_ref()).and_then(|extra| extra.get(key));
            values.and_then(|values| values.first()).map(String::as_str)
        };
        let expected = format!("{SERVICE_ACCOUNT_PREFIX}{}:{}", self.namespace, self.service_account);
        let same = name == Some(expected.as_str())
            && extra(POD_NAME) == Some(self.pod.as_str())
            && extra(POD_UID) == Some(self.pod_uid.as_str());
        same.then_some(())
            .ok_or(Refusal::Unauthenticated("the API server knows the token's bearer otherwise"))
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
