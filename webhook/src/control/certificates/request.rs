//! Whether a PKCS#10 request (RFC 2986) is the one that a pod may make.
//!
//! The signer looks at the shape of subject and usages only, and issues whatever names are asked for. So what is not
//! exactly as it has to be is refused here: one subject, one kind of key, one attribute, these names and no others.

use std::{collections::BTreeSet, net::IpAddr};

use podwitness_core::control::{MAX_CERTIFICATE_REQUEST, SERVING_ORGANIZATION, ServingNames};
use thiserror::Error;
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME,
    },
    prelude::FromDer as _,
    x509::{SubjectPublicKeyInfo, X509Name},
};

/// Bytes of an uncompressed point on P-256 (SEC 1 §2.3.3).
const POINT: usize = 65;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum RequestError {
    /// It is too long.
    #[error("the certificate request is longer than {MAX_CERTIFICATE_REQUEST} bytes")]
    TooLong,
    /// It is none.
    #[error("the certificate request is no PKCS#10 in DER")]
    Unread,
    /// It is not signed with its own key.
    #[error("the certificate request is not signed with its own key")]
    Signature,
    /// The key is of another kind.
    #[error("the key of the certificate request is not ECDSA on P-256")]
    Key,
    /// The subject is another.
    #[error("the subject of the certificate request is not O=system:nodes and the common name of the pod")]
    Subject,
    /// It asks for more than names.
    #[error("the certificate request asks for more than subject alternative names")]
    Attributes,
    /// The names are others.
    #[error("the certificate request is not for the names of the netmap; they may have changed")]
    Names,
}

/// Checks a request in DER for the subject with `common_name` and exactly these names.
///
/// # Errors
/// The first thing that is not as it has to be.
pub fn check(der: &[u8], common_name: &str, names: &ServingNames) -> Result<(), RequestError> {
    if der.len() > MAX_CERTIFICATE_REQUEST {
        return Err(RequestError::TooLong);
    }
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Unread)?;
    if !rest.is_empty() {
        return Err(RequestError::Unread);
    }
    let info = &request.certification_request_info;
    if !is_p256(&info.subject_pki) {
        return Err(RequestError::Key);
    }
    request.verify_signature().map_err(|_| RequestError::Signature)?;
    if !is_subject(&info.subject, common_name) {
        return Err(RequestError::Subject);
    }
    let [attribute] = info.attributes() else { return Err(RequestError::Attributes) };
    let ParsedCriAttribute::ExtensionRequest(extensions) = attribute.parsed_attribute() else {
        return Err(RequestError::Attributes);
    };
    let [extension] = extensions.extensions.as_slice() else { return Err(RequestError::Attributes) };
    match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(asked) => same_names(&asked.general_names, names),
        _ => Err(RequestError::Attributes),
    }
}

fn is_p256(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve == OID_EC_P256)
        && key.subject_public_key.data.len() == POINT
}

/// Two relative names with one attribute each, in either order.
fn is_subject(subject: &X509Name<'_>, common_name: &str) -> bool {
    let mut found = Vec::new();
    for relative in subject.iter() {
        let mut attributes = relative.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else { return false };
        let Ok(value) = attribute.as_str() else { return false };
        found.push((attribute.attr_type().clone(), value));
    }
    let organization = (OID_X509_ORGANIZATION_NAME, SERVING_ORGANIZATION);
    let common_name = (OID_X509_COMMON_NAME, common_name);
    found == [organization.clone(), common_name.clone()] || found == [common_name, organization]
}

fn same_names(asked: &[GeneralName<'_>], allowed: &ServingNames) -> Result<(), RequestError> {
    let mut names = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for name in asked {
        let is_new = match name {
            GeneralName::DNSName(name) => names.insert(*name),
            GeneralName::IPAddress(bytes) => addresses.insert(ip(bytes).ok_or(RequestError::Names)?),
            _ => false,
        };
        if !is_new {
            return Err(RequestError::Names);
        }
    }
    let is_same = names.iter().copied().eq(sorted(allowed.names.iter().map(String::as_str)))
        && addresses.iter().copied().eq(sorted(allowed.addresses.iter().copied()));
    if is_same && !allowed.is_empty() { Ok(()) } else { Err(RequestError::Names) }
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    items.collect::<BTreeSet<_>>().into_iter()
}

/// An address as a certificate has it (RFC 5280 §4.2.1.6).
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
pub(super) mod testing {
    use podwitness_core::control::serving_common_name;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    /// The names of a small cluster.
    pub fn names() -> ServingNames {
        ServingNames {
            names: vec!["kubernetes".into(), "kubernetes.default.svc".into()],
            addresses: vec![[10, 96, 0, 1].into()],
        }
    }

    /// The subject that a pod has to ask for.
    pub fn subject(common_name: &str) -> DistinguishedName {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, SERVING_ORGANIZATION);
        subject.push(DnType::CommonName, common_name);
        subject
    }

    /// What a pod with this uid asks for.
    pub fn params(uid: &str, names: &ServingNames) -> CertificateParams {
        let mut params = CertificateParams::new(names.names.clone()).unwrap();
        params.subject_alt_names.extend(names.addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = subject(&serving_common_name(uid));
        params
    }

    /// A request that is as it has to be.
    pub fn request(uid: &str, key: &KeyPair) -> Vec<u8> {
        params(uid, &names()).serialize_request(key).unwrap().der().to_vec()
    }
}

#[cfg(test)]
mod tests;
