//! At addresses that are not listed, what answers decides.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::Response;
use podwitness_core::control::{Netmap, Notice};
use podwitness_proxy::{PodCa, api_names};
use rustls::{ClientConfig, crypto::aws_lc_rs::default_provider, pki_types::ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use crate::harness::*;

/// An address that no netmap lists.
const UNLISTED: &str = "192.0.2.50:6443";

fn pod_with(enforce: bool, setup: impl FnOnce(&mut Setup)) -> Pod {
    let mut with = Setup::new(Server::new(|_| async { Response::new(full("api")) }));
    with.netmap = Some(Netmap { grants: vec![grant(enforce)].into(), ..Netmap::default() });
    setup(&mut with);
    with.start()
}

/// A pod beside an API server at an address that is not listed.
fn beside_an_api_server(enforce: bool) -> Pod {
    pod_with(enforce, |setup| setup.also = vec![UNLISTED.parse().unwrap()])
}

fn outcome(pod: &Pod, outcome: &str) -> u64 {
    pod.metric(&format!("connections_total{{outcome=\"{outcome}\"}}"))
}

#[tokio::test(start_paused = true)]
async fn an_api_server_at_an_address_that_is_not_listed_is_terminated() {
    for enforce in [false, true] {
        let pod = beside_an_api_server(enforce);
        let tls = pod.tls_with(UNLISTED, "192.0.2.50", &[]).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(tls);
        let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(text(client.send_request(get1("/version")).await.unwrap()).await, "api");
        assert_eq!((outcome(&pod, "Terminated"), outcome(&pod, "Foreign")), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_is_recognised_whatever_name_it_is_asked_for() {
    let pod = beside_an_api_server(false);
    let error = pod.tls_with(UNLISTED, "example.org", &[]).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    eventually(|| outcome(&pod, "Handshake") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_is_not_tls_is_closed_where_an_api_server_answers() {
    let pod = beside_an_api_server(false);
    for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[21, 3, 1, 0, 2, 1, 90], b""] {
        let mut tcp = pod.tcp(UNLISTED);
        tcp.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer[..6], [21, 3, 3, 0, 2, 2], "{said:?}");
    }
    assert_eq!((outcome(&pod, "Plain"), outcome(&pod, "Silent")), (2, 1));
}

/// A server with a certificate of another CA, which bears the names of an API server; it says what it was told.
fn of_another_ca() -> (Elsewhere, rustls::RootCertStore, Arc<AtomicUsize>) {
    let dir = tempfile::tempdir().unwrap();
    let ca = PodCa::load_or_create(dir.path(), &api_names("cluster.local"), now()).unwrap();
    let (config, asked) = (server_config(&ca, &[], &[]), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&asked);
    let echo = echoing(config);
    let serve: Elsewhere = Arc::new(move |to, far| {
        count.fetch_add(1, Ordering::SeqCst);
        echo(to, far);
    });
    (serve, roots(&ca), asked)
}

#[tokio::test(start_paused = true)]
async fn a_server_with_another_certificate_is_passed_on_raw_and_asked_once() {
    for enforce in [false, true] {
        let (serve, trusted, asked) = of_another_ca();
        let pod = pod_with(enforce, |setup| setup.elsewhere = Some(serve));
        let config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        for _ in 0..3 {
            let name = ServerName::try_from("10.96.0.1").unwrap();
            let mut tls = connector.connect(name, pod.tcp(UNLISTED)).await.unwrap();
            tls.write_all(b"hello").await.unwrap();
            let mut answer = String::new();
            tls.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "hello");
        }
        assert_eq!((outcome(&pod, "Foreign"), asked.load(Ordering::SeqCst)), (3, 2 + 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_passed_on_and_named_or_refused() {
    for (enforce, expected) in [(false, "Unclear"), (true, "Refused")] {
        let mut pod = pod_with(enforce, |setup| setup.elsewhere = Some(silent()));
        let mut tcp = pod.tcp(UNLISTED);
        tcp.write_all(&hello("example.org")).await.unwrap();
        eventually(|| outcome(&pod, expected) == 1).await;
        let noticed = pod.noticed.try_recv().ok();
        assert_eq!(noticed, (!enforce).then(|| Notice::UnknownServer(UNLISTED.parse().unwrap())));
    }
}

#[tokio::test(start_paused = true)]
async fn many_silent_servers_at_once_make_no_server_known() {
    let pod = pod_with(true, |setup| setup.elsewhere = Some(silent()));
    let mut held = Vec::new();
    for port in 7000..7064 {
        let mut tcp = pod.tcp(&format!("192.0.2.50:{port}"));
        tcp.write_all(&hello("example.org")).await.unwrap();
        held.push(tcp);
    }
    eventually(|| outcome(&pod, "Refused") == 64).await;
    assert_eq!(outcome(&pod, "Foreign"), 0);
}
