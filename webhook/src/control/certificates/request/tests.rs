use podwitness_core::control::serving_common_name;
use proptest::prelude::*;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
};

use super::{
    testing::{names, params, request, subject},
    *,
};

const UID: &str = "01234567-89ab-cdef-0123-456789abcdef";

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn der(params: &CertificateParams) -> Vec<u8> {
    params.serialize_request(&key()).unwrap().der().to_vec()
}

fn judged(der: &[u8]) -> Result<(), RequestError> {
    check(der, &serving_common_name(UID), &names())
}

fn altered(alter: impl FnOnce(&mut CertificateParams)) -> Result<(), RequestError> {
    let mut params = params(UID, &names());
    alter(&mut params);
    judged(&der(&params))
}

#[test]
fn the_request_that_a_pod_may_make_passes_in_any_order() {
    assert_eq!(judged(&request(UID, &key())), Ok(()));
    let reversed = altered(|params| {
        params.subject_alt_names.reverse();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, serving_common_name(UID));
        subject.push(DnType::OrganizationName, SERVING_ORGANIZATION);
        params.distinguished_name = subject;
    });
    assert_eq!(reversed, Ok(()));
}

#[test]
fn another_subject_is_refused() {
    let with = |change: fn(&mut DistinguishedName)| altered(|params| change(&mut params.distinguished_name));
    for outcome in [
        altered(|params| params.distinguished_name = subject(&serving_common_name("another-pod"))),
        altered(|params| params.distinguished_name = subject("system:node:worker-1")),
        altered(|params| params.distinguished_name = DistinguishedName::new()),
        with(|subject| subject.push(DnType::OrganizationName, "system:masters")),
        with(|subject| subject.push(DnType::OrganizationalUnitName, "more")),
    ] {
        assert_eq!(outcome, Err(RequestError::Subject));
    }
}

#[test]
fn other_names_are_refused() {
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    for outcome in [
        altered(|params| params.subject_alt_names.push(dns("evil.example.org"))),
        altered(|params| params.subject_alt_names.push(dns("kubernetes"))),
        altered(|params| params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 9].into()))),
        altered(|params| params.subject_alt_names.push(SanType::URI("spiffe://x".try_into().unwrap()))),
        altered(|params| drop(params.subject_alt_names.pop())),
        altered(|params| drop(params.subject_alt_names.remove(0))),
    ] {
        assert_eq!(outcome, Err(RequestError::Names));
    }
    let none = ServingNames::default();
    let nameless = der(&params(UID, &none));
    assert_eq!(check(&nameless, &serving_common_name(UID), &none), Err(RequestError::Attributes));
}

#[test]
fn what_is_more_than_names_is_refused() {
    for outcome in [
        altered(|params| params.is_ca = IsCa::ExplicitNoCa),
        altered(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]),
        altered(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
    ] {
        assert_eq!(outcome, Err(RequestError::Attributes));
    }
}

#[test]
fn other_keys_are_refused() {
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(judged(&request(UID, &key)), Err(RequestError::Key));
    }
}

#[test]
fn what_is_altered_cut_or_too_long_is_refused() {
    let whole = request(UID, &key());
    let mut signed = whole.clone();
    let last = signed.len() - 1;
    signed[last] ^= 1;
    assert_eq!(judged(&signed), Err(RequestError::Signature));
    assert_eq!(judged(&whole[..last]), Err(RequestError::Unread));
    assert_eq!(judged(&[&whole[..], b"x"].concat()), Err(RequestError::Unread));
    assert_eq!(judged(&vec![0; MAX_CERTIFICATE_REQUEST + 1]), Err(RequestError::TooLong));
}

#[test]
fn names_at_their_caps_fit_into_a_request() {
    let long = |n: usize| format!("{n:0>60}.{}.example.org", "a".repeat(60));
    let names = ServingNames {
        names: (0..ServingNames::MAX).map(long).collect(),
        addresses: (0..ServingNames::MAX)
            .map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n as u16]))
            .collect(),
    };
    let der = der(&params(UID, &names));
    assert!(der.len() <= MAX_CERTIFICATE_REQUEST, "{}", der.len());
    assert_eq!(check(&der, &serving_common_name(UID), &names), Ok(()));
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(judged(&bytes).is_err());
    }

    #[test]
    fn a_request_with_any_byte_changed_is_judged_without_panic(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut der = request(UID, &key());
        let at = at.index(der.len());
        der[at] = to;
        let _ = judged(&der);
    }
}
