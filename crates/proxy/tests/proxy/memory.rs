//! What clients make the proxy hold stays within its budget, and who behaves is served beside them.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, client::conn::http1};
use podwitness_runtime::{
    connection::ConnectionLimiter,
    quota::{QuotaLimits, QuotaMetrics},
};
use tokio::io::AsyncWriteExt as _;

use crate::harness::*;

const BUDGET: u64 = 8 << 20;

async fn answer(request: Request<Incoming>) -> Response<TestBody> {
    let large = request.uri().path().ends_with("/large");
    Response::new(if large { full(Bytes::from(vec![b'x'; 1 << 20])) } else { empty() })
}

/// A connection that has sent this; `None` where it is refused, or ended meanwhile.
async fn sends(pod: &Pod, bytes: &[u8]) -> Option<Tls> {
    let mut tls = pod.tls_with(SERVICE, "kubernetes.default.svc", &[]).await.ok()?;
    tls.write_all(bytes).await.ok()?;
    tls.flush().await.ok()?;
    Some(tls)
}

/// Until what waits for its client counts as idle, and what waits for memory has given up.
async fn settled() {
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
}

fn pod() -> Pod {
    let server = Server::new(answer);
    let mut pod = Setup { connections_memory: BUDGET, ..Setup::new(server) }.start();
    let limits = QuotaLimits { total: 1024, per_key: 1024 };
    pod.limiter = Some(ConnectionLimiter::with(limits, QuotaMetrics::default()));
    pod
}

/// Asks as a client of Kubernetes does: again, where it is told to.
async fn is_served(pod: &Pod) {
    for _ in 0..10 {
        let answer = pod.http1().await.send_request(get1("/version")).await.unwrap();
        assert!(pod.metric("memory_bytes") <= BUDGET);
        if answer.status() == StatusCode::OK {
            return;
        }
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "1");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    panic!("never served");
}

#[tokio::test(start_paused = true)]
async fn three_hundred_half_sent_heads_stay_within_the_budget() {
    let pod = pod();
    let (mut held, mut most) = (Vec::new(), 0);
    for _ in 0..300 {
        let mut tls = pod.tls(&[]).await;
        tls.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nx-long: ").await.unwrap();
        // One that is ended for another says so here.
        drop(tls.write_all(&[b'a'; 90_000]).await);
        drop(tls.flush().await);
        tokio::task::yield_now().await;
        most = most.max(pod.metric("memory_bytes"));
        held.push(tls);
    }
    assert!((BUDGET / 2..=BUDGET).contains(&most), "{most}");
    assert!(pod.metric("memory_evicted_total") > 200);
    is_served(&pod).await;
}

#[tokio::test(start_paused = true)]
async fn three_hundred_half_sent_blocks_of_headers_stay_within_the_budget() {
    let pod = pod();
    let (mut held, mut most) = (Vec::new(), 0);
    for _ in 0..300 {
        let mut tls = pod.tls(&[b"h2"]).await;
        let headers = [&[0, 0x40, 0, 1, 0, 0, 0, 0, 1][..], &[0x82; 0x4000]].concat();
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let all = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &headers].concat();
        drop(tls.write_all(&all).await);
        drop(tls.flush().await);
        tokio::task::yield_now().await;
        most = most.max(pod.metric("memory_bytes"));
        held.push(tls);
    }
    assert!((BUDGET / 2..=BUDGET).contains(&most), "{most}");
    is_served(&pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_unread_answers_stay_within_the_budget() {
    let pod = pod();
    let mut unread = Vec::new();
    for _ in 0..200 {
        let ask = b"GET /large HTTP/1.1\r\nhost: 10.96.0.1\r\nauthorization: Bearer t\r\n\r\n";
        unread.push(sends(&pod, ask).await);
        assert!(pod.metric("memory_bytes") <= BUDGET);
    }
    assert!(pod.metric("memory_bytes") > BUDGET / 2);
    let mut streams = Vec::new();
    for _ in 0..8 {
        settled().await;
        let client = pod.http2().await;
        for _ in 0..100 {
            streams.push(tokio::spawn(client.clone().send_request(get("/large"))));
        }
        tokio::task::yield_now().await;
        assert!(pod.metric("memory_bytes") <= BUDGET);
    }
    settled().await;
    is_served(&pod).await;
}

#[tokio::test(start_paused = true)]
async fn half_sent_bodies_give_way_to_other_requests() {
    let pod = pod();
    let mut held = Vec::new();
    for _ in 0..200 {
        let ask = b"POST /api/v1/pods HTTP/1.1\r\nhost: 10.96.0.1\r\ncontent-length: 1000\r\n\r\n{";
        held.push(sends(&pod, ask).await);
        assert!(pod.metric("memory_bytes") <= BUDGET);
    }
    settled().await;
    is_served(&pod).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_answered_and_read_holds_nothing_but_its_connection() {
    let pod = pod();
    let mut client: http1::SendRequest<TestBody> = pod.http1().await;
    for _ in 0..20 {
        client.ready().await.unwrap();
        let answer = client.send_request(get1("/large")).await.unwrap();
        assert_eq!(text(answer).await.len(), 1 << 20);
    }
    eventually(|| pod.metric("memory_bytes") == 32 << 10).await;
    drop(client);
    eventually(|| pod.metric("memory_bytes") == 0).await;
}
