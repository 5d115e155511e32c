//! The pool of connections to the API server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http2};
use podwitness_core::control::Notice;
use podwitness_proxy::BoxedStream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
};

use crate::harness::*;

/// A server whose watches say one word and then nothing until the test lets them.
fn watching() -> (Server, Arc<AtomicUsize>, Arc<Semaphore>) {
    let (open, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (counted, waited) = (Arc::clone(&open), Arc::clone(&end));
    let server = Server::new(move |request: Request<Incoming>| {
        let (open, end) = (Arc::clone(&counted), Arc::clone(&waited));
        async move {
            if !request.uri().to_string().contains("watch") {
                return Response::new(full("answer"));
            }
            open.fetch_add(1, Ordering::SeqCst);
            let (feed, body) = fed();
            tokio::spawn(async move {
                let _ = feed.send("event").await;
                let _ = end.acquire().await;
            });
            Response::new(body)
        }
    });
    (server, open, end)
}

async fn watch(pod: &Pod, token: &str) -> Incoming {
    let mut client = pod.http2().await;
    let answer = client.send_request(request("GET", "/api/v1/pods?watch=1", token)).await.unwrap();
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "event");
    body
}

#[tokio::test(start_paused = true)]
async fn the_101st_watch_is_not_held_up_by_a_hundred_others() {
    let (server, open, _end) = watching();
    let pod = Pod::start(server);
    let mut watches = Vec::new();
    for _ in 0..101 {
        watches.push(watch(&pod, "secret").await);
    }
    assert_eq!((open.load(Ordering::SeqCst), pod.server.connections()), (101, 2));
}

#[tokio::test(start_paused = true)]
async fn simultaneous_watches_share_connections_up_to_the_peers_limit_whatever_it_is() {
    let (server, open, _end) = watching();
    let pod = Pod::start(server.max_streams(10));
    let watches = futures_util::future::join_all((0..45).map(|_| watch(&pod, "secret"))).await;
    assert_eq!((open.load(Ordering::SeqCst), pod.server.connections(), watches.len()), (45, 5, 45));
}

