use std::net::SocketAddr;

use podwitness_core::labels;
use podwitness_runtime::{
    clock::Clock as _,
    clock::SystemClock,
    connection::ConnectionHandle,
    descriptors,
    drain::Signal,
    metrics::SharedRegistry,
    readiness::Readiness,
    tls::resolver::{HotCert, certified_key},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    admit::{testing::pod, world::tests::world},
    certs::Authority,
    control::testing::Api,
};

const NAME: &str = "podwitness-admit.podwitness-system.svc";

fn router(registry: &SharedRegistry) -> axum::Router {
    let world = Arc::new(world("shop", &[(labels::INJECT, "required")], &[]));
    let (events, _) = events::channel(Api::default().client());
    server::router(world, events, registry, Readiness::new())
}

fn review() -> Vec<u8> {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u1", "name": "pod", "namespace": "shop", "operation": "CREATE",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "userInfo": {"username": "ana"}, "object": pod(), "oldObject": null}});
    let body = review.to_string();
    let head = format!(
        "POST /mutate/required HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Sends a review and reads the answer; what the status line says.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<String> {
    stream.write_all(&review()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    stream.read_exact(&mut vec![0; length.unwrap().parse().unwrap()]).await?;
    Ok(head.lines().next().unwrap_or_default().to_owned())
}

struct Server {
    addr: SocketAddr,
    tls: TlsConnector,
    registry: SharedRegistry,
    _signal: Signal,
}

impl Server {
    async fn start(limits: QuotaLimits) -> Self {
        descriptors::raise();
        let now = SystemClock.now_unix();
        let authority = Authority::found(now).unwrap();
        let leaf = authority.issue(&[NAME.to_owned()], now).unwrap();
        let cert = HotCert::new(certified_key(leaf.cert.as_bytes(), leaf.key.as_bytes()).unwrap());
        let config = tls::server_config(Arc::new(cert)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (signal, drain) = Drain::new();
        let registry = SharedRegistry::new();
        let limiter = ConnectionLimiter::new("admission", limits, &registry);
        tokio::spawn(serve(listener, config, router(&registry), limiter, drain));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(
            CertificateDer::pem_slice_iter(authority.bundle().as_bytes()).flatten(),
        );
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { addr, tls: TlsConnector::from(Arc::new(client)), registry, _signal: signal }
    }

    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.addr).await?;
        self.tls.connect(ServerName::try_from(NAME).unwrap(), stream).await
    }
}

#[tokio::test]
async fn the_api_server_is_answered_however_many_others_are_connected() {
    // With as many places as are shipped it would take minutes.
    let server = Server::start(QuotaLimits { total: 64, per_key: 64 }).await;
    let mut kept = server.connect().await.unwrap();
    assert!(ask(&mut kept).await.unwrap().contains("200"));
    let (mut held, review) = (Vec::new(), review());
    for n in 0..200 {
        let mut stream = server.connect().await.unwrap();
        // Nothing, half a head, and a head whose body never comes.
        let said = [&b""[..], b"POST /mut", &review[..200]][n % 3];
        stream.write_all(said).await.unwrap();
        held.push(stream);
        if n % 50 == 0 {
            held.extend([server.connect().await.unwrap()]);
            let _silent = TcpStream::connect(server.addr).await.unwrap();
            let fresh = timeout(Duration::from_secs(5), async {
                let mut stream = server.connect().await?;
                ask(&mut stream).await
            });
            assert!(fresh.await.expect("in time").unwrap().contains("200"), "{n}");
        }
    }
    assert!(ask(&mut kept).await.unwrap().contains("200"), "what it has kept is left to it");
    let metrics = server.registry.encode().unwrap();
    assert!(!metrics.contains("podwitness_connections_evicted_total{listener=\"admission\"} 0"), "{metrics}");
}

/// An API server keeps its connections to a webhook for 90 s of idleness (`net/http.DefaultTransport`), also one that it
/// has opened and not used yet, and a request that crosses the end of one is lost, with what it was for.
#[tokio::test(start_paused = true)]
async fn it_is_the_client_who_ends_an_idle_connection() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (_signal, drain) = Drain::new();
    tokio::spawn(async move {
        let service = TowerToHyperService::new(router(&SharedRegistry::new()));
        serve_connection(server, service, &limits(), &drain, &ConnectionHandle::uncounted()).await
    });
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(91)).await;
        assert!(ask(&mut client).await.unwrap().contains("200"));
    }
}
