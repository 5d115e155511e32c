//! Connections that are passed on raw are judged again with every netmap, and end when they may no longer be.

use std::{sync::Arc, time::Duration};

use http::Response;
use podwitness_core::{
    control::Netmap,
    inject::{Inject, UntilNetmap},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{Instant, sleep, timeout},
};

use crate::harness::*;

/// An address that no netmap lists at first.
const OTHER: &str = "192.0.2.9:6443";

/// A pod in which every other address says everything again, until it hears no more.
fn pod_with(setup: impl FnOnce(&mut Setup)) -> Pod {
    serving(setup, |mut far| async move {
        let mut said = [0; 64];
        while let Ok(len @ 1..) = far.read(&mut said).await {
            far.write_all(&said[..len]).await.unwrap();
        }
        let _ = far.write_all(b" bye").await;
    })
}

fn serving<F>(
    setup: impl FnOnce(&mut Setup),
    serve: impl Fn(DuplexStream) -> F + Send + Sync + 'static,
) -> Pod
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut with = Setup::new(Server::new(|_| async { Response::new(full("api")) }));
    with.elsewhere = Some(Arc::new(move |_, far| drop(tokio::spawn(serve(far)))));
    setup(&mut with);
    with.start()
}

fn publish(pod: &Pod, netmap: Netmap) {
    pod.netmap.send_replace(Some(Arc::new(netmap)));
}

fn grants(enforce: bool) -> Netmap {
    Netmap { grants: vec![grant(enforce)].into(), ..Netmap::default() }
}

/// Grants that fail closed, and the address as one of the API server's.
fn known(enforce: bool) -> Netmap {
    Netmap { api_servers: vec![OTHER.parse().unwrap()], ..grants(enforce) }
}

async fn says(raw: &mut DuplexStream, word: &[u8]) {
    raw.write_all(word).await.unwrap();
    let mut answer = vec![0; word.len()];
    raw.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, word);
}

/// A raw connection on which something was said already.
async fn begun(pod: &Pod, word: &[u8]) -> DuplexStream {
    let mut raw = pod.tcp(OTHER);
    says(&mut raw, word).await;
    raw
}

async fn goes_on(raw: &mut DuplexStream) {
    sleep(Duration::from_secs(20)).await;
    says(raw, b"still here").await;
}

/// The connection ends by itself, with what its server has still to say.
async fn ends(pod: &Pod, mut raw: DuplexStream, why: &str) {
    let mut rest = Vec::new();
    timeout(Duration::from_secs(5), raw.read_to_end(&mut rest)).await.expect("an end in time").unwrap();
    assert_eq!(rest, b" bye");
    assert_eq!(pod.metric(&format!("raw_connections_ended_total{{outcome=\"{why}\"}}")), 1);
}

fn suspended(seconds: i64) -> Netmap {
    Netmap { bypass_until: Some(now() + seconds), ..known(true) }
}

#[tokio::test(start_paused = true)]
async fn what_passed_under_a_bypass_ends_when_the_bypass_is_taken_back() {
    let pod = pod_with(|setup| setup.netmap = Some(suspended(3600)));
    let mut raw = begun(&pod, b"hello").await;
    publish(&pod, Netmap { generation: 2, ..suspended(3600) });
    goes_on(&mut raw).await;
    publish(&pod, known(true));
    ends(&pod, raw, "Bypass").await;
}

#[tokio::test(start_paused = true)]
async fn what_passed_under_a_bypass_ends_with_its_time() {
    let pod = pod_with(|setup| {
        setup.clock = VirtualClock::start();
        setup.netmap = Some(suspended(600));
    });
    let mut raw = begun(&pod, b"hello").await;
    goes_on(&mut raw).await;
    sleep(Duration::from_secs(600)).await;
    ends(&pod, raw, "Bypass").await;
}

#[tokio::test(start_paused = true)]
async fn what_stepped_aside_ends_with_a_grant_that_enforces() {
    let mut pod = pod_with(|setup| {
        setup.inject = Inject::Optional;
        setup.netmap = Some(known(false));
    });
    let trusted = std::mem::replace(&mut pod.client_roots, rustls::RootCertStore::empty());
    pod.tls_with(OTHER, "kubernetes", &[]).await.unwrap_err();
    eventually(|| pod.metric("connections_total{outcome=\"Handshake\"}") == 1).await;
    pod.client_roots = trusted;
    // What comes back raw is no handshake: the client's own words.
    let mut raw = pod.tcp(OTHER);
    let hello = hello("kubernetes");
    raw.write_all(&hello).await.unwrap();
    raw.read_exact(&mut vec![0; hello.len()]).await.unwrap();
    eventually(|| pod.metric("connections_total{outcome=\"Distrusted\"}") == 1).await;
    publish(&pod, Netmap { generation: 2, ..known(false) });
    goes_on(&mut raw).await;
    publish(&pod, known(true));
    ends(&pod, raw, "Distrusted").await;
}

#[tokio::test(start_paused = true)]
async fn what_passed_before_the_first_netmap_ends_when_it_says_that_this_is_the_api_server() {
    for (said, why) in [(b"hello".to_vec(), "Foreign"), (hello("example.org"), "Unclear")] {
        let pod = pod_with(|setup| (setup.netmap, setup.until_netmap) = (None, UntilNetmap::Open));
        let raw = begun(&pod, &said).await;
        publish(&pod, known(false));
        ends(&pod, raw, why).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_passed_as_foreign_ends_when_its_address_becomes_the_api_servers() {
    for (said, why) in [(b"hello".to_vec(), "Foreign"), (hello("example.org"), "Unclear")] {
        let pod = pod_with(|setup| setup.netmap = Some(grants(false)));
        let mut raw = begun(&pod, &said).await;
        publish(&pod, Netmap { generation: 2, ..grants(false) });
        goes_on(&mut raw).await;
        publish(&pod, known(false));
        ends(&pod, raw, why).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_passed_because_its_server_is_unknown_ends_with_a_grant_that_enforces() {
    let pod = pod_with(|setup| setup.netmap = Some(grants(false)));
    let raw = begun(&pod, &hello("example.org")).await;
    publish(&pod, grants(true));
    ends(&pod, raw, "Unclear").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_known_to_go_elsewhere_goes_on_whatever_the_grants_say() {
    let pod = pod_with(|setup| setup.netmap = Some(grants(false)));
    let mut raw = begun(&pod, b"hello").await;
    publish(&pod, grants(true));
    goes_on(&mut raw).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_hear_of_the_end_is_left_after_five_seconds() {
    let stubborn = |mut far: DuplexStream| async move {
        while far.write_all(b".").await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let pod = serving(|setup| setup.netmap = Some(grants(true)), stubborn);
    let mut raw = pod.tcp(OTHER);
    raw.read_u8().await.unwrap();
    publish(&pod, known(true));
    let ended = Instant::now();
    raw.read_to_end(&mut Vec::new()).await.unwrap();
    let took = ended.elapsed();
    assert!(took > Duration::from_secs(4) && took <= Duration::from_secs(6), "{took:?}");
}
