//! Which certificate a client is shown where the pod has one of the cluster's CA.

use http::Response;
use podwitness_proxy::ClusterCertificate;
use podwitness_runtime::clock::{Clock as _, SystemClock};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::RootCertStore;

use crate::harness::*;

/// The cluster's CA, and what an earlier start has left: a certificate of it for one name and one address.
fn certified() -> (RootCertStore, ClusterCertificate) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut roots = RootCertStore::empty();
    roots.add(ca.self_signed(&ca_key).unwrap().der().clone()).unwrap();
    let mut params = CertificateParams::new(["kubernetes.default.svc".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::IpAddress([10, 96, 0, 1].into()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let chain = params.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap().pem();
    let kept = serde_json::json!({
        "key": key.serialize_pem(),
        "names": {"names": ["kubernetes.default.svc"], "addresses": ["10.96.0.1"]},
        "certificate": {"chain": chain, "notBefore": 0, "notAfter": i64::MAX},
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cluster-certificate.json"), kept.to_string()).unwrap();
    let certificate = ClusterCertificate::load(dir.path(), roots.clone(), SystemClock.now_unix());
    assert!(certificate.certified(SystemClock.now_unix()).is_some());
    (roots, certificate)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_knows_only_the_clusters_ca_gets_through_and_others_as_before() {
    let (roots, certificate) = certified();
    let mut setup = Setup::new(Server::new(|_| async { Response::new(full("api")) }));
    setup.certificate = certificate.into();
    let mut pod = setup.start();
    let mut open = Vec::new();
    // What the cluster's certificate does not bear is served by the in-pod CA.
    for (to, name) in
        [(SERVICE, "kubernetes"), ("127.0.0.1:15443", "localhost"), ("127.0.0.1:15443", "127.0.0.1")]
    {
        open.push(pod.tls_with(to, name, &[]).await.unwrap());
    }
    pod.client_roots = roots;
    for (to, name) in [
        (SERVICE, "kubernetes.default.svc"),
        (SERVICE, "10.96.0.1"),
        ("127.0.0.1:15443", "kubernetes.default.svc"),
    ] {
        let tls = pod.tls_with(to, name, &[]).await;
        open.push(tls.unwrap_or_else(|error| panic!("{to} {name}: {error}")));
    }
    assert!(pod.tls_with(SERVICE, "kubernetes", &[]).await.is_err());
}
