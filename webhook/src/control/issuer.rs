//! The Ed25519 key that signs assertions, and what others have to know of it.
//!
//! The key lies in the Secret [`SECRET`], made by whoever comes first; its public half is published in the ConfigMap
//! [`CONFIG_MAP`], from which recorders learn whom to believe.

use std::{collections::BTreeMap, fmt};

use aws_lc_rs::{
    digest,
    encoding::{AsDer as _, Pkcs8V1Der},
    error::{KeyRejected, Unspecified},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use podwitness_core::{
    assertion::{self, AssertionError, Claims},
    control::Issuer,
};
use thiserror::Error;

/// Secret that holds the key.
pub const SECRET: &str = "podwitness-issuer";
/// ConfigMap that names the issuers.
pub const CONFIG_MAP: &str = "podwitness-issuers";
/// Key of the ConfigMap under which they stand, as JSON.
pub const CONFIG_MAP_KEY: &str = "issuers.json";
/// Field manager of what the control plane applies.
pub const FIELD_MANAGER: &str = "podwitness-control";

const SECRET_KEY: &str = "ed25519.pkcs8";

/// Signs assertions.
pub struct Signer {
    issuer: Issuer,
    pkcs8: Box<[u8]>,
}

/// Why there is no key to sign with. No variant holds the key.
#[derive(Debug, Error)]
pub enum IssuerError {
    /// Reading or writing failed.
    #[error("cannot read or create the Secret {SECRET}")]
    Secret(#[source] kube::Error),
    /// The Secret has no key.
    #[error("the Secret {SECRET} has no {SECRET_KEY}; delete it, and a new key is made")]
    Absent,
    /// The Secret's key is none.
    #[error("the Secret {SECRET} holds no Ed25519 key in {SECRET_KEY}; delete it, and a new key is made")]
    Unusable(#[source] KeyRejected),
    /// No key can be made.
    #[error("cannot make a key")]
    Make(#[from] Unspecified),
    /// The list of issuers cannot be written as JSON.
    #[error("cannot write the list of issuers")]
    Json(#[from] serde_json::Error),
    /// Publishing failed.
    #[error("cannot apply the ConfigMap {CONFIG_MAP}")]
    Publish(#[source] kube::Error),
}

impl Signer {
    /// A signer for `cluster` from a key in PKCS#8.
    ///
    /// # Errors
    /// Where the key is not Ed25519.
    pub fn new(pkcs8: &[u8], cluster: &str) -> Result<Self, IssuerError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(IssuerError::Unusable)?;
        let public = pair.public_key().as_ref();
        // Eight bytes tell keys of one cluster apart; a recorder looks the id up, it does not trust it.
        let hash = digest::digest(&digest::SHA256, public);
        let id = URL_SAFE_NO_PAD.encode(hash.as_ref().iter().take(8).copied().collect::<Vec<u8>>());
        let issuer = Issuer { id, cluster: cluster.to_owned(), public_key: STANDARD.encode(public) };
        Ok(Self { issuer, pkcs8: pkcs8.into() })
    }

    /// What others have to know.
    #[must_use]
    pub const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Signs claims.
    ///
    /// # Errors
    /// Where the library fails to.
    pub fn sign(&self, claims: &Claims) -> Result<String, AssertionError> {
        assertion::sign(claims, &self.issuer.id, &self.pkcs8)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// The signer whose key is in the Secret, which is made if it is absent.
///
/// # Errors
/// Where the Secret can be neither read nor created, or holds no key.
pub async fn load_or_create(client: Client, namespace: &str, cluster: &str) -> Result<Signer, IssuerError> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    if let Some(secret) = secrets.get_opt(SECRET).await.map_err(IssuerError::Secret)? {
        return from_secret(&secret, cluster);
    }
    match secrets.create(&PostParams::default(), &new_secret()?).await {
        Ok(secret) => from_secret(&secret, cluster),
        // Someone was faster: theirs is the key.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            from_secret(&secrets.get(SECRET).await.map_err(IssuerError::Secret)?, cluster)
        }
        Err(error) => Err(IssuerError::Secret(error)),
    }
}

fn from_secret(secret: &Secret, cluster: &str) -> Result<Signer, IssuerError> {
    let ByteString(key) =
        secret.data.as_ref().and_then(|data| data.get(SECRET_KEY)).ok_or(IssuerError::Absent)?;
    Signer::new(key, cluster)
}

fn new_secret() -> Result<Secret, IssuerError> {
    let pair = Ed25519KeyPair::generate()?;
    let key: Pkcs8V1Der<'_> = pair.as_der()?;
    Ok(Secret {
        metadata: ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() },
        data: Some([(SECRET_KEY.to_owned(), ByteString(key.as_ref().to_vec()))].into()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    })
}

/// Publishes the issuers in the ConfigMap.
///
/// # Errors
/// Where it cannot be applied.
pub async fn publish(client: Client, namespace: &str, issuers: &[Issuer]) -> Result<(), IssuerError> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    let data = BTreeMap::from([(CONFIG_MAP_KEY.to_owned(), serde_json::to_string(issuers)?)]);
    let config_map = ConfigMap {
        metadata: ObjectMeta { name: Some(CONFIG_MAP.to_owned()), ..ObjectMeta::default() },
        data: Some(data),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    config_maps
        .patch(CONFIG_MAP, &params, &Patch::Apply(&config_map))
        .await
        .map(drop)
        .map_err(IssuerError::Publish)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_key_of_the_secret_signs_is_believed() {
        let secret = new_secret().unwrap();
        let signer = from_secret(&secret, "c").unwrap();
        let claims = Claims {
            cluster: "c".into(),
            namespace: "n".into(),
            pod: "p".into(),
            pod_uid: "u".into(),
            node: "n1".into(),
            service_account: "s".into(),
            key: "k".into(),
            mode: None,
            iat: 100,
            exp: 200,
        };
        let text = signer.sign(&claims).unwrap();
        assert_eq!(assertion::verify(&text, &[signer.issuer().clone()], 150).unwrap(), claims);
        assert_eq!(from_secret(&secret, "c").unwrap().issuer(), signer.issuer());
    }

    #[test]
    fn a_secret_without_a_key_says_what_to_do() {
        let empty = from_secret(&Secret::default(), "c").unwrap_err().to_string();
        assert!(empty.contains("delete it"), "{empty}");
        let data = [(SECRET_KEY.to_owned(), ByteString(b"not a key".to_vec()))].into();
        let wrong = from_secret(&Secret { data: Some(data), ..Secret::default() }, "c").unwrap_err();
        assert!(matches!(wrong, IssuerError::Unusable(_)));
    }

    #[test]
    fn a_signer_never_shows_its_key() {
        let signer = from_secret(&new_secret().unwrap(), "c").unwrap();
        let bytes = format!("{:?}", signer.pkcs8);
        assert!(!format!("{signer:?}").contains(bytes.trim_matches(['[', ']'])));
    }
}
