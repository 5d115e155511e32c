//! Secrets as agreement between replicas: created if absent, replaced only in the version that was read.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

use super::CertsError;

/// Entries of a Secret, as text.
pub(super) type Entries = BTreeMap<String, String>;

/// A Secret that was read.
pub(super) struct Found {
    pub(super) entries: Entries,
    version: Option<String>,
}

/// What became of an attempt to write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Written {
    /// It is stored.
    Stored,
    /// Somebody else was first; read again.
    Conflict,
}

/// Reads a Secret; entries that are not UTF-8 are left out.
pub(super) async fn read(secrets: &Api<Secret>, name: &str) -> Result<Option<Found>, CertsError> {
    let found = secrets.get_opt(name).await.map_err(CertsError::api("read Secret", name))?;
    Ok(found.map(|secret| Found { entries: entries(&secret), version: secret.metadata.resource_version }))
}

/// The entries of a Secret that are text.
pub(super) fn entries(secret: &Secret) -> Entries {
    let text = |(name, bytes): (&String, &ByteString)| {
        Some((name.clone(), String::from_utf8(bytes.0.clone()).ok()?))
    };
    secret.data.iter().flatten().filter_map(text).collect()
}

/// Creates the Secret, or replaces it in the version that was `found`.
pub(super) async fn write(
    secrets: &Api<Secret>,
    name: &str,
    kind: &str,
    entries: Entries,
    found: Option<&Found>,
) -> Result<Written, CertsError> {
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: found.and_then(|found| found.version.clone()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "podwitness".to_owned())])),
            ..ObjectMeta::default()
        },
        type_: Some(kind.to_owned()),
        data: Some(entries.into_iter().map(|(name, text)| (name, ByteString(text.into_bytes()))).collect()),
        ..Secret::default()
    };
    let params = PostParams::default();
    let result = match found {
        Some(_) => secrets.replace(name, &params, &secret).await,
        None => secrets.create(&params, &secret).await,
    };
    match result {
        Ok(_) => Ok(Written::Stored),
        // 409: it exists, or has changed; 404: it was deleted meanwhile.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Written::Conflict),
        Err(error) => Err(CertsError::api("write Secret", name)(error)),
    }
}
