//! Which connections are ended where a pod has too many.

use std::sync::Arc;

use http::Response;
use http_body_util::BodyExt as _;
use podwitness_runtime::{
    connection::ConnectionLimiter,
    quota::{QuotaLimits, QuotaMetrics},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::Mutex,
    time::{Duration, sleep},
};

use crate::harness::*;

fn limited(server: Server, total: usize) -> Pod {
    let limits = QuotaLimits { total, per_key: total };
    let mut pod = Pod::start(server);
    pod.limiter = Some(ConnectionLimiter::with(limits, QuotaMetrics::default()));
    pod
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_outlives_any_number_of_idle_connections() {
    let (feed, body) = fed();
    let body = Arc::new(Mutex::new(Some(body)));
    let server = Server::new(move |_| {
        let body = Arc::clone(&body);
        async move { Response::new(body.lock().await.take().unwrap_or_else(empty)) }
    });
    let pod = limited(server, 4);
    let mut watching = pod.http1().await;
    let mut watch = watching.send_request(get1("/api/v1/pods?watch=true")).await.unwrap().into_body();
    let mut idle = Vec::new();
    for n in 0..40 {
        // Before the handshake, and after it.
        if n % 2 == 0 {
            idle.push(pod.tcp(SERVICE));
        } else {
            drop(pod.tls(&[]).await);
        }
    }
    let answer = pod.http2().await.send_request(get("/version")).await.unwrap();
    assert_eq!(answer.status(), 200);
    feed.send("changed").await.unwrap();
    let frame = watch.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame, "changed");
    let mut first = idle.remove(0);
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0, "the one that was idle for the longest time is ended");
}

/// A connection to another server, on which something was said.
async fn raw(pod: &Pod) -> DuplexStream {
    let mut raw = pod.tcp("192.0.2.7:6443");
    says(&mut raw).await;
    raw
}

async fn says(raw: &mut DuplexStream) {
    raw.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    raw.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test(start_paused = true)]
async fn a_connection_to_another_server_gives_way_once_nothing_passes_on_it() {
    let mut setup = Setup::new(Server::new(|_| async { Response::new(full("answer")) }));
    setup.elsewhere = Some(Arc::new(|_, mut far: DuplexStream| {
        tokio::spawn(async move {
            let mut said = [0; 64];
            while let Ok(len @ 1..) = far.read(&mut said).await {
                far.write_all(&said[..len]).await.unwrap();
            }
        });
    }));
    let mut pod = setup.start();
    let limits = QuotaLimits { total: 3, per_key: 3 };
    let limiter = ConnectionLimiter::with(limits, QuotaMetrics::default());
    pod.limiter = Some(limiter.clone());
    let (mut silent, mut again, mut busy) = (raw(&pod).await, raw(&pod).await, raw(&pod).await);
    let source = std::net::IpAddr::from([127, 0, 0, 1]);
    for _ in 0..3 {
        sleep(Duration::from_secs(60)).await;
        says(&mut busy).await;
        says(&mut again).await;
    }
    // It was silent for long, and something has passed since.
    sleep(Duration::from_secs(300)).await;
    says(&mut again).await;
    says(&mut busy).await;
    drop(limiter.open(source).expect("the silent one gives way"));
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    let _third = pod.tls(&[]).await;
    says(&mut again).await;
    says(&mut busy).await;
}