#[tokio::test(start_paused = true)]
async fn an_ended_watch_frees_its_place() {
    let (server, _open, end) = watching();
    let pod = Pod::start(server.max_streams(1));
    for _ in 0..5 {
        let body = watch(&pod, "secret").await;
        end.add_permits(1);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "");
        end.forget_permits(1);
    }
    let abandoned = watch(&pod, "secret").await;
    drop(abandoned);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _next = watch(&pod, "secret").await;
    assert_eq!(pod.server.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn watches_and_lists_and_credentials_do_not_share_connections() {
    let (server, ..) = watching();
    let pod = Pod::start(server);
    let _watch = watch(&pod, "a").await;
    let mut client = pod.http2().await;
    for token in ["a", "b", "a", "b"] {
        let answer = client.send_request(request("GET", "/api/v1/pods", token)).await.unwrap();
        assert_eq!(text(answer).await, "answer");
    }
    assert_eq!(pod.server.connections(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_nobody_reads_holds_up_no_other() {
    let server = Server::new(|request: Request<Incoming>| async move {
        let flood = "x".repeat(if request.uri().to_string().contains("flood") { 8 << 20 } else { 10 });
        Response::new(full(flood))
    });
    let pod = Pod::start(server);
    let mut client = pod.http2().await;
    let mut unread = Vec::new();
    for _ in 0..30 {
        unread.push(client.send_request(get("/api/v1/pods?watch=1&flood")).await.unwrap());
    }
    let mut other = pod.http2().await;
    let answer = other.send_request(get("/api/v1/pods?watch=1")).await.unwrap();
    assert_eq!(text(answer).await, "xxxxxxxxxx");
    assert_eq!(pod.server.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_goes_away_finishes_its_answers_and_another_takes_over() {
    let (server, _open, end) = watching();
    let pod = Pod::start(server.clone());
    let before = watch(&pod, "secret").await;
    server.go_away.send_modify(|n| *n += 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _after = watch(&pod, "secret").await;
    assert_eq!(pod.server.connections(), 2);
    end.add_permits(2);
    assert_eq!(before.collect().await.unwrap().to_bytes(), "", "the first ends as it should");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_meets_a_connection_on_its_way_out_takes_the_next() {
    for abrupt in [false, true] {
        let server = Server::new(|_| async { Response::new(full("answer")) });
        let pod = Pod::start(server.clone());
        let mut client = pod.http2().await;
        for _ in 0..20 {
            let answer = client.send_request(get("/version")).await.unwrap();
            assert_eq!(answer.status(), 200, "abrupt: {abrupt}");
            assert_eq!(text(answer).await, "answer");
            if abrupt {
                server.cut.send_modify(|n| *n += 1);
                // The end of the connection has arrived; a request already on it would be lost as on a direct one.
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else {
                server.go_away.send_modify(|n| *n += 1);
            }
        }
        assert!(pod.server.connections() > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_costs_its_own_connection_only() {
    let server = Server::new(|request: Request<Incoming>| async move {
        let mut answer = Response::new(full("answer"));
        if request.headers()["authorization"] == "Bearer bad" {
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
        }
        answer
    });
    let pod = Pod::start(server);
    let mut client = pod.http2().await;
    for (token, status, connections) in
        [("good", 200, 1), ("bad", 401, 2), ("good", 200, 2), ("bad", 401, 3), ("good", 200, 3)]
    {
        let answer = client.send_request(request("GET", "/version", token)).await.unwrap();
        assert_eq!((answer.status().as_u16(), pod.server.connections()), (status, connections), "{token}");
        assert_eq!(text(answer).await, "answer");
    }
}

/// An API server ends an idle connection after 90 s, and a request that crosses the end is lost.
#[tokio::test(start_paused = true)]
async fn connections_are_kept_while_used_and_closed_before_the_api_server_would() {
    for server in [
        Server::new(|_| async { Response::new(full("a")) }),
        Server::new(|_| async { Response::new(full("a")) }).http1(),
    ] {
        let pod = Pod::start(server);
        let mut client = pod.http2().await;
        for _ in 0..10 {
            assert_eq!(text(client.send_request(get("/version")).await.unwrap()).await, "a");
            tokio::time::sleep(Duration::from_secs(35)).await;
        }
        assert_eq!((pod.server.connections(), pod.metric("upstream_connections")), (1, 1));
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!(pod.metric("upstream_connections"), 0);
        assert_eq!(text(client.send_request(get("/version")).await.unwrap()).await, "a");
        assert_eq!(pod.server.connections(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn one_failed_attempt_answers_everyone_who_waited_for_it() {
    let pod =
        Setup { distrust: true, ..Setup::new(Server::new(|_| async { Response::new(empty()) })) }.start();
    let client = pod.http2().await;
    let ask = || {
        let mut client = client.clone();
        async move { client.send_request(get("/version")).await.unwrap().status().as_u16() }
    };
    let answers = futures_util::future::join_all((0..50).map(|_| ask())).await;
    assert!(answers.iter().all(|status| *status == 503));
    assert_eq!(pod.server.connections(), 1);
}

/// A pod with so little memory that it has 128 connections in all, 16 of one credential.
fn small(server: Server) -> Pod {
    Setup { connections_memory: 8 << 20, ..Setup::new(server) }.start()
}

#[tokio::test(start_paused = true)]
async fn any_number_of_credentials_is_served_one_after_the_other() {
    let pod = small(Server::new(|_| async { Response::new(full("answer")) }));
    let mut client = pod.http2().await;
    for n in 0..300 {
        let answer = client.send_request(request("GET", "/version", &format!("user-{n}"))).await.unwrap();
        assert_eq!(answer.status(), 200, "user {n}");
        assert_eq!(text(answer).await, "answer");
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert_eq!(pod.metric("upstream_evicted_total"), 300 - 128);
    eventually(|| pod.metric("upstream_connections") == 128).await;
    // The last one has its connection still.
    let answer = client.send_request(request("GET", "/version", "user-299")).await.unwrap();
    assert_eq!((answer.status().as_u16(), pod.server.connections()), (200, 300));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_gives_way_to_nothing_and_that_is_said() {
    let (server, _open, end) = watching();
    let mut pod = small(server);
    let mut watches = Vec::new();
    for n in 0..128 {
        watches.push(watch(&pod, &format!("user-{n}")).await);
    }
    let mut client = pod.http2().await;
    let refused = client.send_request(request("GET", "/version", "another")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(pod.metric("upstream_refused_total"), 1);
    assert_eq!(pod.noticed.try_recv(), Ok(Notice::UpstreamExhausted));
    end.add_permits(1);
    // The connection of the watch that has ended is idle.
    eventually_served(&mut client, "another").await;
    assert_eq!((pod.metric("upstream_evicted_total"), pod.server.connections()), (1, 129));
}

async fn eventually_served(client: &mut http2::SendRequest<TestBody>, token: &str) {
    for _ in 0..100 {
        if client.send_request(request("GET", "/version", token)).await.unwrap().status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never served");
}

#[tokio::test(start_paused = true)]
async fn one_credential_has_its_part_of_all_connections() {
    let (server, ..) = watching();
    let mut pod = small(server.max_streams(1));
    let mut watches = Vec::new();
    for _ in 0..16 {
        watches.push(watch(&pod, "greedy").await);
    }
    let mut client = pod.http2().await;
    let asked = |token| request("GET", "/api/v1/pods?watch=1", token);
    let refused = client.send_request(asked("greedy")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(refused).await.contains("this credential uses all connections"));
    assert_eq!(pod.noticed.try_recv(), Ok(Notice::UpstreamExhausted));
    assert_eq!(client.send_request(asked("modest")).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn many_credentials_at_once_open_no_more_connections_than_there_may_be() {
    let (server, ..) = watching();
    let pod = small(server);
    let mut watches = Vec::new();
    for n in 0..120 {
        watches.push(watch(&pod, &format!("user-{n}")).await);
    }
    let client = pod.http2().await;
    let ask = |n: u32| {
        let mut client = client.clone();
        async move {
            let asked = request("GET", "/api/v1/pods?watch=1", &format!("user-{n}"));
            client.send_request(asked).await.unwrap()
        }
    };
    let answers = futures_util::future::join_all((120..136).map(ask)).await;
    let served = answers.iter().filter(|answer| answer.status() == 200).count();
    assert_eq!((served, pod.server.connections()), (8, 128));
}

/// Reads frames of HTTP/2 (RFC 9113 §4.1) and says what `answer` has to say to the streams that were opened so far.
async fn speak_http2(mut stream: BoxedStream, answer: impl Fn(&[u32]) -> Vec<u8>) {
    const HEADERS: u8 = 1;
    const SETTINGS: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
    let (mut preface, mut opened) = ([0; 24], Vec::new());
    stream.read_exact(&mut preface).await.unwrap();
    stream.write_all(&SETTINGS).await.unwrap();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        if head[3] == HEADERS {
            opened.push(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
            let _ = stream.write_all(&answer(&opened)).await;
        }
    }
}

/// An answer to a stream: its status alone, an entry of the static table (RFC 7541, appendix A).
fn status_200(id: u32) -> Vec<u8> {
    [&[0, 0, 1, 1, 5][..], &id.to_be_bytes(), &[0x88]].concat()
}

/// No stream above `last` will be looked at, for no error.
fn go_away(last: u32) -> Vec<u8> {
    [&[0, 0, 8, 7, 0, 0, 0, 0, 0][..], &last.to_be_bytes(), &[0; 4]].concat()
}

/// This stream was not looked at.
fn refused_stream(id: u32) -> Vec<u8> {
    [&[0, 0, 4, 3, 0][..], &id.to_be_bytes(), &[0, 0, 0, 7]].concat()
}

/// A server that does not look at the second request on its first connection, and says so.
fn overlooking(say: fn(u32, u32) -> Vec<u8>) -> Server {
    let number = Arc::new(AtomicUsize::new(0));
    Server::raw_http2(move |stream| {
        let is_first = number.fetch_add(1, Ordering::SeqCst) == 0;
        speak_http2(stream, move |opened| match *opened {
            [_] if is_first => vec![],
            [first, second] if is_first => [say(first, second), status_200(first)].concat(),
            [.., last] => status_200(last),
            [] => vec![],
        })
    })
}

fn gone(first: u32, _: u32) -> Vec<u8> {
    go_away(first)
}

fn refused(_: u32, second: u32) -> Vec<u8> {
    refused_stream(second)
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_server_has_not_looked_at_is_sent_again() {
    for say in [gone, refused] {
        let pod = Pod::start(overlooking(say));
        let ask = async || {
            let answer = pod.http2().await.send_request(request("GET", "/api/v1/pods", "secret")).await;
            answer.unwrap().status()
        };
        // One of them is the first, the other is not looked at; or one of them and the question who asks.
        let (one, other) = tokio::join!(ask(), ask());
        assert_eq!((one, other), (StatusCode::OK, StatusCode::OK));
    }
}

/// Its body is gone: the client has to send it again, and is told that it may.
#[tokio::test(start_paused = true)]
async fn a_request_with_a_body_that_was_not_looked_at_may_be_repeated() {
    let pod = Pod::start(overlooking(gone));
    let post = async || {
        let mut request = request("POST", "/api/v1/namespaces/shop/pods", "secret");
        *request.body_mut() = full("{}");
        let answer = pod.http2().await.send_request(request).await.unwrap();
        (answer.status(), answer.headers().get("retry-after").cloned())
    };
    let (one, other) = tokio::join!(post(), post());
    for (status, again) in [one, other] {
        assert!(status == StatusCode::OK || status == StatusCode::SERVICE_UNAVAILABLE && again.is_some());
    }
}
