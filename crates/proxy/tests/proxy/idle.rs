//! Connections of clients on which nothing is asked end as at the API server, after 90 s.

use std::{sync::Arc, time::Duration};

use http::Response;
use http_body_util::BodyExt as _;
use tokio::{
    io::AsyncReadExt as _,
    sync::Mutex,
    time::{sleep, timeout},
};

use crate::harness::*;

const IDLE: Duration = Duration::from_secs(90);
const MOMENT: Duration = Duration::from_secs(1);

fn answering() -> Pod {
    Pod::start(Server::new(|_| async { Response::new(full("answer")) }))
}

fn ended(pod: &Pod) -> u64 {
    pod.metric("idle_connections_ended_total")
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_after_as_long_as_at_the_api_server_in_both_versions() {
    let pod = answering();
    let (mut first, mut second) = (pod.http1().await, pod.http2().await);
    for _ in 0..3 {
        assert_eq!(text(first.send_request(get1("/version")).await.unwrap()).await, "answer");
        assert_eq!(text(second.send_request(get("/version")).await.unwrap()).await, "answer");
        sleep(IDLE - MOMENT).await;
        assert!(!first.is_closed() && !second.is_closed());
    }
    sleep(2 * MOMENT).await;
    eventually(|| first.is_closed() && second.is_closed()).await;
    assert_eq!(ended(&pod), 2);
    assert_eq!(text(pod.http1().await.send_request(get1("/version")).await.unwrap()).await, "answer");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_asks_or_never_reads_is_ended_too() {
    let pod = answering();
    for alpn in [&[][..], &[&b"h2"[..]]] {
        let mut silent = pod.tls(alpn).await;
        // A client of HTTP/2 is told of the end, and has a few seconds to go.
        let mut rest = Vec::new();
        let end = silent.read_to_end(&mut rest);
        // It may be cut off: the stream ends without a last word.
        let _ = timeout(IDLE + Duration::from_secs(10), end).await.expect("an end in time");
    }
    assert_eq!(ended(&pod), 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_in_use_for_as_long_as_it_lasts() {
    let (feed, body) = fed();
    let body = Arc::new(Mutex::new(Some(body)));
    let pod = Pod::start(Server::new(move |_| {
        let body = Arc::clone(&body);
        async move { Response::new(body.lock().await.take().unwrap_or_else(empty)) }
    }));
    let mut client = pod.http1().await;
    let mut watch = client.send_request(get1("/api/v1/pods?watch=true")).await.unwrap().into_body();
    sleep(100 * IDLE).await;
    feed.send("changed").await.unwrap();
    assert_eq!(watch.frame().await.unwrap().unwrap().into_data().unwrap(), "changed");
    assert_eq!(ended(&pod), 0);
}

/// Clients that leak their connections are as well served as without a sidecar.
#[tokio::test(start_paused = true)]
async fn whoever_leaks_connections_goes_on_being_served() {
    let pod = Setup {
        connections_memory: 16 << 20,
        ..Setup::new(Server::new(|_| async { Response::new(full("answer")) }))
    }
    .start();
    let mut leaked = Vec::new();
    for _ in 0..10 {
        for _ in 0..20 {
            let mut client = pod.http1().await;
            assert_eq!(text(client.send_request(get1("/version")).await.unwrap()).await, "answer");
            leaked.push(client);
        }
        sleep(Duration::from_secs(30)).await;
    }
    assert!(ended(&pod) >= 100, "{}", ended(&pod));
    assert_eq!((pod.metric("memory_evicted_total"), pod.metric("memory_refused_total")), (0, 0));
}
