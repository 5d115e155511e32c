use std::{convert::Infallible, io};

use hyper::service::service_fn;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    task::JoinHandle,
    time::Instant,
};

use super::*;
use crate::drain::{Drain, Drained, Signal};

type Served = JoinHandle<Result<(), BoxError>>;

/// Serves one duplex connection whose every request waits for a word on the channel.
fn serve() -> (DuplexStream, mpsc::Sender<&'static str>, Signal, Served) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let (answers, waiting) = mpsc::channel(1);
    let waiting = std::sync::Arc::new(tokio::sync::Mutex::new(waiting));
    let (signal, watch) = Drain::new();
    let served = tokio::spawn(async move {
        let service = service_fn(move |_: Request<Incoming>| {
            let waiting = std::sync::Arc::clone(&waiting);
            async move {
                let answer = waiting.lock().await.recv().await.unwrap_or("gone");
                Ok::<_, Infallible>(text(StatusCode::OK, answer))
            }
        });
        let connection = ConnectionHandle::uncounted();
        let service = tracked(service, &connection);
        serve_connection(server, service, &Limits::default(), &watch, &connection).await
    });
    (client, answers, signal, served)
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_cut_off_after_the_header_timeout() {
    let (_client, _answers, _signal, served) = serve();
    let begun = Instant::now();
    assert!(served.await.unwrap().is_err());
    assert_eq!(begun.elapsed(), Limits::default().header_timeout);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_ended_in_either_version_of_http() {
    for hello in
        [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"]
    {
        let (mut client, answers, _signal, served) = serve();
        client.write_all(hello).await.unwrap();
        answers.send("answered").await.unwrap();
        let begun = Instant::now();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        let idle = Limits::default().idle.unwrap();
        // Over HTTP/2 the client is told first, and this one does not answer.
        assert!((idle..=idle + CLOSE_TIMEOUT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        let _ = served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_preface_in_drops_is_cut_off_after_the_header_timeout() {
    let (mut client, _answers, _signal, served) = serve();
    let drops = tokio::spawn(async move {
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r" {
            client.write_all(&[*byte]).await?;
            tokio::time::sleep(Limits::default().header_timeout / 10).await;
        }
        io::Result::Ok(client)
    });
    assert!(served.await.unwrap().is_err());
    assert!(drops.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_head_in_drops_is_cut_off_but_a_slow_answer_is_not() {
    let (mut client, answers, _signal, served) = serve();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    answers.send("slow").await.unwrap();
    let mut head = vec![0; 15];
    client.read_exact(&mut head).await.unwrap();
    assert_eq!(head, b"HTTP/1.1 200 OK");
    client.write_all(b"GET / HTT").await.unwrap();
    let begun = Instant::now();
    let _ = served.await.unwrap();
    assert_eq!(begun.elapsed(), Limits::default().header_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_the_request_in_flight_finish_and_takes_no_other() {
    let (mut client, answers, signal, served) = serve();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let guard = signal.watch().guard();
    let draining = tokio::spawn(signal.drain(Duration::from_secs(60)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    answers.send("last words").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.ends_with("last words"), "{answer}");
    served.await.unwrap().unwrap();
    drop(guard);
    assert_eq!(draining.await.unwrap(), Drained::All);
}

#[tokio::test(start_paused = true)]
async fn when_the_drain_is_over_a_request_in_flight_is_cut_off() {
    let (mut client, _answers, signal, served) = serve();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    signal.drain(Duration::from_secs(60)).await;
    served.await.unwrap().unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn more_headers_than_allowed_are_answered_431() {
    let (mut client, _answers, _signal, _served) = serve();
    let headers = "x: y\r\n".repeat(Limits::default().max_headers + 1);
    client.write_all(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}
