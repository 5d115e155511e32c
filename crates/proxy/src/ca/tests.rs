use std::os::unix::fs::PermissionsExt as _;

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::aws_lc_rs::default_provider,
    pki_types::{ServerName, UnixTime},
};

use super::*;
use crate::api_names;

const NOW: i64 = 1_800_000_000;

fn addresses(texts: &[&str]) -> ServerNames {
    texts.iter().map(|text| text.parse::<std::net::IpAddr>().unwrap()).collect()
}

fn ca() -> (PodCa, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (PodCa::load_or_create(dir.path(), &api_names("cluster.local"), NOW).unwrap(), dir)
}

fn verify(ca: &PodCa, leaf: &CertifiedKey, name: &str, now: i64) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap()).unwrap();
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots.into(), default_provider().into()).build().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.unsigned_abs()));
    verifier.verify_server_cert(&leaf.cert[0], &[], &name, &[], now).map(|_| ())
}

#[test]
fn a_leaf_is_good_for_every_name_and_address_of_the_api_server_and_no_other() {
    let (ca, _dir) = ca();
    let mut names = addresses(&["10.96.0.1", "fd00::1"]);
    for name in ["api.example.org", "*.clusters.example.org", "kubernetes", "KUBERNETES.default.svc"] {
        names.add_name(name);
    }
    let leaf = ca.mint(&names, NOW).unwrap();
    for name in ["kubernetes", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"]
    {
        verify(&ca, &leaf, name, NOW).unwrap();
    }
    for name in ["10.96.0.1", "fd00::1", "api.example.org", "one.clusters.example.org"] {
        verify(&ca, &leaf, name, NOW).unwrap();
    }
    for other in ["example.org", "10.96.0.2", "evil.kubernetes", "clusters.example.org"] {
        assert!(verify(&ca, &leaf, other, NOW).is_err(), "{other}");
    }
}

#[test]
fn certificates_are_backdated_and_end() {
    let (ca, _dir) = ca();
    let leaf = ca.mint(&ServerNames::default(), NOW).unwrap();
    verify(&ca, &leaf, "kubernetes", NOW - BACKDATE).unwrap();
    assert!(verify(&ca, &leaf, "kubernetes", NOW - BACKDATE - 1).is_err());
    verify(&ca, &leaf, "kubernetes", NOW + LEAF_LIFE).unwrap();
    assert!(verify(&ca, &leaf, "kubernetes", NOW + LEAF_LIFE + 1).is_err());
}

#[test]
fn a_restart_finds_the_same_ca() {
    let (first, dir) = ca();
    let second = PodCa::load_or_create(dir.path(), &api_names("cluster.local"), NOW + 1000).unwrap();
    assert_eq!(second.certificate_pem(), first.certificate_pem());
    verify(&first, &second.mint(&ServerNames::default(), NOW + 1000).unwrap(), "kubernetes", NOW + 1000)
        .unwrap();
}

#[test]
fn two_pods_have_two_cas() {
    let ((one, _a), (two, _b)) = (ca(), ca());
    assert!(verify(&one, &two.mint(&ServerNames::default(), NOW).unwrap(), "kubernetes", NOW).is_err());
}

#[test]
fn the_key_is_the_owners_alone_and_never_shown() {
    let (ca, dir) = ca();
    let path = dir.path().join(FILE);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!ca.certificate_pem().contains("PRIVATE"));
    assert!(!format!("{ca:?}").contains("PRIVATE"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
}

#[test]
fn a_damaged_ca_is_not_replaced() {
    let (_, dir) = ca();
    let path = dir.path().join(FILE);
    let text = fs::read_to_string(&path).unwrap();
    let (half, _) = text.split_at(text.len() / 2);
    let (_, no_key) = text.split_at(text.find("-----BEGIN CERT").unwrap());
    for damaged in ["", "x", half, no_key] {
        fs::write(&path, damaged).unwrap();
        let error = PodCa::load_or_create(dir.path(), &[], NOW).unwrap_err();
        assert!(matches!(error, CaError::Damaged(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
}
