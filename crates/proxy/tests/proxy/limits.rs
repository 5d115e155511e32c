//! What the API server takes, the proxy takes.

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;

use crate::harness::*;

const MANY: usize = 480;

/// Answers with as many headers as were asked, of the same size, and says how long the target was.
async fn echo(request: Request<Incoming>) -> Response<TestBody> {
    let mut answer = Response::new(full(request.uri().path_and_query().unwrap().as_str().len().to_string()));
    for (name, value) in request.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-many")) {
        answer.headers_mut().append(name, value.clone());
    }
    answer
}

#[tokio::test(start_paused = true)]
async fn half_a_megabyte_of_headers_passes_in_both_versions_and_directions() {
    for server in [Server::new(echo), Server::new(echo).http1()] {
        let pod = Pod::start(server);
        for http2 in [true, false] {
            let mut request = if http2 { get("/version") } else { get1("/version") };
            for n in 0..MANY {
                request.headers_mut().append("x-many", format!("{n:01060}").parse().unwrap());
            }
            let answer = if http2 {
                pod.http2().await.send_request(request).await.unwrap()
            } else {
                pod.http1().await.send_request(request).await.unwrap()
            };
            assert_eq!(answer.status(), 200);
            let many: Vec<_> = answer.headers().get_all("x-many").iter().collect();
            assert_eq!(many.len(), MANY);
            assert!(many.iter().enumerate().all(|(n, value)| **value == format!("{n:01060}")), "in order");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_of_60_kilobytes_passes_in_both_versions() {
    let pod = Pod::start(Server::new(echo));
    let path = format!("/api/v1/namespaces/n/pods/p/log?x={}", "a".repeat(60_000));
    let answer = pod.http1().await.send_request(get1(&path)).await.unwrap();
    assert_eq!(text(answer).await, path.len().to_string());
    let answer = pod.http2().await.send_request(get(&path)).await.unwrap();
    assert_eq!(text(answer).await, path.len().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_target_beyond_the_librarys_limit_is_answered_414_and_counted() {
    let pod = Pod::start(Server::new(echo));
    let mut tls = pod.tls(&[]).await;
    let head = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(65_535));
    tls.write_all(head.as_bytes()).await.unwrap();
    tls.flush().await.unwrap();
    assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 414 "));
    eventually(|| pod.metric("oversize_requests_total") == 1).await;
    assert_eq!(pod.server.connections(), 0);
}
