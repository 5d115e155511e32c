use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension, oid_registry as oid};

use super::*;
use crate::certs::testing::accepts;

const NOW: i64 = 1_800_000_000;

fn names() -> Vec<String> {
    vec!["svc.ns.svc".to_owned(), "svc".to_owned()]
}

fn extensions<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    parsed(pem, "test", read).unwrap()
}

fn has(cert: &X509Certificate<'_>, oid: &oid::Oid<'_>, critical: bool) -> bool {
    cert.extensions().iter().any(|extension| extension.oid == *oid && extension.critical == critical)
}

#[test]
fn every_certificate_carries_what_strict_verifiers_ask_for() {
    let root = root(NOW).unwrap();
    let intermediate = intermediate(&root, NOW).unwrap();
    let leaf = leaf(&intermediate, &names(), NOW).unwrap();
    for authority in [&root.cert, &intermediate.cert] {
        extensions(authority, |cert| {
            assert!(has(cert, &oid::OID_X509_EXT_BASIC_CONSTRAINTS, true), "{cert:?}");
            assert!(has(cert, &oid::OID_X509_EXT_KEY_USAGE, true), "{cert:?}");
            assert!(has(cert, &oid::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER, false), "{cert:?}");
            assert!(has(cert, &oid::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, false), "{cert:?}");
        });
    }
    extensions(&leaf.cert, |cert| {
        assert!(has(cert, &oid::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, false));
        assert!(has(cert, &oid::OID_X509_EXT_KEY_USAGE, true));
        assert!(cert.extended_key_usage().unwrap().unwrap().value.server_auth);
        assert!(!cert.basic_constraints().unwrap().unwrap().value.ca);
    });
}

#[test]
fn an_authority_key_identifier_is_its_issuers_subject_key_identifier() {
    let root = root(NOW).unwrap();
    let intermediate = intermediate(&root, NOW).unwrap();
    let subject = extensions(&root.cert, |cert| {
        cert.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
    });
    let authority = extensions(&intermediate.cert, |cert| {
        cert.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        })
    });
    assert!(subject.is_some());
    assert_eq!(subject, authority);
}

#[test]
fn a_chain_is_accepted_for_its_names_and_within_its_life_only() {
    let root = root(NOW).unwrap();
    let intermediate = intermediate(&root, NOW).unwrap();
    let chain = format!("{}{}", leaf(&intermediate, &names(), NOW).unwrap().cert, intermediate.cert);
    accepts(&root.cert, &chain, "svc.ns.svc", NOW).unwrap();
    accepts(&root.cert, &chain, "svc", NOW - 200).unwrap();
    assert!(accepts(&root.cert, &chain, "other.ns.svc", NOW).is_err());
    assert!(accepts(&root.cert, &chain, "svc", NOW + LEAF_LIFE + 1).is_err());
    assert!(accepts(&root.cert, &chain, "svc", NOW - BACKDATE - 1).is_err());
    let stranger = super::root(NOW).unwrap();
    assert!(accepts(&stranger.cert, &chain, "svc", NOW).is_err());
}

#[test]
fn a_leaf_fits_its_issuer_and_its_names() {
    let root = root(NOW).unwrap();
    let (ours, theirs) = (intermediate(&root, NOW).unwrap(), intermediate(&root, NOW).unwrap());
    let leaf = leaf(&ours, &names(), NOW).unwrap();
    assert!(fits(&leaf.cert, &ours.cert, &names()).unwrap());
    assert!(!fits(&leaf.cert, &theirs.cert, &names()).unwrap());
    assert!(!fits(&leaf.cert, &ours.cert, &["svc".to_owned()]).unwrap());
    assert!(fits("nothing", &ours.cert, &names()).is_err());
}

#[test]
fn two_thirds_of_a_life_are_due() {
    let life = Validity { from: 0, until: 300 };
    assert!(!life.due(199) && life.due(200));
    const { assert!(LEAF_LIFE * 3 < INTERMEDIATE_LIFE, "a leaf must not outlive its issuer") };
}
