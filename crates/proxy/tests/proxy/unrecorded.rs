//! Sessions that pass unrecorded are judged again with every netmap, and end when they may no longer pass.

use std::{sync::Arc, time::Duration};

use podwitness_core::{control::Netmap, grant::Grant, status::Status};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use crate::{harness::*, upgrade::*};

const FORWARD: &str = "/api/v1/namespaces/n/pods/p/portforward";
const SERVICE_PROXY: &str = "/api/v1/namespaces/n/services/s/proxy/";
/// What the client of a session is told that ends for a grant.
const ENDED: &str = "podwitness: session ended, Grant \\\"all\\\" asks for a recording by now";

fn publish(pod: &Pod, grants: &[Grant]) {
    pod.netmap.send_replace(Some(Arc::new(Netmap { grants: grants.to_vec().into(), ..Netmap::default() })));
}

/// A grant for everyone and every pod that means other requests.
fn for_others(enforce: bool) -> Grant {
    let mut grant = grant(enforce);
    grant.spec.app.kubernetes[0].resources = vec!["configmaps".to_owned()];
    grant
}

/// A grant for everyone and every pod that leaves them out.
fn without_recorder() -> Grant {
    let mut grant = grant(false);
    grant.spec.app.kubernetes[0].recorder.clear();
    grant
}

/// A session whose first words were heard.
async fn begun(pod: &Pod, head: &str) -> Tls {
    let (answer, mut tls) = converse(pod, head).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    hear(&mut tls, &frame(b"\x01first")).await;
    hear(&mut tls, &masked(b"\0EARLY")).await;
    tls
}

/// What is still said, until the session ends by itself.
async fn last_words(mut tls: Tls) -> Vec<u8> {
    let mut rest = Vec::new();
    timeout(Duration::from_secs(5), tls.read_to_end(&mut rest)).await.expect("an end in time").unwrap();
    rest
}

fn ended(pod: &Pod, purpose: &str, why: &str) -> u64 {
    pod.metric(&format!("unrecorded_sessions_ended_total{{purpose=\"{purpose}\",outcome=\"{why}\"}}"))
}

#[tokio::test(start_paused = true)]
async fn a_session_that_no_grant_wanted_ends_with_a_message_when_one_does() {
    for enforce in [false, true] {
        let pod = Pod::start(switching());
        let tls = begun(&pod, &websocket(EXEC)).await;
        publish(&pod, &[grant(enforce)]);
        let words = last_words(tls).await;
        let text = String::from_utf8_lossy(&words);
        assert!(text.contains(ENDED) && words[2..].contains(&3), "{text}");
        assert!(words.ends_with(&[0x88, 2, 3, 0xe8]), "it does not end with a close frame: {words:?}");
        assert_eq!(ended(&pod, "Exec", "NoGrant"), 1);
        // Another one is recorded, or refused.
        let mut tls = pod.tls(&[]).await;
        tls.write_all(websocket(EXEC).as_bytes()).await.unwrap();
        let expected = if enforce { "HTTP/1.1 403 " } else { "HTTP/1.1 101 " };
        assert!(read_head(&mut tls).await.starts_with(expected));
    }
}

/// SPDY's header blocks without compression: the streams `error` and `stdout`.
fn spdy_streams() -> Vec<u8> {
    let open = |id: u8, first: &[u8], kind: &[u8]| {
        let mut plain = vec![0, 0, 0, 1, 0, 0, 0, 10];
        plain.extend_from_slice(b"streamtype");
        plain.extend_from_slice(&u32::try_from(kind.len()).unwrap().to_be_bytes());
        plain.extend_from_slice(kind);
        let len = u16::try_from(plain.len()).unwrap();
        let block = [first, &[0], &len.to_le_bytes(), &(!len).to_le_bytes(), &plain].concat();
        let size = u8::try_from(10 + block.len()).unwrap();
        [&[0x80, 3, 0, 1, 0, 0, 0, size, 0, 0, 0, id, 0, 0, 0, 0, 0, 0], &block[..]].concat()
    };
    [open(1, &[0x78, 1], b"error"), open(3, &[], b"stdout")].concat()
}

/// The server takes both, and says something.
fn spdy_answers() -> Vec<u8> {
    let taken = |id: u8| [0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, id];
    [&taken(1)[..], &taken(3), b"\0\0\0\x03\0\0\0\x02hi"].concat()
}

