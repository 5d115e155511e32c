use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::{super::chain::testing::TestCa, *};

/// An API server with a certificate for these names: where it listens, for as long as the task runs.
async fn server(ca: &TestCa, names: &[&str]) -> (SocketAddr, JoinHandle<()>) {
    let key = KeyPair::generate().unwrap();
    let mut params =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &ca.issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let (listener, acceptor) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TlsAcceptor::from(Arc::new(config)));
    let address = listener.local_addr().unwrap();
    let running = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    (address, running)
}

fn names(names: &[&str], addresses: &[[u8; 4]]) -> ServingNames {
    ServingNames {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        addresses: addresses.iter().map(|address| (*address).into()).collect(),
    }
}

#[tokio::test]
async fn the_names_of_all_servers_are_put_together_and_those_of_others_are_not() {
    let (ca, other) = (TestCa::new("kubernetes"), TestCa::new("other"));
    let servers = [
        server(&ca, &["Kubernetes.default.svc", "10.96.0.1", "172.18.0.2"]).await.0,
        server(&ca, &[API_NAME, "*.clusters.example.org", "172.18.0.3"]).await.0,
        server(&other, &[API_NAME, "elsewhere.example.org"]).await.0,
        server(&ca, &["webhook.shop.svc", "10.96.0.9"]).await.0,
    ];
    let found = ask_all(&ca.file, &servers).await.unwrap();
    assert_eq!(found.len(), 2);
    let expected =
        names(&["*.clusters.example.org", API_NAME], &[[10, 96, 0, 1], [172, 18, 0, 2], [172, 18, 0, 3]]);
    assert_eq!(merge(found.values()), expected);
}

#[tokio::test]
async fn a_server_that_does_not_answer_keeps_its_names() {
    let ca = TestCa::new("kubernetes");
    let (there, running_there) = server(&ca, &["first", API_NAME]).await;
    let found = |addresses: &[SocketAddr]| {
        Some(Arc::new(Found { addresses: addresses.to_vec(), ..Found::default() }))
    };
    let addresses = watch::Sender::new(found(&[there]));
    let (published, tell) = (watch::Sender::new(None), Arc::new(Notify::new()));
    let learner = Learner {
        ca: ca.file.clone(),
        addresses: addresses.subscribe(),
        names: published.clone(),
        tell: Arc::clone(&tell),
    };
    let running = tokio::spawn(learner.run());
    tell.notified().await;
    let mut seen = published.subscribe();
    assert_eq!(seen.borrow_and_update().as_deref(), Some(&names(&["first", API_NAME], &[])));
    running_there.abort();
    let _ = running_there.await;
    let (second, _running_second) = server(&ca, &[API_NAME, "second"]).await;
    addresses.send_replace(found(&[there, second]));
    tell.notified().await;
    assert_eq!(seen.borrow_and_update().as_deref(), Some(&names(&["first", API_NAME, "second"], &[])));
    addresses.send_replace(found(&[second]));
    tell.notified().await;
    assert_eq!(
        seen.borrow_and_update().as_deref(),
        Some(&names(&[API_NAME, "second"], &[])),
        "it is no server any more"
    );
    running.abort();
}

#[test]
fn what_no_client_asks_for_is_left_out() {
    let params = |sans: Vec<SanType>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    };
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let odd = params(vec![
        dns("KUBERNETES"),
        dns("kubernetes"),
        dns("*.example.org"),
        dns("*"),
        dns("a.*.example.org"),
        dns("with space"),
        dns("dot."),
        SanType::URI("spiffe://x".try_into().unwrap()),
        SanType::Rfc822Name("a@example.org".try_into().unwrap()),
        SanType::IpAddress([10, 0, 0, 1].into()),
    ]);
    assert_eq!(names_of(&odd), Some(names(&["*.example.org", "kubernetes"], &[[10, 0, 0, 1]])));
}

#[test]
fn of_very_many_names_the_first_are_kept() {
    let many = ServingNames {
        names: (0..500).map(|n| format!("n{n:03}")).collect(),
        addresses: (0..500_u32).map(|n| std::net::IpAddr::from(n.to_be_bytes())).collect(),
    };
    let merged = merge(std::iter::once(&many));
    assert_eq!((merged.names.len(), merged.addresses.len()), (ServingNames::MAX, ServingNames::MAX));
}

proptest! {
    #[test]
    fn any_certificate_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(names_of(&bytes.into()), None);
    }
}
