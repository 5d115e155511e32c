//! Where a recorder keeps recordings, and what its acknowledgements can promise for that.

use std::collections::BTreeMap;

use podwitness_core::grant::AckLevel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Verbatim;

/// Where recordings lie.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Storage {
    /// A bucket, to which recordings go from the replica's disk. All replicas share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// The replica's disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
}

/// The replica's disk: an emptyDir, which ends with the pod, or a claim, which outlives it.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filesystem {
    /// An emptyDir other than the default one: `medium`, `sizeLimit`. The limit is `10Gi` unless it says otherwise or is
    /// in memory; the recorder refuses before it reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<Verbatim>,
    /// A claim for each replica, `recordings-NAME-N`. It cannot be changed later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_claim_template: Option<ClaimTemplate>,
    /// What becomes of the claims when the Recorder is deleted.
    #[serde(skip_serializing_if = "is_retain")]
    pub when_deleted: Retention,
}

/// A claim, as in a StatefulSet's `volumeClaimTemplates`.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimTemplate {
    /// Labels and annotations of the claims.
    #[serde(skip_serializing_if = "ClaimMetadata::is_default")]
    pub metadata: ClaimMetadata,
    /// A `PersistentVolumeClaimSpec`: `resources`, `storageClassName` and so on; `accessModes` is `[ReadWriteOnce]`
    /// unless it says otherwise.
    pub spec: Verbatim,
}

/// Labels and annotations of claims.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimMetadata {
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What becomes of something whose owner goes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Retention {
    /// It stays.
    #[default]
    Retain,
    /// It goes, too.
    Delete,
}

/// A bucket.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// Host of the service, such as `s3.us-east-1.amazonaws.com`.
    pub endpoint: String,
    /// Name of the bucket. Nothing else should be in it, or everything under a `prefix`.
    pub bucket: String,
    /// The region that requests are signed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What the names of objects begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Whether the bucket stands in the path of a URL instead of its host, as most services other than AWS want it; by
    /// default it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// What requests are signed with; by default the identity that the platform gives the pod.
    #[serde(default, skip_serializing_if = "Credentials::is_default")]
    pub credentials: Credentials,
    /// Certificate authorities to believe, for a service whose certificate is none of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSource>,
    /// Encryption that the service is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sse: Option<Encryption>,
    /// The key for `aws:kms`; without it the bucket's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// What is acknowledged: by default what the replica's disk survives, `volume` with a claim and `process` without;
    /// `object` acknowledges what is in the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckLevel>,
}

/// What requests to a bucket are signed with.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Credentials {
    /// A Secret of the system namespace, with the keys `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, where there is
    /// one, `AWS_SESSION_TOKEN`.
    pub secret: SecretReference,
}

/// A Secret of the system namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretReference {
    /// Its name.
    pub name: String,
}

/// Where certificate authorities stand, in PEM; one of both.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CaSource {
    /// A ConfigMap of the system namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KeyReference>,
    /// A Secret of the system namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<KeyReference>,
}

/// A key of a ConfigMap or Secret.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyReference {
    /// Name of the object.
    pub name: String,
    /// The key.
    #[serde(default = "ca_key")]
    pub key: String,
}

/// Encryption on the side of the service.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Encryption {
    /// With keys of the service.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of its key management.
    #[serde(rename = "aws:kms")]
    Kms,
}

impl Storage {
    /// What acknowledgements survive.
    #[must_use]
    pub fn ack(&self) -> AckLevel {
        let chosen = self.s3.as_ref().and_then(|s3| s3.ack);
        let of_disk = if self.claim().is_some() { AckLevel::Volume } else { AckLevel::Process };
        chosen.unwrap_or(of_disk)
    }

    /// The claim of each replica.
    #[must_use]
    pub fn claim(&self) -> Option<&ClaimTemplate> {
        self.filesystem.as_ref()?.volume_claim_template.as_ref()
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl ClaimMetadata {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Credentials {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Encryption {
    /// As the service calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::Kms => "aws:kms",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_retain(retention: &Retention) -> bool {
    *retention == Retention::Retain
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}
