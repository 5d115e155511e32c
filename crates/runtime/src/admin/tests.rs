use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::drain::{Drain, Drained};

async fn ask(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn bound(admin: Admin) -> Bound {
    admin.bind("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn health_readiness_and_metrics_are_shown_and_nothing_else() {
    let admin = Admin::default();
    let token = admin.readiness.block("certificate");
    admin
        .registry
        .with(|registry| registry.register("podwitness_reviews", "Reviews", Counter::<u64>::default()));
    let (_signal, watch) = Drain::new();
    let server = bound(admin).await;
    let addr = server.addr;
    tokio::spawn(server.run(watch));

    assert!(ask(addr, "GET /healthz").await.starts_with("HTTP/1.1 200 "));
    let waiting = ask(addr, "GET /readyz").await;
    assert!(
        waiting.starts_with("HTTP/1.1 503 ") && waiting.ends_with("waiting for: certificate\n"),
        "{waiting}"
    );
    token.clear();
    assert!(ask(addr, "GET /readyz").await.ends_with("ready\n"));
    let metrics = ask(addr, "GET /metrics").await;
    assert!(metrics.contains("podwitness_reviews_total 0") && metrics.ends_with("# EOF\n"), "{metrics}");
    let head = ask(addr, "HEAD /metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(ask(addr, "GET /quit").await.starts_with("HTTP/1.1 404 "));
    let post = ask(addr, "POST /healthz").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
}

#[tokio::test]
async fn health_is_shown_while_the_program_drains_and_readiness_is_not() {
    let (signal, watch) = Drain::new();
    let guard = watch.guard();
    let server = bound(Admin::default()).await;
    let addr = server.addr;
    let running = tokio::spawn(server.run(watch.clone()));
    let draining = tokio::spawn(signal.drain(Duration::from_secs(60)));
    watch.draining().await;
    assert!(ask(addr, "GET /healthz").await.starts_with("HTTP/1.1 200 "));
    assert!(ask(addr, "GET /readyz").await.ends_with("draining\n"));
    drop(guard);
    assert_eq!(draining.await.unwrap(), Drained::All);
    running.await.unwrap();
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_taken_port_is_an_error_at_startup() {
    let first = bound(Admin::default()).await;
    let error = Admin::default().bind(first.addr).await.unwrap_err();
    assert!(error.to_string().contains(&first.addr.to_string()), "{error}");
}
