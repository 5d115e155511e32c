//! What is terminated, what is passed on raw, what is closed.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::Response;
use podwitness_core::{
    control::{Netmap, Notice},
    inject::UntilNetmap,
};
use proptest::prelude::*;
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsConnector;

use crate::harness::*;

type Seen = Arc<Mutex<Vec<SocketAddr>>>;

/// A pod in which every other address answers with what it is told.
fn pod_with(setup: impl FnOnce(&mut Setup)) -> (Pod, Seen) {
    let seen = Seen::default();
    let seen_too = Arc::clone(&seen);
    let mut with = Setup::new(Server::new(|_| async { Response::new(full("api")) }));
    with.elsewhere = Some(Arc::new(move |to, mut far: DuplexStream| {
        seen_too.lock().unwrap().push(to);
        tokio::spawn(async move {
            let mut word = [0; 5];
            far.read_exact(&mut word).await.unwrap();
            far.write_all(&word).await.unwrap();
        });
    }));
    setup(&mut with);
    (with.start(), seen)
}

/// Whether what is said comes back from the far end of a raw connection.
async fn echoes(pod: &Pod, to: &str, word: &[u8; 5]) -> bool {
    let mut tcp = pod.tcp(to);
    tcp.write_all(word).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    answer == word
}

/// Begins like a ClientHello, and is none.
const TLS_LIKE: &[u8; 5] = &[0x16, 2, 0, 0, 0];

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_the_api_server_by_name_or_address_gets_a_leaf_for_it() {
    let (pod, seen) = pod_with(|setup| setup.also = vec!["192.0.2.7:6443".parse().unwrap()]);
    let mut open = Vec::new();
    for (to, name) in [
        (SERVICE, "kubernetes"),
        (SERVICE, "kubernetes.default.svc.cluster.local"),
        (SERVICE, "10.96.0.1"),
        ("127.0.0.1:15443", "localhost"),
        ("127.0.0.1:15443", "127.0.0.1"),
        ("192.0.2.7:6443", "kubernetes.default"),
    ] {
        let tls = pod.tls_with(to, name, &[]).await;
        open.push(tls.unwrap_or_else(|error| panic!("{to} {name}: {error}")));
    }
    assert!(seen.lock().unwrap().is_empty());
    eventually(|| pod.metric("connections_total{outcome=\"Terminated\"}") == 6).await;
}

#[tokio::test(start_paused = true)]
async fn a_strange_name_for_a_known_address_is_terminated_under_the_address() {
    let (pod, seen) = pod_with(|_| ());
    let error = pod.tls_with(SERVICE, "example.org", &[]).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    eventually(|| pod.metric("connections_total{outcome=\"Handshake\"}") == 1).await;
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_none_of_ours_is_passed_on_raw_with_all_it_said() {
    let (pod, seen) = pod_with(|_| ());
    let other = "192.0.2.7:6443";
    assert!(echoes(&pod, other, b"hello").await);
    assert!(echoes(&pod, other, TLS_LIKE).await);
    // Before the first it was asked for its certificate, by two handshakes.
    assert_eq!(*seen.lock().unwrap(), [other.parse().unwrap(); 4]);
    assert_eq!(pod.metric("connections_total{outcome=\"Foreign\"}"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_first_is_waited_for_where_it_is_none_of_ours() {
    let greeting: Arc<dyn Fn(SocketAddr, DuplexStream) + Send + Sync> = Arc::new(|_, mut far| {
        tokio::spawn(async move { far.write_all(b"220 hi").await });
    });
    let (pod, _) = pod_with(|setup| setup.elsewhere = Some(greeting));
    let mut answer = String::new();
    pod.tcp("192.0.2.7:6443").read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "220 hi");
}

/// A name of the API server.
const NAME: &str = "kubernetes.default.svc";

/// A warning that some servers pass over: user_canceled.
const WARNING: [u8; 7] = [21, 3, 1, 0, 2, 1, 90];

fn with_version(major: u8) -> Vec<u8> {
    let mut hello = hello(NAME);
    hello[1] = major;
    hello
}

/// What an API server's port might understand, and a detector might not.
fn no_hellos() -> Vec<(&'static str, Vec<u8>, u8)> {
    vec![
        ("a warning first", [&WARNING[..], &hello(NAME)].concat(), 10),
        ("record version 2.x", with_version(2), 70),
        ("record version 4.x", with_version(4), 70),
        ("an empty record first", [&[22, 3, 1, 0, 0][..], &hello(NAME)].concat(), 10),
        ("half a hello", hello(NAME)[..60].to_vec(), 40),
        ("one byte", vec![22], 40),
        ("nothing", vec![], 40),
        ("HTTP/1", b"GET /version HTTP/1.1\r\n\r\n".to_vec(), 10),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 10),
        ("SSLv2", vec![0x80, 46, 1, 3, 1, 0, 33, 0, 0, 0, 16], 10),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), 10),
    ]
}

/// What comes back, until the other end says that it is over.
async fn answer_to(pod: &Pod, to: &str, said: &[u8]) -> Vec<u8> {
    let mut tcp = pod.tcp(to);
    tcp.write_all(said).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test(start_paused = true)]
