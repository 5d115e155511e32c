//! Requests and answers pass unharmed.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Mutex, oneshot},
};

use crate::harness::*;

/// Answers with what was asked: method, target and headers, one a line.
async fn mirror(request: Request<Incoming>) -> Response<TestBody> {
    let mut lines = vec![format!("{} {}", request.method(), request.uri().path_and_query().unwrap())];
    lines
        .extend(request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
    Response::new(full(lines.join("\n")))
}

#[tokio::test(start_paused = true)]
async fn both_versions_reach_the_server_with_their_target_untouched() {
    let pod = Pod::start(Server::new(mirror));
    let path = "/api/v1/namespaces/a%2Fb//c/../d/?x=%zz&y=a+b;z";
    let answer = pod.http2().await.send_request(get(path)).await.unwrap();
    assert!(text(answer).await.starts_with(&format!("GET {path}\n")));
    let answer = pod.http1().await.send_request(get1(path)).await.unwrap();
    let answer = text(answer).await;
    assert!(answer.starts_with(&format!("GET {path}\n")), "{answer}");
    assert!(answer.contains("authorization: Bearer secret"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn letter_case_order_and_repeats_of_headers_are_kept_in_http1() {
    let server = Server::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nX-One: 1\r\nx-TWO: a\r\nContent-Length: {}\r\nx-TWO: b\r\nZ: z\r\n\r\n{head}",
            head.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let pod = Pod::start(server);
    let mut tls = pod.tls(&[]).await;
    let head = "GET /version HTTP/1.1\r\nHost: kubernetes\r\nX-b: 1\r\nx-A: 2\r\nAuthorization: Bearer t\r\nX-b: 3\r\n\r\n";
    tls.write_all(head.as_bytes()).await.unwrap();
    let answered = read_head(&mut tls).await;
    // A repeat follows its first.
    assert_eq!(
        answered,
        "HTTP/1.1 200 OK\r\nX-One: 1\r\nx-TWO: a\r\nx-TWO: b\r\nContent-Length: 92\r\nZ: z\r\n\r\n"
    );
    let mut seen = vec![0; 92];
    tls.read_exact(&mut seen).await.unwrap();
    assert_eq!(
        String::from_utf8(seen).unwrap(),
        "GET /version HTTP/1.1\r\nHost: kubernetes\r\nX-b: 1\r\nX-b: 3\r\nx-A: 2\r\nAuthorization: Bearer t\r\n\r\n"
    );
}

#[tokio::test(start_paused = true)]
async fn names_that_come_by_http2_are_written_as_the_server_would_and_no_date_is_added() {
    let server = Server::new(|_| async {
        let mut answer = Response::new(full("{}"));
        answer.headers_mut().insert("audit-id", "x".parse().unwrap());
        answer.headers_mut().insert("x-kubernetes-pf-flowschema-uid", "y".parse().unwrap());
        answer.headers_mut().insert("date", "Thu, 01 Jan 1970 00:00:00 GMT".parse().unwrap());
        answer
    });
    let pod = Pod::start(server);
    let mut tls = pod.tls(&[]).await;
    tls.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let head = read_head(&mut tls).await;
    assert!(head.contains("\r\nAudit-Id: x\r\nX-Kubernetes-Pf-Flowschema-Uid: y\r\n"), "{head}");
    assert_eq!(head.matches("Date: ").count(), 1, "{head}");
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_one_connection_stays_there() {
    let pod = Pod::start(Server::new(mirror));
    let mut request = get1("/version");
    for (name, value) in
        [("connection", "x-mine, keep-alive"), ("x-mine", "1"), ("keep-alive", "5"), ("x-yours", "2")]
    {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let answer = text(pod.http1().await.send_request(request).await.unwrap()).await;
    assert!(
        answer.contains("x-yours: 2") && !answer.contains("x-mine") && !answer.contains("keep-alive"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn answers_without_a_body_stay_without() {
    let server = Server::new(|request: Request<Incoming>| async move {
        let status: u16 = request.uri().path().trim_start_matches('/').parse().unwrap();
        let mut answer = Response::new(empty());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        if request.method() == Method::HEAD {
            answer.headers_mut().insert("content-length", "12345".parse().unwrap());
        }
        answer
    });
    let pod = Pod::start(server);
    let mut client = pod.http1().await;
    for (method, path, length) in
        [("HEAD", "/200", Some("12345")), ("GET", "/204", None), ("GET", "/304", None)]
    {
        let mut request = get1(path);
        *request.method_mut() = method.parse().unwrap();
        client.ready().await.unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status().as_str(), path.trim_start_matches('/'));
        assert_eq!(
            answer.headers().get("content-length").map(|v| v.to_str().unwrap()),
            length,
            "{method} {path}"
        );
        assert!(!answer.headers().contains_key("transfer-encoding"));
        assert_eq!(text(answer).await, "");
    }
}

#[tokio::test(start_paused = true)]
async fn chunked_bodies_stream_up_and_an_old_client_is_answered_to_the_end_of_the_connection() {
    let server = Server::new(|request: Request<Incoming>| async move {
        let got = request.into_body().collect().await.unwrap().to_bytes();
        let frames = futures_util::stream::iter([Ok(Frame::data(got)), Ok(Frame::data(Bytes::from("!")))]);
        Response::new(StreamBody::new(frames).boxed_unsync())
    });
    let pod = Pod::start(server);
    let mut tls = pod.tls(&[]).await;
    tls.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        .await
        .unwrap();
    assert!(read_head(&mut tls).await.contains("Transfer-Encoding: chunked"));
    let mut answer = vec![0; 21];
    tls.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n");
    let mut old = pod.tls(&[]).await;
    old.write_all(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nold").await.unwrap();
    let mut answer = String::new();
    old.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("\r\n\r\nold!"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn trailers_pass_in_both_directions() {
    let server = Server::new(|request: Request<Incoming>| async move {
        let asked = request.into_body().collect().await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-seen", asked.trailers().unwrap()["x-sum"].clone());
        Response::new(full("body").with_trailers(std::future::ready(Some(Ok(trailers)))).boxed_unsync())
    });
    let pod = Pod::start(server);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    let request =
        get("/").map(|_| full("up").with_trailers(std::future::ready(Some(Ok(trailers)))).boxed_unsync());
    let answer = pod.http2().await.send_request(request).await.unwrap();
    let answer = answer.into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["x-seen"], "42");
    assert_eq!(answer.to_bytes(), "body");
}

#[tokio::test(start_paused = true)]
async fn a_watch_arrives_event_by_event_and_is_silent_for_as_long_as_it_likes() {
    let (feed, body) = fed();
    let body = Arc::new(Mutex::new(Some(body)));
    let server = Server::new(move |_| {
        let body = Arc::clone(&body);
        async move { Response::new(body.lock().await.take().unwrap()) }
    });
    let pod = Pod::start(server);
    let mut client = pod.http1().await;
    let mut watch = client.send_request(get1("/api/v1/pods?watch=1")).await.unwrap().into_body();
    for event in ["one", "two", "three"] {
        tokio::time::sleep(std::time::Duration::from_secs(86_400)).await;
        feed.send(event).await.unwrap();
        assert_eq!(watch.frame().await.unwrap().unwrap().into_data().unwrap(), event);
    }
    drop(feed);
    assert!(watch.frame().await.is_none());
}

/// Completes when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_its_request_at_the_server() {
    for http2 in [true, false] {
        let (gone, is_gone) = oneshot::channel();
        let gone = Arc::new(Mutex::new(Some(gone)));
        let server = Server::new(move |_| {
            let gone = Arc::clone(&gone);
            async move {
                let _dropped = Dropped(gone.lock().await.take());
                std::future::pending().await
            }
        });
        let pod = Pod::start(server.clone());
        if http2 {
            let mut client = pod.http2().await;
            let asked =
                tokio::spawn(async move { client.send_request(get("/api/v1/pods?watch=1")).await.is_ok() });
            eventually(|| server.connections() == 1).await;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            asked.abort();
        } else {
            let mut tls = pod.tls(&[]).await;
            tls.write_all(b"GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            eventually(|| server.connections() == 1).await;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            drop(tls);
        }
        is_gone.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_servers_word_comes_before_the_clients_body() {
    let server = Server::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(head.contains("Expect: 100-continue"), "{head}");
        if head.contains("/refused") {
            stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        } else {
            let early = tokio::time::timeout(std::time::Duration::from_millis(500), stream.read_u8()).await;
            assert!(early.is_err(), "the body came before it was asked for");
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await.unwrap();
            stream.write_all(&body).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let pod = Pod::start(server);
    let ask = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    };
    let mut tls = pod.tls(&[]).await;
    tls.write_all(ask("/refused").as_bytes()).await.unwrap();
    let head = read_head(&mut tls).await;
    assert!(head.starts_with("HTTP/1.1 413 "), "the client's body is not asked for: {head}");
    let mut tls = pod.tls(&[]).await;
    tls.write_all(ask("/wanted").as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut tls).await, "HTTP/1.1 100 Continue\r\n\r\n");
    tls.write_all(b"body").await.unwrap();
    assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 200 OK"));
    let mut body = [0; 4];
    tls.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"body");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_trusted_or_reached_is_said_to_the_client() {
    let pod = Setup { distrust: true, ..Setup::new(Server::new(mirror)) }.start();
    let answer = pod.http2().await.send_request(get("/version")).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1", "nothing can have happened");
    let status: podwitness_core::status::Status = serde_json::from_str(&text(answer).await).unwrap();
    assert!(status.message.contains("no trusted TLS with 10.96.0.1:443"), "{}", status.message);
    let broken = Pod::start(Server::raw(|mut stream| async move {
        read_head(&mut stream).await;
    }));
    let answer = broken.http2().await.send_request(get("/version")).await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(!answer.headers().contains_key("retry-after"), "it may have happened");
}

#[tokio::test(start_paused = true)]
async fn what_can_be_read_in_two_ways_is_refused() {
    let pod = Pod::start(Server::new(mirror));
    let twice = "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n";
    for bad in
        [twice, "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"]
    {
        let mut tls = pod.tls(&[]).await;
        tls.write_all(bad.as_bytes()).await.unwrap();
        assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 400 "), "{bad}");
    }
    assert_eq!(pod.metric("requests_total{outcome=\"Refused\"}"), 3);
    assert_eq!(pod.server.connections(), 0);
}
