//! What a credential says of itself. Nobody has checked it: good enough for a name in a recording, never for leniency.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderMap;
use podwitness_core::identity::{SERVICE_ACCOUNT_PREFIX, User};
use serde::Deserialize;

use crate::classify::Credential;

/// Longest name taken from a claim, in characters.
const MAX_NAME: usize = 1024;
const MAX_GROUPS: usize = 256;
/// Longest id of a token, in bytes.
const MAX_ID: usize = 128;

/// The claims that are looked at (RFC 7519).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Claims {
    sub: String,
    exp: Option<f64>,
    jti: String,
    groups: Vec<String>,
}

/// A caller without a credential.
pub(super) fn anonymous() -> User {
    User { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] }
}

/// The user that a token claims to be; without a name where it is no JWT.
pub(super) fn of(credential: &Credential) -> User {
    let claims = read(credential).unwrap_or_default();
    let mut user = User { name: claims.sub.chars().take(MAX_NAME).collect(), groups: claims.groups };
    user.groups.truncate(MAX_GROUPS);
    if user.name.starts_with(SERVICE_ACCOUNT_PREFIX)
        && let Some((namespace, _)) = user.service_account()
    {
        let all = "system:serviceaccounts";
        user.groups = vec![all.to_owned(), format!("{all}:{namespace}"), "system:authenticated".to_owned()];
    }
    user
}

/// Unix seconds at which a token ends, if it says so.
pub(super) fn expiry(credential: &Credential) -> Option<i64> {
    let exp = read(credential)?.exp?;
    // A cast saturates; a time beyond the range is as good as none.
    #[expect(clippy::cast_possible_truncation, reason = "saturating, and far beyond any cache's life")]
    Some(exp as i64)
}

/// Id of a token as the API server logs it (KEP-4193), empty where it has none.
pub(crate) fn id(credential: &Credential) -> String {
    let jti = read(credential).map(|claims| claims.jti).unwrap_or_default();
    if jti.is_empty() || jti.len() > MAX_ID { String::new() } else { format!("JTI={jti}") }
}

/// The user whom a request wants to be taken for.
pub(super) fn impersonated(headers: &HeaderMap) -> Option<User> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let name = text(headers.get("impersonate-user")?);
    let groups = headers.get_all("impersonate-group").iter().take(MAX_GROUPS).map(text).collect();
    Some(User { name, groups })
}

fn read(credential: &Credential) -> Option<Claims> {
    let payload = credential.bearer()?.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    fn token(claims: &str) -> Credential {
        let mut headers = HeaderMap::new();
        let text = format!("Bearer e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        headers.insert(AUTHORIZATION, text.parse().unwrap());
        Credential::of(&headers).unwrap()
    }

    #[test]
    fn a_service_account_token_claims_its_account_and_groups() {
        let user =
            of(&token(r#"{"sub":"system:serviceaccount:shop:till","exp":12.9,"groups":["system:masters"]}"#));
        assert_eq!(user.service_account(), Some(("shop", "till")));
        assert_eq!(
            user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]
        );
    }

    #[test]
    fn other_tokens_claim_what_they_say_and_opaque_ones_nothing() {
        let user = of(&token(r#"{"sub":"ana","groups":["sre"]}"#));
        assert_eq!((&*user.name, &*user.groups), ("ana", &["sre".to_owned()][..]));
        assert_eq!(expiry(&token(r#"{"exp":12.9}"#)), Some(12));
        for opaque in ["{", "[]", "\"x\""] {
            assert_eq!((of(&token(opaque)), expiry(&token(opaque))), (User::default(), None), "{opaque}");
        }
    }

    #[test]
    fn a_token_is_named_as_in_the_audit_log() {
        assert_eq!(id(&token(r#"{"jti":"a-b"}"#)), "JTI=a-b");
        let long = format!("{{\"jti\":\"{}\"}}", "x".repeat(MAX_ID + 1));
        for none in ["{}", "{", &long] {
            assert_eq!(id(&token(none)), "", "{none}");
        }
    }

    #[test]
    fn whom_a_request_wants_to_be_is_in_its_headers() {
        let mut headers = HeaderMap::new();
        headers.append("impersonate-group", "a".parse().unwrap());
        assert_eq!(impersonated(&headers), None);
        headers.append("impersonate-user", "bob".parse().unwrap());
        headers.append("impersonate-group", "b".parse().unwrap());
        let user = impersonated(&headers).unwrap();
        assert_eq!((&*user.name, &*user.groups), ("bob", &["a".to_owned(), "b".to_owned()][..]));
    }
}
