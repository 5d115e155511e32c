//! What a Recorder has to be beyond what the API server checks, or has checked only since a later version.

use kube::ResourceExt as _;
use podwitness_crd::Recorder;
use thiserror::Error;

use super::storage;
use crate::{certs, control::issuer};

/// Longest name: a StatefulSet's pods carry it, and a hash, in a label.
const MAX_NAME: usize = 52;

/// Why a Recorder cannot be made.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(super) enum Invalid {
    /// Nobody could get at the recordings.
    #[error(
        "must either enable UI or use S3 storage to ensure recordings are accessible: set enableUI: true, or storage.s3"
    )]
    Inaccessible,
    /// Replicas would not see each other's recordings.
    #[error(
        "must use S3 storage when using multiple replicas to ensure recordings are accessible: set storage.s3, or replicas: 1"
    )]
    Scattered,
    /// The name is none for its objects.
    #[error(
        "{0:?} cannot be the name of a Service and a StatefulSet: at most {MAX_NAME} lower-case letters, digits and hyphens, a letter first"
    )]
    Name(String),
    /// It asks for keys of the installation.
    #[error(
        "the Secret {0} holds keys of the installation itself, which no recorder may have; name one of your own"
    )]
    SecretOfOurs(String),
}

/// Looks a Recorder over.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn check(recorder: &Recorder) -> Result<(), Invalid> {
    let spec = &recorder.spec;
    let name = recorder.name_any();
    if !is_name(&name) {
        return Err(Invalid::Name(name));
    }
    if spec.replicas > 1 && spec.storage.s3.is_none() {
        return Err(Invalid::Scattered);
    }
    if !spec.enable_ui && spec.storage.s3.is_none() {
        return Err(Invalid::Inaccessible);
    }
    if let Some(s3) = &spec.storage.s3 {
        let ca = s3.ca.as_ref().and_then(|ca| ca.secret.as_ref()).map(|secret| secret.name.as_str());
        for name in [storage::credentials(s3), ca].into_iter().flatten() {
            if [certs::AUTHORITY_SECRET, certs::ADMIT.secret, certs::CONTROL.secret, issuer::SECRET]
                .contains(&name)
            {
                return Err(Invalid::SecretOfOurs(name.to_owned()));
            }
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= MAX_NAME
        && name.bytes().all(inner)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(name: &str, spec: &Value) -> Result<(), Invalid> {
        let object = json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder",
            "metadata": {"name": name}, "spec": spec});
        check(&serde_json::from_value(object).unwrap())
    }

    fn bucket(more: &Value) -> Value {
        let mut s3 = json!({"endpoint": "e", "bucket": "b"});
        s3.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"storage": {"s3": s3}})
    }

    #[test]
    fn recordings_have_to_be_accessible() {
        assert_eq!(checked("r", &json!({})), Err(Invalid::Inaccessible));
        assert_eq!(checked("r", &json!({"enableUI": true})), Ok(()));
        assert_eq!(checked("r", &bucket(&json!({}))), Ok(()));
        assert_eq!(checked("r", &json!({"enableUI": true, "replicas": 2})), Err(Invalid::Scattered));
        assert_eq!(checked("r", &json!({"enableUI": true, "replicas": 0})), Ok(()));
    }

    #[test]
    fn a_name_is_also_that_of_a_service() {
        for name in ["a", "a-1", &"a".repeat(52)] {
            assert_eq!(checked(name, &bucket(&json!({}))), Ok(()), "{name}");
        }
        for name in ["1a", "a-", "a.b", &"a".repeat(53)] {
            assert_eq!(checked(name, &bucket(&json!({}))), Err(Invalid::Name(name.into())));
        }
    }

    #[test]
    fn no_recorder_gets_keys_of_the_installation() {
        for name in ["podwitness-ca", "podwitness-issuer", "podwitness-admit-tls", "podwitness-control-tls"] {
            for spec in [
                json!({"credentials": {"secret": {"name": name}}}),
                json!({"ca": {"secret": {"name": name}}}),
            ] {
                assert_eq!(checked("r", &bucket(&spec)), Err(Invalid::SecretOfOurs(name.into())));
            }
        }
        assert_eq!(checked("r", &bucket(&json!({"credentials": {"secret": {"name": "bucket"}}}))), Ok(()));
    }
}
