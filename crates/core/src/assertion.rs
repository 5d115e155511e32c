//! Assertions: what the control plane says about a tunnel key, as a JWT signed with Ed25519 (RFC 7519, RFC 8037).
//!
//! A sidecar sends it with every upload in the header [`HEADER`]; a recorder believes a session to be that pod's
//! only if the assertion's key is the one the upload came through.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{control::Issuer, inject::Inject};

/// Request header that carries an assertion.
pub const HEADER: &str = "podwitness-assertion";
/// Longest life of an assertion in seconds.
pub const MAX_LIFE: i64 = 3600;
/// Cap on the text of an assertion in bytes; a longer one is refused unread.
pub const MAX_LEN: usize = 4096;

/// Who holds a tunnel key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claims {
    /// Id of the cluster.
    pub cluster: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// Node on which it runs.
    pub node: String,
    /// Its service account.
    pub service_account: String,
    /// Its WireGuard public key, base64.
    pub key: String,
    /// How binding injection is: `required` where the pod's namespace asks for it and the pod was admitted so, which is
    /// what keeps other containers of the pod from the sidecar. Absent for recorders, and from issuers that do not
    /// say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Inject>,
    /// Unix seconds at which this was said.
    pub iat: i64,
    /// Unix seconds from which this is no longer true.
    pub exp: i64,
}

/// An assertion that cannot be made or believed. No variant holds the assertion itself.
#[derive(Debug, Error)]
pub enum AssertionError {
    /// Signing failed.
    #[error("cannot sign the assertion")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// The text is no JWT of ours.
    #[error("the assertion is malformed")]
    Malformed,
    /// Nobody we know signed it.
    #[error("the assertion's issuer {0:?} is unknown; is this recorder's list of issuers up to date?")]
    UnknownIssuer(String),
    /// Signature or times do not hold.
    #[error("the assertion is not valid")]
    Invalid(#[source] jsonwebtoken::errors::Error),
    /// The issuer may not speak for that cluster, or the life is too long.
    #[error("the assertion claims more than its issuer may say")]
    Overreach,
}

/// Signs claims with an Ed25519 key in PKCS#8 DER under the key id `kid`.
///
/// # Errors
/// Where the key is not Ed25519.
pub fn sign(claims: &Claims, kid: &str, pkcs8: &[u8]) -> Result<String, AssertionError> {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(pkcs8)).map_err(AssertionError::Sign)
}

/// Checks an assertion against the issuers at the time `now` (Unix seconds).
///
/// # Errors
/// Where the text is malformed, the issuer unknown, the signature wrong, or the time not within its life.
pub fn verify(text: &str, issuers: &[Issuer], now: i64) -> Result<Claims, AssertionError> {
    if text.len() > MAX_LEN {
        return Err(AssertionError::Malformed);
    }
    let header = jsonwebtoken::decode_header(text).map_err(|_| AssertionError::Malformed)?;
    let kid = header.kid.unwrap_or_default();
    // Clusters restored from one backup share a key, and each may speak for itself alone.
    let mut refused = None;
    for issuer in issuers.iter().filter(|issuer| issuer.id == kid) {
        match verify_by(issuer, text, now) {
            Ok(claims) => return Ok(claims),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| AssertionError::UnknownIssuer(kid.chars().take(64).collect())))
}

fn verify_by(issuer: &Issuer, text: &str, now: i64) -> Result<Claims, AssertionError> {
    let key = STANDARD.decode(&issuer.public_key).map_err(|_| AssertionError::Malformed)?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    // Times are compared with the caller's clock below, so that tests own it.
    validation.validate_exp = false;
    let claims = jsonwebtoken::decode::<Claims>(text, &DecodingKey::from_ed_der(&key), &validation)
        .map_err(AssertionError::Invalid)?
        .claims;
    within_bounds(&claims, issuer, now).then_some(claims).ok_or(AssertionError::Overreach)
}

/// A minute of clock skew is granted.
fn within_bounds(claims: &Claims, issuer: &Issuer, now: i64) -> bool {
    claims.cluster == issuer.cluster
        && claims.exp.saturating_sub(claims.iat) <= MAX_LIFE
        && claims.iat <= now.saturating_add(60)
        && now < claims.exp
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::AsDer,
        signature::{Ed25519KeyPair, KeyPair},
    };

    use super::*;

    fn issuer() -> (Issuer, Vec<u8>) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public_key = STANDARD.encode(pair.public_key().as_ref());
        let pkcs8 = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        (Issuer { id: "k1".into(), cluster: "c".into(), public_key }, pkcs8.as_ref().to_vec())
    }

    fn claims() -> Claims {
        Claims {
            cluster: "c".into(),
            namespace: "shop".into(),
            pod: "till".into(),
            pod_uid: "u".into(),
            node: "n".into(),
            service_account: "default".into(),
            key: "k".into(),
            mode: Some(Inject::Required),
            iat: 1000,
            exp: 4600,
        }
    }

    #[test]
    fn what_an_issuer_signs_is_believed_within_its_life() {
        let (issuer, key) = issuer();
        let text = sign(&claims(), "k1", &key).unwrap();
        assert_eq!(verify(&text, std::slice::from_ref(&issuer), 1000).unwrap(), claims());
        assert!(matches!(verify(&text, std::slice::from_ref(&issuer), 4600), Err(AssertionError::Overreach)));
        assert!(matches!(verify(&text, &[issuer], 900), Err(AssertionError::Overreach)));
    }

    /// Issuers of an earlier version say nothing of it.
    #[test]
    fn an_assertion_without_a_mode_is_one() {
        let (issuer, key) = issuer();
        let silent = Claims { mode: None, ..claims() };
        let text = sign(&silent, "k1", &key).unwrap();
        assert_eq!(verify(&text, &[issuer], 1000).unwrap(), silent);
        let written = serde_json::to_value(&silent).unwrap();
        assert_eq!(
            (written.get("mode"), serde_json::to_value(claims()).unwrap()["mode"].as_str()),
            (None, Some("required"))
        );
    }

    #[test]
    fn clusters_that_share_a_key_speak_for_themselves_alone() {
        let (ours, key) = issuer();
        let theirs = Issuer { cluster: "restored".into(), ..ours.clone() };
        let of_theirs = Claims { cluster: "restored".into(), ..claims() };
        let text = sign(&of_theirs, "k1", &key).unwrap();
        assert_eq!(verify(&text, &[ours.clone(), theirs], 2000).unwrap(), of_theirs);
        assert!(matches!(verify(&text, &[ours], 2000), Err(AssertionError::Overreach)));
    }

    #[test]
    fn strangers_and_forgeries_are_refused() {
        let ((ours, _), (theirs, their_key)) = (issuer(), issuer());
        let text = sign(&claims(), "k1", &their_key).unwrap();
        assert!(matches!(verify(&text, &[ours], 2000), Err(AssertionError::Invalid(_))));
        let elsewhere = Issuer { cluster: "other".into(), ..theirs };
        assert!(matches!(verify(&text, &[elsewhere], 2000), Err(AssertionError::Overreach)));
        assert!(matches!(verify(&text, &[], 2000), Err(AssertionError::UnknownIssuer(_))));
        assert!(matches!(verify("a.b.c", &[], 2000), Err(AssertionError::Malformed)));
    }
}
