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

fn anywhere() -> AdminAddresses {
    let any = "127.0.0.1:0".parse().unwrap();
    AdminAddresses { admin: any, health: Some(any) }
}

async fn bound(admin: Admin) -> Bound {
    admin.bind(anywhere()).await.unwrap()
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
    for (to, taken) in [
        (AdminAddresses { admin: first.addr, health: None }, first.addr),
        (AdminAddresses { health: first.health, ..anywhere() }, first.health.unwrap()),
    ] {
        let error = Admin::default().bind(to).await.unwrap_err();
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
    }
}

#[tokio::test]
async fn elsewhere_is_another_port_of_the_same_address_where_one_is_taken() {
    let first = bound(Admin::default()).await;
    let taken = AdminAddresses { admin: first.addr, health: first.health };
    let second = Admin::default().bind_elsewhere(taken).await.unwrap();
    assert_ne!((second.addr, second.health), (first.addr, first.health));
    assert_eq!(second.addr.ip(), first.addr.ip());
    let free = AdminAddresses { admin: second.addr, health: second.health };
    drop(second);
    let third = Admin::default().bind_elsewhere(free).await.unwrap();
    assert_eq!((third.addr, third.health), (free.admin, free.health));
}

#[tokio::test]
async fn probes_have_a_port_that_shows_nothing_else() {
    let (_signal, watch) = Drain::new();
    let admin = Admin::default();
    let token = admin.readiness.block("certificate");
    let server = bound(admin).await;
    let health = server.health.unwrap();
    tokio::spawn(server.run(watch));
    let healthy = ask(health, "GET /healthz").await;
    assert!(healthy.starts_with("HTTP/1.1 200 ") && healthy.contains("connection: close"), "{healthy}");
    assert!(ask(health, "GET /readyz").await.starts_with("HTTP/1.1 503 "));
    token.clear();
    assert!(ask(health, "GET /readyz").await.starts_with("HTTP/1.1 200 "));
    assert!(ask(health, "GET /metrics").await.starts_with("HTTP/1.1 404 "));
    assert!(ask(health, "POST /healthz").await.starts_with("HTTP/1.1 405 "));
}

/// What a stranger can leave on a connection.
const LEFT: [&str; 4] =
    ["", "GET /heal", "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];

#[tokio::test]
async fn six_hundred_connections_to_either_port_keep_neither_probes_nor_scrapes_waiting() {
    let (_signal, watch) = Drain::new();
    let admin = Admin::default();
    let registry = admin.registry.clone();
    let server = bound(admin).await;
    let (addr, health) = (server.addr, server.health.unwrap());
    tokio::spawn(server.run(watch));
    let mut left = Vec::new();
    for n in 0..600 {
        for to in [addr, health] {
            let mut stream = TcpStream::connect(to).await.unwrap();
            stream.write_all(LEFT[n % LEFT.len()].as_bytes()).await.unwrap();
            left.push(stream);
        }
    }
    for (to, request) in [(health, "GET /healthz"), (health, "GET /readyz"), (addr, "GET /metrics")] {
        let asked = tokio::time::timeout(Duration::from_secs(1), ask(to, request)).await;
        assert!(asked.expect("an answer at once").starts_with("HTTP/1.1 200 "), "{request}");
    }
    let metrics = registry.encode().unwrap();
    let evicted = metrics
        .lines()
        .find(|line| line.starts_with("podwitness_connections_evicted_total{listener=\"health\"}"));
    let evicted: u64 = evicted.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(evicted >= 300, "{metrics}");
}