async fn at_an_address_of_the_api_server_whatever_is_not_tls_is_closed_with_an_alert() {
    let open = Netmap { grants: vec![grant(false)].into(), ..closed() };
    for (netmap, to) in [
        (Some(open.clone()), SERVICE),
        (Some(open), "192.0.2.9:6443"),
        (Some(closed()), "192.0.2.9:6443"),
        (Some(Netmap::default()), SERVICE),
        (None, SERVICE),
    ] {
        let (pod, seen) = pod_with(|setup| setup.netmap = netmap.clone());
        for (what, said, alert) in no_hellos() {
            let answer = answer_to(&pod, to, &said).await;
            assert_eq!(answer, [21, 3, 3, 0, 2, 2, alert], "{what} {netmap:?}");
        }
        assert!(seen.lock().unwrap().is_empty() && pod.server.connections() == 0);
        assert_eq!(pod.metric("connections_total{outcome=\"Silent\"}"), 1);
        assert_eq!(pod.metric("connections_total{outcome=\"Plain\"}"), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_said_its_last_still_hears_why_it_is_closed() {
    let (pod, _) = pod_with(|_| ());
    let mut tcp = pod.tcp(SERVICE);
    tcp.write_all(&hello(NAME)[..60]).await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 40]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Wherever a hello is cut and however it was changed: at an address of the API server it is served as TLS, or
    /// closed with an alert, and nothing of it goes anywhere.
    #[test]
    fn no_hello_goes_past_on_its_way_to_the_api_server(
        changes in prop::collection::vec((any::<usize>(), any::<u8>(), 0u8..4), 0..5),
        cut in any::<Option<usize>>(),
        split in any::<usize>(),
    ) {
        let mut said = hello(NAME);
        for (at, byte, how) in changes {
            // The heads of record and message are where a detector can be deceived.
            let at = if how % 2 == 0 { at % said.len() } else { at % 16.min(said.len()) };
            match how {
                0 | 1 => said[at] = byte,
                2 => said.insert(at, byte),
                _ => drop(said.remove(at)),
            }
        }
        said.truncate(cut.map_or(usize::MAX, |cut| cut % (said.len() + 1)));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        let (answer, seen, passed) = runtime.block_on(async {
            let (pod, seen) = pod_with(|setup| setup.netmap = Some(Netmap::default()));
            let mut tcp = pod.tcp(SERVICE);
            let (first, second) = said.split_at(split % (said.len() + 1));
            tcp.write_all(first).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            // It may have been closed by then.
            let _ = tcp.write_all(second).await;
            let answer = tcp.read_u8().await.ok();
            // A server that is asked for by another name is asked for its certificate, which is no connection of the client's.
            let passed = ["Foreign", "Unclear", "Distrusted", "Bypass"]
                .map(|why| pod.metric(&format!("connections_total{{outcome=\"{why}\"}}")));
            (answer, seen.lock().unwrap().len(), passed)
        });
        prop_assert!(matches!(answer, Some(21 | 22)), "{answer:?}");
        prop_assert_eq!((seen, passed), (0, [0; 4]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_to_the_proxy_itself_never_loops() {
    let (pod, seen) = pod_with(|_| ());
    let tls = pod.tls_with("127.0.0.1:15443", "localhost", &[]).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(tls);
    let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(text(client.send_request(get1("/version")).await.unwrap()).await, "api");
    assert_eq!(pod.server.connections(), 1, "the Service was dialled");
    assert!(seen.lock().unwrap().is_empty());
}

fn closed() -> Netmap {
    Netmap {
        grants: vec![grant(true)].into(),
        api_servers: vec!["192.0.2.9:6443".parse().unwrap()],
        ..Netmap::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_tls_goes_elsewhere_where_that_can_be_no_api_server() {
    for (netmap, until, to, passes) in [
        (Some(closed()), UntilNetmap::Open, "192.0.2.7:6443", true),
        (None, UntilNetmap::Open, "192.0.2.7:6443", true),
        (None, UntilNetmap::Closed, "192.0.2.7:6443", false),
    ] {
        let (pod, seen) = pod_with(|setup| {
            setup.netmap = netmap.clone();
            setup.until_netmap = until;
        });
        assert_eq!(echoes(&pod, to, b"hello").await, passes, "{netmap:?} {to}");
        assert_eq!(seen.lock().unwrap().len(), 2 + usize::from(passes), "with what it was asked");
        assert_eq!(pod.metric("connections_total{outcome=\"Refused\"}"), u64::from(!passes));
    }
}

#[tokio::test(start_paused = true)]
async fn while_recording_is_suspended_everything_is_passed_on_raw() {
    let until = |seconds| Some(Netmap { bypass_until: Some(now() + seconds), ..closed() });
    let (pod, seen) = pod_with(|setup| setup.netmap = until(3600));
    assert!(echoes(&pod, "192.0.2.9:6443", b"hello").await);
    assert_eq!(seen.lock().unwrap().len(), 1);
    assert_eq!(pod.metric("connections_total{outcome=\"Bypass\"}"), 1);
    pod.netmap.send_replace(until(-1).map(Arc::new));
    assert!(!echoes(&pod, "192.0.2.9:6443", b"hello").await);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_the_netmap_adds_gets_its_leaf_at_once() {
    let (pod, _) = pod_with(|_| ());
    pod.tls(&[]).await;
    pod.netmap.send_replace(Some(Arc::new(closed())));
    pod.tls_with("192.0.2.9:6443", "192.0.2.9", &[]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_certificate_is_answered_with_the_way_out() {
    let (mut pod, _) = pod_with(|_| ());
    let key = rcgen::generate_simple_self_signed(["ana".to_owned()]).unwrap();
    let der = PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let config = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(pod.client_roots.clone())
        .with_client_auth_cert(vec![key.cert.der().clone()], der)
        .unwrap();
    let name = ServerName::try_from("kubernetes").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, pod.tcp(SERVICE)).await.unwrap();
    tls.write_all(b"GET /version HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("use a token"), "{answer}");
    // kubectl prints the one, and quotes what is text.
    assert!(answer.contains("Warning: 299 - \"podwitness: ") && answer.contains("text/plain"), "{answer}");
    assert_eq!(pod.noticed.try_recv(), Ok(Notice::ClientCertificate));
    assert_eq!(pod.server.connections(), 0);
}
