use std::os::unix::fs::PermissionsExt as _;

use podwitness_core::control::serving_common_name;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer};

use super::*;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

/// The cluster's CA.
struct Cluster {
    issuer: Issuer<'static, KeyPair>,
    roots: RootCertStore,
}

impl Cluster {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
        Self { issuer: Issuer::new(params, key), roots }
    }

    /// What comes of a request for these names, from an hour before now on for a day.
    fn issue(&self, key: &ServingKey, names: &ServingNames) -> CertificateResponse {
        let mut params = CertificateParams::new(names.names.clone()).unwrap();
        params.subject_alt_names.extend(names.addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (not_before, not_after) = (NOW - 3600, NOW - 3600 + DAY);
        let at = |unix: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(unix.unsigned_abs());
        (params.not_before, params.not_after) = (at(not_before), at(not_after));
        let chain = params.signed_by(&key.0, &self.issuer).unwrap().pem();
        CertificateResponse { chain, not_before, not_after }
    }

    fn load(&self, dir: &Path, now: i64) -> ClusterCertificate {
        ClusterCertificate::load(dir, self.roots.clone(), now)
    }
}

fn names() -> ServingNames {
    ServingNames {
        names: vec!["*.clusters.example.org".into(), "kubernetes.default.svc".into()],
        addresses: vec![[10, 96, 0, 1].into()],
    }
}

fn serves(certificate: &ClusterCertificate, name: Option<&str>, to: &str, now: i64) -> bool {
    certificate.serving(&wanted(name, to.parse().unwrap()), now).is_some()
}

/// A certificate that is installed, and where it is kept.
fn installed() -> (Cluster, ClusterCertificate, tempfile::TempDir) {
    let (cluster, dir, key) = (Cluster::new(), tempfile::tempdir().unwrap(), ServingKey::generate().unwrap());
    let certificate = cluster.load(dir.path(), NOW);
    assert_eq!(certificate.certified(NOW), None);
    certificate.install(&key, &names(), cluster.issue(&key, &names()), NOW).unwrap();
    (cluster, certificate, dir)
}

#[test]
fn it_is_served_for_its_names_while_it_lives() {
    let (_cluster, certificate, _dir) = installed();
    for (name, to, expected) in [
        (Some("Kubernetes.default.svc"), "10.0.0.9", true),
        (Some("a.clusters.example.org"), "10.0.0.9", true),
        (None, "10.96.0.1", true),
        (None, "::ffff:10.96.0.1", true),
        (Some("localhost"), "10.96.0.1", false),
        (Some("kubernetes"), "10.96.0.1", false),
        (None, "172.18.0.2", false),
    ] {
        assert_eq!(serves(&certificate, name, to, NOW), expected, "{name:?} at {to}");
    }
    let end = NOW - 3600 + DAY;
    for (now, expected) in [(NOW - 3601, false), (end - MARGIN - 1, true), (end - MARGIN, false)] {
        assert_eq!(serves(&certificate, None, "10.96.0.1", now), expected, "{now}");
        assert_eq!(certificate.certified(now).is_some(), expected, "{now}");
    }
}

#[test]
fn it_outlives_a_restart_and_is_private() {
    let (cluster, certificate, dir) = installed();
    let again = cluster.load(dir.path(), NOW + 60);
    assert_eq!(again.certified(NOW + 60), certificate.certified(NOW));
    let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(cluster.load(dir.path(), NOW + DAY).certified(NOW + DAY), None, "it is over");
    let other = Cluster::new();
    assert_eq!(other.load(dir.path(), NOW).certified(NOW), None, "the cluster has another CA");
    fs::write(dir.path().join(FILE), "half a fi").unwrap();
    assert_eq!(cluster.load(dir.path(), NOW).certified(NOW), None);
}

#[test]
fn what_clients_would_not_trust_does_not_replace_what_they_do() {
    let (cluster, certificate, _dir) = installed();
    let before = certificate.certified(NOW);
    let key = ServingKey::generate().unwrap();
    let of_other_ca = Cluster::new().issue(&key, &names());
    let of_other_key = cluster.issue(&ServingKey::generate().unwrap(), &names());
    let mut cut = cluster.issue(&key, &names());
    cut.chain.truncate(200);
    let none = CertificateResponse { chain: String::new(), not_before: 0, not_after: i64::MAX };
    for response in [of_other_ca, of_other_key, cut, none] {
        assert!(certificate.install(&key, &names(), response, NOW).is_err());
        assert_eq!(certificate.certified(NOW), before);
    }
}

#[test]
fn a_request_has_its_subject_and_names_and_the_key_is_never_shown() {
    let key = ServingKey::generate().unwrap();
    let request = key.request(&serving_common_name("uid"), &names()).unwrap();
    for text in ["system:nodes", "system:node:podwitness-uid", "*.clusters.example.org"] {
        assert!(request.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
    assert!(request.windows(4).any(|window| window == [10, 96, 0, 1]));
    assert_eq!(format!("{key:?}"), "ServingKey");
    let odd = ServingNames { names: vec!["ü".into()], ..names() };
    assert!(key.request("x", &odd).is_err());
}