#[tokio::test(start_paused = true)]
async fn a_session_over_spdy_ends_with_its_message_too() {
    let server = Server::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        if !head.contains("Upgrade:") {
            return stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                      X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut heard = vec![0; spdy_streams().len()];
        stream.read_exact(&mut heard).await.unwrap();
        stream.write_all(&spdy_answers()).await.unwrap();
        let _ = stream.read_to_end(&mut heard).await;
    });
    let pod = Pod::start(server);
    let mut tls = pod.tls(&[]).await;
    let head = upgrade(EXEC, "SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n");
    tls.write_all(head.as_bytes()).await.unwrap();
    assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 101 "));
    tls.write_all(&spdy_streams()).await.unwrap();
    hear(&mut tls, &spdy_answers()).await;
    publish(&pod, &[grant(true)]);
    let words = last_words(tls).await;
    let text = String::from_utf8_lossy(&words);
    assert!(text.contains(ENDED), "{text}");
    assert_eq!(words[..4], [0, 0, 0, 1], "it is not on the error stream: {words:?}");
    assert_eq!(words[words.len() - 16..][..4], [0x80, 3, 0, 7], "it does not end with GOAWAY: {words:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_given_a_message_ends_too() {
    for (head, purpose) in [
        (websocket(SERVICE_PROXY), "Opaque"),
        (upgrade(FORWARD, "websocket", ""), "PortForward"),
        (upgrade(EXEC, "h2c", ""), "Exec"),
    ] {
        let pod = Pod::start(switching());
        let tls = begun(&pod, &head).await;
        publish(&pod, &[grant(false)]);
        last_words(tls).await;
        assert_eq!(ended(&pod, purpose, "NoGrant"), 1, "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_while_no_grant_wants_its_recording() {
    let pod = Pod::start(switching());
    let mut tls = begun(&pod, &websocket(EXEC)).await;
    for grants in [&[for_others(false)][..], &[for_others(true)], &[without_recorder()], &[]] {
        publish(&pod, grants);
        sleep(Duration::from_secs(20)).await;
        tls.write_all(&masked(b"\0more")).await.unwrap();
        hear(&mut tls, &masked(b"\0MORE")).await;
    }
    assert_eq!(ended(&pod, "Exec", "NoGrant"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_whatever_the_grants_say() {
    let pod = Pod::start(switching());
    let mut tls = begun(&pod, &websocket("/api/v1/namespaces/n/pods?watch=1")).await;
    publish(&pod, &[grant(true)]);
    sleep(Duration::from_secs(20)).await;
    tls.write_all(b"more").await.unwrap();
    hear(&mut tls, b"MORE").await;
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_read_ends_only_when_a_grant_fails_closed() {
    let pod = Setup::new(switching()).grants(&[grant(false)]).start();
    let mut tls = begun(&pod, &websocket("/api/v1/watch")).await;
    publish(&pod, &[for_others(false)]);
    sleep(Duration::from_secs(20)).await;
    tls.write_all(b"more").await.unwrap();
    hear(&mut tls, b"MORE").await;
    publish(&pod, &[for_others(true)]);
    last_words(tls).await;
    assert_eq!(ended(&pod, "Unknown", "Unrecorded"), 1);
}

/// A server that says what it is given, piece by piece, after its agreement, and tells when it has been left.
fn saying(pieces: mpsc::Receiver<Vec<u8>>, left: watch::Sender<bool>) -> Server {
    let (pieces, left) = (Arc::new(tokio::sync::Mutex::new(pieces)), Arc::new(left));
    Server::raw(move |mut stream| {
        let (pieces, left) = (Arc::clone(&pieces), Arc::clone(&left));
        async move {
            let head = read_head(&mut stream).await;
            if !head.contains("Upgrade:") {
                return stream
                    .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
                    .await
                    .unwrap();
            }
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                          Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut pieces = pieces.lock().await;
            let mut heard = [0; 64];
            loop {
                tokio::select! {
                    Some(piece) = pieces.recv() => if stream.write_all(&piece).await.is_err() { break },
                    read = stream.read(&mut heard) => if !matches!(read, Ok(1..)) { break },
                }
            }
            left.send_replace(true);
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_not_whole_is_not_said_before_the_message() {
    let (say, pieces) = mpsc::channel(1);
    let pod = Pod::start(saying(pieces, watch::Sender::new(false)));
    let mut tls = pod.tls(&[]).await;
    tls.write_all(websocket(EXEC).as_bytes()).await.unwrap();
    assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 101 "));
    say.send([&frame(b"\x01whole")[..], &frame(b"\x01half a frame")[..6]].concat()).await.unwrap();
    hear(&mut tls, &frame(b"\x01whole")).await;
    publish(&pod, &[grant(false)]);
    let words = last_words(tls).await;
    let text = String::from_utf8_lossy(&words);
    assert!(text.contains(ENDED) && !text.contains("half"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_left_in_time() {
    let (say, pieces) = mpsc::channel(1);
    let (sender, mut left) = watch::channel(false);
    let pod = Pod::start(saying(pieces, sender));
    let mut tls = pod.tls(&[]).await;
    tls.write_all(websocket(EXEC).as_bytes()).await.unwrap();
    assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 101 "));
    let flood = tokio::spawn(async move { while say.send(frame(&[1; 100]).repeat(100)).await.is_ok() {} });
    sleep(Duration::from_secs(1)).await;
    publish(&pod, &[grant(true)]);
    timeout(Duration::from_secs(5), left.wait_for(|left| *left)).await.expect("an end in time").unwrap();
    assert_eq!(ended(&pod, "Exec", "NoGrant"), 1);
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_command_is_held_to_the_grants_of_its_time() {
    for enforce in [false, true] {
        let (answer, may_answer) = watch::channel(false);
        let server = Server::new(move |request| {
            let mut may_answer = may_answer.clone();
            async move {
                let mut response = http::Response::new(full("uid=0"));
                if request.uri().path().contains("/run/") {
                    may_answer.wait_for(|may| *may).await.unwrap();
                } else {
                    *response.status_mut() = http::StatusCode::FORBIDDEN;
                }
                response
            }
        });
        let pod = Pod::start(server);
        let mut client = pod.http2().await;
        let asked = client.send_request(request("POST", "/api/v1/nodes/x/proxy/run/n/p/c?cmd=id", "secret"));
        let asked = tokio::spawn(asked);
        eventually(|| pod.server.connections() > 0).await;
        publish(&pod, &[grant(enforce)]);
        answer.send_replace(true);
        let heard = asked.await.unwrap().unwrap();
        assert_eq!(heard.status(), 500);
        let status: Status = serde_json::from_str(&text(heard).await).unwrap();
        assert!(
            status.message.starts_with("podwitness: session ended, Grant \"all\" asks"),
            "{}",
            status.message
        );
        assert_eq!(ended(&pod, "Node", "NoGrant"), 1);
    }
}
