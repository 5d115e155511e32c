//! The credential of a request, read as the API server reads it: `Authorization: Bearer`
//! (`apiserver/pkg/authentication/request/bearertoken`) or a WebSocket subprotocol (`…/request/websocket`).

use std::fmt;

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use thiserror::Error;

use crate::sha256;

use super::{BEARER_SUBPROTOCOL, subprotocols, trimmed};

/// Who is asking, as far as the request itself says. Never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Credential {
    token: Option<String>,
    hash: [u8; 32],
}

/// Why a request's credential is refused. The API server would take one of two, and nobody could say which.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum CredentialError {
    /// More than one `Authorization` header.
    #[error("podwitness: the request has more than one Authorization header; send one")]
    Repeated,
    /// Two bearer tokens.
    #[error(
        "podwitness: the request carries a bearer token both as a header and as a subprotocol, or twice; send one"
    )]
    Ambiguous,
    /// The subprotocol holds no token.
    #[error("podwitness: the bearer token in Sec-WebSocket-Protocol is not base64url without padding")]
    Undecodable,
}

impl Credential {
    /// Reads the credential of a request.
    ///
    /// # Errors
    /// Where the request has more than one.
    pub fn of(headers: &HeaderMap) -> Result<Self, CredentialError> {
        let mut authorizations = headers.get_all(AUTHORIZATION).iter();
        let authorization = authorizations.next();
        if authorizations.next().is_some() {
            return Err(CredentialError::Repeated);
        }
        let mut offered = subprotocols(headers).filter_map(|name| name.strip_prefix(BEARER_SUBPROTOCOL));
        match (authorization, offered.next(), offered.next()) {
            (None, None, _) => Ok(Self::anonymous()),
            (Some(value), None, _) => Ok(Self::from_header(value)),
            (None, Some(encoded), None) => Self::from_subprotocol(encoded),
            _ => Err(CredentialError::Ambiguous),
        }
    }

    /// No credential at all.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { token: None, hash: [0; 32] }
    }

    /// The bearer token, if the credential is one.
    #[must_use]
    pub fn bearer(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Whether the request has no credential.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.hash == [0; 32]
    }

    /// Stands for the credential where it is compared or looked up.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    fn from_header(value: &HeaderValue) -> Self {
        let token = bearer_of(value);
        let hash = token
            .as_ref()
            .map_or_else(|| hash(b"header", value.as_bytes()), |token| hash(b"bearer", token.as_bytes()));
        Self { token, hash }
    }

    fn from_subprotocol(encoded: &[u8]) -> Result<Self, CredentialError> {
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| CredentialError::Undecodable)?;
        let token = String::from_utf8(bytes).map_err(|_| CredentialError::Undecodable)?;
        Ok(Self { hash: hash(b"bearer", token.as_bytes()), token: Some(token) })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_anonymous() { "Credential(none)" } else { "Credential(…)" })
    }
}

/// The second word, if the first is `bearer`; what follows it may be anything. A token that is not UTF-8 is none that
/// the API server could know.
fn bearer_of(value: &HeaderValue) -> Option<String> {
    let mut words = trimmed(value.as_bytes()).splitn(3, |byte| *byte == b' ');
    let scheme = words.next()?;
    let token = words.next().filter(|token| !token.is_empty())?;
    let token = std::str::from_utf8(token).ok()?;
    scheme.eq_ignore_ascii_case(b"bearer").then(|| token.to_owned())
}

fn hash(kind: &[u8], secret: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(kind);
    context.update(&[0]);
    context.update(secret);
    sha256::finish(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &str)]) -> Result<Credential, CredentialError> {
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        of_bytes(&headers)
    }

    fn of_bytes(headers: &[(&str, &[u8])]) -> Result<Credential, CredentialError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(value).unwrap();
            map.append(http::HeaderName::try_from(*name).unwrap(), value);
        }
        Credential::of(&map)
    }

    #[test]
    fn a_bearer_token_is_the_second_word_whatever_the_case_of_the_first() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("  bearer abc def", Some("abc")),
            ("Bearer  abc", None),
            ("Bearer", None),
            ("Basic abc", None),
        ] {
            let credential = of(&[("authorization", value)]).unwrap();
            assert_eq!((credential.bearer(), credential.is_anonymous()), (token, false), "{value}");
        }
        assert!(of(&[]).unwrap().is_anonymous());
    }

    #[test]
    fn the_same_token_is_the_same_credential_in_either_form() {
        let header = of(&[("authorization", "Bearer abc")]).unwrap();
        let offered = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj";
        assert_eq!(of(&[("sec-websocket-protocol", offered)]).unwrap(), header);
        assert_ne!(of(&[("authorization", "Basic abc")]).unwrap().hash(), header.hash());
    }

    #[test]
    fn two_credentials_are_one_too_many() {
        let one = "base64url.bearer.authorization.k8s.io.YWJj";
        for headers in [
            &[("authorization", "Bearer a"), ("sec-websocket-protocol", one)][..],
            &[("sec-websocket-protocol", one), ("sec-websocket-protocol", one)],
        ] {
            assert_eq!(of(headers), Err(CredentialError::Ambiguous));
        }
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        assert_eq!(of(&twice), Err(CredentialError::Repeated));
        let padded = [("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.YQ==")];
        assert_eq!(of(&padded), Err(CredentialError::Undecodable));
    }

    /// The API server finds the token in each of these.
    #[test]
    fn a_credential_beside_bytes_that_are_no_ascii_counts() {
        let one = b"base64url.bearer.authorization.k8s.io.YWJj";
        let offers: [Vec<u8>; 4] = [
            [b"v5.channel.k8s.io, \xff, ", &one[..]].concat(),
            [&one[..], b", caf\xc3\xa9"].concat(),
            [b"v5.channel.k8s.io,\xc2\xa0", &one[..]].concat(),
            [&one[..], b"\xe2\x80\x83,x"].concat(),
        ];
        for offer in &offers {
            let alone = of_bytes(&[("sec-websocket-protocol", offer)]).unwrap();
            assert_eq!(alone.bearer(), Some("abc"), "{offer:x?}");
            let both = [("authorization", &b"Bearer a"[..]), ("sec-websocket-protocol", offer)];
            assert_eq!(of_bytes(&both), Err(CredentialError::Ambiguous), "{offer:x?}");
            let twice = [("sec-websocket-protocol", &one[..]), ("sec-websocket-protocol", offer)];
            assert_eq!(of_bytes(&twice), Err(CredentialError::Ambiguous), "{offer:x?}");
        }
        for value in [&b"Bearer abc \xff"[..], b"\xc2\xa0Bearer abc", b"Bearer abc \xc3\xa9 x"] {
            assert_eq!(of_bytes(&[("authorization", value)]).unwrap().bearer(), Some("abc"), "{value:x?}");
        }
        let twice = [("authorization", &b"Bearer a"[..]), ("authorization", b"\xff")];
        assert_eq!(of_bytes(&twice), Err(CredentialError::Repeated));
        let broken = [("sec-websocket-protocol", &b"base64url.bearer.authorization.k8s.io.YW\xff"[..])];
        assert_eq!(of_bytes(&broken), Err(CredentialError::Undecodable));
    }

    #[test]
    fn a_credential_is_never_shown() {
        let shown = format!("{:?}", of(&[("authorization", "Bearer geheim")]).unwrap());
        assert!(!shown.contains("geheim"), "{shown}");
    }
}
