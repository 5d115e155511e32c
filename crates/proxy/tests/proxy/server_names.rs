//! Leaves bear the names and addresses of the API server's own certificate; API servers of other clusters, which have
//! the same names, pass as they are.

use std::sync::Arc;

use http::Response;
use podwitness_core::control::Netmap;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use crate::harness::*;

/// A name that only the API server's certificate has.
const FQDN: &str = "api.shop.example.org";
/// An address that no netmap lists.
const UNLISTED: &str = "192.0.2.50:6443";

fn api() -> Setup {
    let mut setup = Setup::new(Server::new(|_| async { Response::new(full("api")) }));
    setup.names = &[FQDN, "*.clusters.example.org"];
    setup.also = vec![UNLISTED.parse().unwrap()];
    setup
}

/// What the API server answers through the pod's sidecar.
async fn asked(pod: &Pod, to: &str, name: &str) -> std::io::Result<String> {
    let tls = pod.tls_with(to, name, &[]).await?;
    let io = hyper_util::rt::TokioIo::new(tls);
    let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    Ok(text(client.send_request(get1("/version")).await.unwrap()).await)
}

#[tokio::test(start_paused = true)]
async fn another_name_of_the_api_servers_certificate_works_at_every_address() {
    let listed = Netmap { api_servers: vec![UNLISTED.parse().unwrap()], ..Netmap::default() };
    for netmap in [Some(Netmap::default()), Some(listed), None] {
        let pod = Setup { netmap: netmap.clone(), ..api() }.start();
        for to in [SERVICE, UNLISTED] {
            for name in [FQDN, "one.clusters.example.org", "kubernetes", "10.96.0.1"] {
                assert_eq!(asked(&pod, to, name).await.unwrap(), "api", "{to} {name} {netmap:?}");
            }
        }
        assert_eq!(pod.metric("connections_total{outcome=\"Terminated\"}"), 8);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_the_certificate_does_not_have_is_not_served() {
    let pod = api().start();
    for name in ["example.org", "shop.example.org", "a.b.clusters.example.org"] {
        let error = asked(&pod, SERVICE, name).await.unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{name}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn to_ask_for_names_costs_the_usual_client_nothing() {
    let pod = api().start();
    for name in ["kubernetes", "kubernetes.default.svc", "10.96.0.1"] {
        let _tls = pod.tls_with(SERVICE, name, &[]).await.unwrap();
    }
    assert_eq!(pod.server.connections(), 0);
    for _ in 0..3 {
        let _tls = pod.tls_with(SERVICE, FQDN, &[]).await.unwrap();
    }
    assert_eq!(pod.server.connections(), 2, "two handshakes, once a minute");
}

#[tokio::test(start_paused = true)]
async fn the_certificates_names_are_known_without_a_client() {
    let names = api().start().proxy.server_names().await.unwrap();
    for name in [FQDN, "a.clusters.example.org", "kubernetes.default.svc", "10.96.0.1"] {
        assert!(names.covers(&ServerName::try_from(name).unwrap()), "{name}: {names:?}");
    }
    assert!(Setup { distrust: true, ..api() }.start().proxy.server_names().await.is_none());
}

/// Like kubeadm's, every CA is called the same.
struct Cluster(CertifiedIssuer<'static, KeyPair>);

impl Cluster {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// An API server of this cluster, whose certificate is out of date or not.
    fn server(&self, expired: bool) -> Arc<ServerConfig> {
        let names = ["kubernetes", "kubernetes.default.svc", "localhost", "tenant.shop.svc", "10.96.0.1"];
        let mut params = CertificateParams::new(names.map(ToOwned::to_owned)).unwrap();
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_of_another_cluster_passes_as_it_is_whatever_name_it_is_asked_for() {
    for enforce in [false, true] {
        let (own, other) = (Cluster::new(), Cluster::new());
        let mut setup = api();
        setup.netmap = Some(Netmap { grants: vec![grant(enforce)].into(), ..Netmap::default() });
        setup.trusted = Some(own.roots());
        setup.elsewhere = Some(echoing(other.server(false)));
        let pod = setup.start();
        let config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(other.roots())
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        for (to, name) in [
            ("192.0.2.7:6443", "kubernetes"),
            ("192.0.2.7:6443", "kubernetes.default.svc"),
            ("192.0.2.7:6443", "tenant.shop.svc"),
            ("192.0.2.7:6443", "10.96.0.1"),
            ("127.0.0.1:6443", "localhost"),
            ("[::1]:6443", "kubernetes"),
        ] {
            let server_name = ServerName::try_from(name.to_owned()).unwrap();
            let tls = connector.connect(server_name, pod.tcp(to)).await;
            let mut tls = tls.unwrap_or_else(|error| panic!("{to} {name}: {error}"));
            tls.write_all(b"hello").await.unwrap();
            let mut answer = String::new();
            tls.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "hello", "{to} {name}");
        }
        assert_eq!(pod.metric("connections_total{outcome=\"Foreign\"}"), 6);
    }
}

/// Whether a server is terminated, by what the client is shown.
async fn is_terminated(trusted: &Cluster, server: Arc<ServerConfig>) -> bool {
    let mut setup = api();
    setup.trusted = Some(trusted.roots());
    setup.elsewhere = Some(echoing(server));
    let pod = setup.start();
    let _open = pod.tls_with("192.0.2.7:6443", "kubernetes", &[]).await;
    eventually(|| {
        let outcome = |outcome| pod.metric(&format!("connections_total{{outcome=\"{outcome}\"}}"));
        outcome("Terminated") + outcome("Foreign") == 1
    })
    .await;
    pod.metric("connections_total{outcome=\"Terminated\"}") == 1
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_out_of_date_still_tells_whose_it_is() {
    let (own, other) = (Cluster::new(), Cluster::new());
    assert!(is_terminated(&own, own.server(true)).await);
    assert!(!is_terminated(&own, other.server(true)).await);
}

/// A server that does not answer in time may be a slow API server, if it is asked for by a name of its own.
#[tokio::test(start_paused = true)]
async fn a_silent_server_is_terminated_where_it_is_asked_for_as_the_api_server() {
    let pod = Setup { elsewhere: Some(silent()), ..api() }.start();
    let _tls = pod.tls_with("192.0.2.7:6443", "kubernetes.default.svc", &[]).await.unwrap();
    let mut tcp = pod.tcp("192.0.2.7:6443");
    tcp.write_all(&hello("localhost")).await.unwrap();
    eventually(|| pod.metric("connections_total{outcome=\"Unclear\"}") == 1).await;
    assert_eq!(pod.metric("connections_total{outcome=\"Terminated\"}"), 1);
}
