//! Which connections are ended where a pod has too many.

use std::sync::Arc;

use http::Response;
use http_body_util::BodyExt as _;
use podwitness_runtime::{
    connection::ConnectionLimiter,
    quota::{QuotaLimits, QuotaMetrics},
};
use tokio::{io::AsyncReadExt as _, sync::Mutex};

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
