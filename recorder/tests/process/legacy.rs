//! The form of the protocol without acknowledgements, byte for byte: `100 Continue` says that the recorder is ready, and
//! the status behind the body that everything is stored.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::lab::{HEADER, Recorder, eventually, line};

/// As Go's client sends it.
const HEAD: &str = "POST /record HTTP/1.1\r\nHost: recorder\r\nUser-Agent: Go-http-client/1.1\r\nTransfer-Encoding: chunked\r\n\
                    Expect: 100-continue\r\nAccept-Encoding: gzip\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn connect(recorder: &Recorder) -> TcpStream {
    let stream = TcpStream::connect(recorder.plain).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The head of an answer.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend_from_slice(&byte);
    }
    String::from_utf8(head).unwrap()
}

fn says_nothing(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[tokio::test]
async fn an_upload_waits_for_100_and_ends_with_200_once_everything_is_stored() {
    let recorder = Recorder::start();
    let mut stream = connect(&recorder);
    stream.write_all(HEAD.as_bytes()).unwrap();
    assert_eq!(head(&mut stream), CONTINUE);
    stream.write_all(chunk(HEADER).as_bytes()).unwrap();
    eventually("it is stored", async || (recorder.sums().len() == 1).then_some(())).await;
    // A status before the end would be taken for the end.
    assert!(says_nothing(&stream));
    stream.write_all(format!("{}0\r\n\r\n", chunk(&line(1, "x"))).as_bytes()).unwrap();
    let answer = head(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-length: 0\r\n"), "{answer}");
    let (cast, meta) = recorder.only();
    assert_eq!(cast, format!("{HEADER}{}", line(1, "x")).as_bytes());
    assert_eq!(meta["end"]["outcome"], "complete");

    // The connection serves another; what is no recording is no success.
    stream.write_all(HEAD.as_bytes()).unwrap();
    assert_eq!(head(&mut stream), CONTINUE);
    stream.write_all(format!("{}0\r\n\r\n", chunk("no header\n")).as_bytes()).unwrap();
    assert!(head(&mut stream).starts_with("HTTP/1.1 400 "));
    assert_eq!(recorder.sums().len(), 1);
}

#[tokio::test]
async fn whoever_is_refused_is_never_told_to_go_on() {
    let recorder = Recorder::with(&[("PODWITNESS_FREE_SPACE", "8589934591Gi")]);
    let mut stream = connect(&recorder);
    stream.write_all(HEAD.as_bytes()).unwrap();
    let answer = head(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 507 "), "{answer}");
    assert!(answer.contains("content-length: 0\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_that_breaks_off_leaves_what_it_said() {
    let recorder = Recorder::start();
    let mut stream = connect(&recorder);
    stream.write_all(HEAD.as_bytes()).unwrap();
    assert_eq!(head(&mut stream), CONTINUE);
    stream.write_all(format!("{}{}", chunk(HEADER), "40\r\n[1,\"o\",\"half").as_bytes()).unwrap();
    eventually("it is stored", async || (recorder.sums().len() == 1).then_some(())).await;
    drop(stream);
    let end = async || recorder.metas().pop().filter(|(.., meta)| meta["end"].is_object());
    let (_, cast, meta) = eventually("its end", end).await;
    assert_eq!(meta["end"]["outcome"], "lost");
    assert_eq!(std::fs::read(cast).unwrap(), HEADER.as_bytes());
}
