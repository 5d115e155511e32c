use rcgen::generate_simple_self_signed;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
    sign::CertifiedKey,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::{
    drain::{Drain, Drained, Signal},
    quota::{QuotaLimits, QuotaMetrics},
    tls::{
        resolver::{CertError, HotCert, certified_key},
        server_config,
    },
};

struct Pem {
    chain: String,
    key: String,
}

fn pem() -> Pem {
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Pem { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

fn key(pem: &Pem) -> CertifiedKey {
    certified_key(pem.chain.as_bytes(), pem.key.as_bytes()).unwrap()
}

struct Server {
    addr: SocketAddr,
    cert: Arc<HotCert>,
    signal: Signal,
}

/// An echo server.
async fn serve_echo(cert: HotCert, total: usize) -> Server {
    let cert = Arc::new(cert);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let config = server_config(Arc::clone(&cert) as _).unwrap();
    let (signal, watch) = Drain::new();
    let limiter = ConnectionLimiter::with(QuotaLimits { total, per_key: total }, QuotaMetrics::default());
    tokio::spawn(serve(listener, config, watch, limiter, |stream, _, _| async move {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    }));
    Server { addr, cert, signal }
}

async fn connect(addr: SocketAddr, trusted: &[&Pem]) -> std::io::Result<client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for pem in trusted {
        roots.add(key(pem).cert[0].clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(addr).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

fn presented(stream: &client::TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn echo(stream: &mut client::TlsStream<TcpStream>, word: &[u8]) {
    stream.write_all(word).await.unwrap();
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, word);
}

#[tokio::test]
async fn a_swapped_certificate_is_seen_by_new_connections_and_leaves_live_ones_alone() {
    let (old, new) = (pem(), pem());
    let server = serve_echo(HotCert::new(key(&old)), 8).await;
    let mut live = connect(server.addr, &[&old]).await.unwrap();
    echo(&mut live, b"before").await;
    server.cert.swap(key(&new));
    echo(&mut live, b"after").await;
    let fresh = connect(server.addr, &[&old, &new]).await.unwrap();
    assert_eq!(presented(&live), key(&old).cert[0]);
    assert_eq!(presented(&fresh), key(&new).cert[0]);
    assert!(connect(server.addr, &[&old]).await.is_err());
}

#[tokio::test]
async fn handshakes_fail_until_there_is_a_certificate() {
    let pem = pem();
    let server = serve_echo(HotCert::empty(), 8).await;
    assert!(connect(server.addr, &[&pem]).await.is_err());
    server.cert.swap(key(&pem));
    echo(&mut connect(server.addr, &[&pem]).await.unwrap(), b"now").await;
}

#[tokio::test]
async fn a_live_connection_holds_the_drain() {
    let pem = pem();
    let server = serve_echo(HotCert::new(key(&pem)), 8).await;
    let mut live = connect(server.addr, &[&pem]).await.unwrap();
    echo(&mut live, b"hello").await;
    let watch = server.signal.watch();
    let drained = tokio::spawn(server.signal.drain(Duration::from_secs(60)));
    watch.draining().await;
    echo(&mut live, b"still here").await;
    assert!(!drained.is_finished());
    live.shutdown().await.unwrap();
    drop(live);
    assert_eq!(drained.await.unwrap(), Drained::All);
}

#[tokio::test]
async fn connections_without_a_handshake_and_idle_ones_keep_no_other_waiting() {
    let pem = pem();
    let server = serve_echo(HotCert::new(key(&pem)), 8).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(connect(server.addr, &[&pem]).await.unwrap());
    }
    echo(&mut connect(server.addr, &[&pem]).await.unwrap(), b"served").await;
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (ours, theirs) = (pem(), pem());
    let mixed = certified_key(ours.chain.as_bytes(), theirs.key.as_bytes());
    assert!(matches!(mixed, Err(CertError::Unusable(_))));
    assert!(matches!(certified_key(b"", ours.key.as_bytes()), Err(CertError::Empty)));
    assert!(matches!(certified_key(ours.chain.as_bytes(), b"nothing"), Err(CertError::Key(_))));
}

#[test]
fn a_certificate_is_shown_without_its_key() {
    assert_eq!(format!("{:?}", HotCert::new(key(&pem()))), "HotCert { present: true }");
}
