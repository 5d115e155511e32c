//! Upgrades and sessions: decided before anything goes upstream, relayed byte for byte.

use std::time::Duration;

use http::Response;
use podwitness_core::{control::Netmap, inject::UntilNetmap, status::Status};
use podwitness_runtime::drain::Drained;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::*;

pub const EXEC: &str = "/api/v1/namespaces/n/pods/p/exec?command=sh&stdout=1";
const ATTACH: &str = "/api/v1/namespaces/n/pods/p/attach?stdout=1";

/// Sessions that were refused because they could not be recorded.
const REFUSED: &str = "session_ended_total{outcome=\"refused\",end=\"never\"}";

pub fn upgrade(path: &str, protocol: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{more}\r\n")
}

pub fn websocket(path: &str) -> String {
    let more = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
    upgrade(path, "websocket", more)
}

/// A server that switches protocols, says a first word in the same breath, then repeats what it hears in capitals;
/// its answer shows the request's head. Reviews and other requests get an empty answer.
pub fn switching() -> Server {
    Server::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        if !head.contains("Upgrade:") {
            return stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        }
        let chosen = if head.contains("v5.channel.k8s.io") {
            "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
        } else {
            ""
        };
        let protocol = head.lines().find_map(|line| line.strip_prefix("Upgrade: ")).unwrap();
        let seen = head.replace("\r\n", "|");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nuPGRADE: {protocol}\r\nConnection: Upgrade\r\nX-Seen: {seen}\r\n{chosen}\r\n"
        );
        // One write: the first bytes of the session come with the head.
        let mut first = answer.into_bytes();
        first.extend_from_slice(&frame(b"\x01first"));
        stream.write_all(&first).await.unwrap();
        let mut buf = [0; 1024];
        while let Ok(len @ 1..) = stream.read(&mut buf).await {
            buf[..len].make_ascii_uppercase();
            stream.write_all(&buf[..len]).await.unwrap();
        }
    })
}

/// An unmasked binary frame.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82, u8::try_from(payload.len()).unwrap()];
    frame.extend_from_slice(payload);
    frame
}

/// A masked binary frame with a mask of zeros.
pub fn masked(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// Says `head` and the first bytes of a session in one breath; the answer's head and what follows it.
pub async fn converse(pod: &Pod, head: &str) -> (String, Tls) {
    let mut tls = pod.tls(&[]).await;
    let mut first = head.as_bytes().to_vec();
    first.extend_from_slice(&masked(b"\0early"));
    tls.write_all(&first).await.unwrap();
    (read_head(&mut tls).await, tls)
}

pub async fn hear(tls: &mut Tls, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    tls.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, expected);
}

#[tokio::test(start_paused = true)]
async fn what_both_sides_said_too_early_arrives_first() {
    for (grants, head) in [
        (vec![], websocket(EXEC)),
        (vec![grant(false)], websocket(EXEC)),
        (vec![], websocket("/api/v1/namespaces/n/pods?watch=1")),
    ] {
        let pod = Setup::new(switching()).grants(&grants).start();
        let (answer, mut tls) = converse(&pod, &head).await;
        assert!(
            answer.starts_with(
                "HTTP/1.1 101 Switching Protocols\r\nuPGRADE: websocket\r\nConnection: Upgrade\r\n"
            ),
            "{answer}"
        );
        hear(&mut tls, &frame(b"\x01first")).await;
        hear(&mut tls, &masked(b"\0EARLY")).await;
        tls.write_all(&masked(b"\0later")).await.unwrap();
        hear(&mut tls, &masked(b"\0LATER")).await;
        // Two connections at most: one is the question who is calling.
        assert!(pod.server.connections() <= 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorded_session_asks_for_nothing_that_cannot_be_recorded() {
    let pod = Setup::new(switching()).grants(&[grant(false)]).start();
    let (answer, _tls) = converse(&pod, &websocket(EXEC)).await;
    assert!(!answer.contains("permessage-deflate"), "{answer}");
    assert!(answer.to_lowercase().contains("|audit-id: "), "{answer}");
    assert_eq!(pod.metric("upgrades_total{purpose=\"Exec\",outcome=\"Recorded\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_no_grant_wants_passes_as_it_is_and_is_counted() {
    let pod = Pod::start(switching());
    let (answer, _tls) = converse(&pod, &websocket(EXEC)).await;
    assert!(answer.contains("permessage-deflate") && !answer.to_lowercase().contains("audit-id"), "{answer}");
    assert_eq!(pod.metric("upgrades_total{purpose=\"Exec\",outcome=\"NoGrant\"}"), 1);
    assert_eq!(pod.server.connections(), 1, "nobody was asked who is calling");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_followed_passes_under_fail_open_and_is_refused_under_fail_closed() {
    for (head, purpose, outcome) in [
        // What the kubelet may offer there is recorded as it stands, too.
        (websocket("/api/v1/nodes/x/proxy/cri/exec/token"), "Node", "Recorded"),
        (upgrade("/api/v1/nodes/x/proxy/./cri/attach/token", "SPDY/3.1", ""), "Node", "Recorded"),
        (websocket("/api/v1/nodes/x/proxy/exec/n/p"), "Node", "Recorded"),
        // Of a command the server's bytes are recorded as they stand.
        (upgrade(EXEC, "websocket", "Sec-WebSocket-Protocol: v9.channel.k8s.io\r\n"), "Exec", "Recorded"),
        (upgrade(ATTACH, "h2c", ""), "Attach", "Recorded"),
        (websocket("/api/v1/watch"), "Unknown", "Unrecorded"),
        (websocket("/api/v1/nodes/x/proxy/%zz/../exec/n/p/c"), "Unknown", "Unrecorded"),
    ] {
        let open = Setup::new(switching()).grants(&[grant(false)]).start();
        let (answer, _tls) = converse(&open, &head).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let passed = format!("upgrades_total{{purpose=\"{purpose}\",outcome=\"{outcome}\"}}");
        assert_eq!(open.metric(&passed), 1, "{purpose}");

        refused_under_fail_closed(&head, purpose).await;
    }
}

async fn refused_under_fail_closed(head: &str, purpose: &str) {
    let closed = Setup::new(switching()).grants(&[grant(true)]).start();
    let mut tls = closed.tls(&[]).await;
    tls.write_all(head.as_bytes()).await.unwrap();
    let answer = read_head(&mut tls).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let length = answer.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    tls.read_exact(&mut body).await.unwrap();
    let body = String::from_utf8(body).unwrap();
    let status: Status = serde_json::from_str(&body).unwrap();
    assert!(
        status.message.contains("Grant \"all\"") && status.message.contains("cannot be recorded"),
        "{body}"
    );
    let refused = format!("upgrades_total{{purpose=\"{purpose}\",outcome=\"Refused\"}}");
    assert_eq!((closed.metric(&refused), closed.metric(REFUSED)), (1, 1), "{purpose}");
    assert_eq!(closed.server.connections(), 0, "nothing went upstream");
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_to_a_pod_is_recorded_whichever_way_it_goes() {
    let spdy = |path| upgrade(path, "SPDY/3.1", "");
    for (head, purpose) in [
        (spdy("/api/v1/namespaces/n/pods/p/portforward"), "PortForward"),
        (upgrade("/api/v1/namespaces/n/pods/p/portforward?ports=80", "websocket", ""), "PortForward"),
        (websocket("/api/v1/nodes/x/proxy/exec/n/p/c"), "Node"),
        (spdy("/api/v1/nodes/x/proxy/portForward/n/p"), "Node"),
        (websocket("/api/v1/namespaces/n/services/s/proxy/"), "Opaque"),
    ] {
        let open = Setup::new(switching()).grants(&[grant(false)]).start();
        let (answer, _tls) = converse(&open, &head).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let recorded = format!("upgrades_total{{purpose=\"{purpose}\",outcome=\"Recorded\"}}");
        assert_eq!(open.metric(&recorded), 1, "{head}");
    }
    refused_under_fail_closed(&websocket("/api/v1/namespaces/n/services/s/proxy/"), "Opaque").await;
}

#[tokio::test(start_paused = true)]
async fn a_command_run_through_a_node_is_held_to_the_policy_too() {
    let run = "POST /api/v1/nodes/x/proxy/run/n/p/c?cmd=id HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let closed =
        Setup::new(Server::new(|_| async { Response::new(full("uid=0")) })).grants(&[grant(true)]).start();
    let mut tls = closed.tls(&[]).await;
    tls.write_all(run.as_bytes()).await.unwrap();
    assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 403 "));
    assert_eq!(closed.server.connections(), 0);
    let open =
        Setup::new(Server::new(|_| async { Response::new(full("uid=0")) })).grants(&[grant(false)]).start();
    for head in
        [run.to_owned(), run.replace("\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")]
    {
        let mut tls = open.tls(&[]).await;
        tls.write_all(head.as_bytes()).await.unwrap();
        assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 200 "));
        hear(&mut tls, b"uid=0").await;
    }
    assert_eq!(open.metric("upgrades_total{purpose=\"Node\",outcome=\"Recorded\"}"), 2);
}

/// Whether an upgrade was asked for or not, and whatever the status.
#[tokio::test(start_paused = true)]
async fn an_answer_of_the_kubelet_to_what_is_not_known_is_recorded() {
    let ask = "POST /api/v1/nodes/x/proxy/cri/exec/token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let upgraded = ask.replace("\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n");
    for head in [ask.to_owned(), upgraded] {
        let server = || Server::new(|_| async { Response::new(full("uid=0")) }).http1();
        let closed = Setup::new(server()).grants(&[grant(true)]).start();
        let mut tls = closed.tls(&[]).await;
        tls.write_all(head.as_bytes()).await.unwrap();
        assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 403 "));
        assert_eq!(closed.server.connections(), 0);
        let open = Setup::new(server()).grants(&[grant(false)]).start();
        let mut tls = open.tls(&[]).await;
        tls.write_all(head.as_bytes()).await.unwrap();
        assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 200 "));
        hear(&mut tls, b"uid=0").await;
        assert_eq!(open.metric("upgrades_total{purpose=\"Node\",outcome=\"Recorded\"}"), 1, "{head}");
    }
}

/// Spellings of one path that the API server cleans before it asks the kubelet.
#[tokio::test(start_paused = true)]
async fn no_spelling_of_a_command_run_through_a_node_passes_unrecorded() {
    let server = || Server::new(|_| async { Response::new(full("uid=0")) });
    let paths = ["./run", "x/../run", "%2e/run", "/./run", "%ff/../run", "/run", "run/n/.."];
    let open = Setup::new(server()).grants(&[grant(false)]).start();
    let closed = Setup::new(server()).grants(&[grant(true)]).start();
    for path in paths {
        let run = format!(
            "POST /api/v1/nodes/x/proxy/{path}/n/./p/c?cmd=id HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        );
        let mut tls = closed.tls(&[]).await;
        tls.write_all(run.as_bytes()).await.unwrap();
        assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 403 "), "{path}");
        let mut tls = open.tls(&[]).await;
        tls.write_all(run.as_bytes()).await.unwrap();
        assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 200 "), "{path}");
        hear(&mut tls, b"uid=0").await;
    }
    assert_eq!(closed.server.connections(), 0);
    let recorded = open.metric("upgrades_total{purpose=\"Node\",outcome=\"Recorded\"}");
    assert_eq!(recorded, u64::try_from(paths.len()).unwrap());
}

/// Even where the grant that enforces covers one subresource: nobody can tell which this is.
#[tokio::test(start_paused = true)]
async fn a_path_that_cannot_be_read_passes_under_fail_open_and_is_refused_under_fail_closed() {
    let scoped = |enforce| {
        let mut grant = grant(enforce);
        grant.spec.app.kubernetes[0].resources = vec!["pods/exec".to_owned()];
        grant
    };
    for path in ["/api/v1/%zz", "/api/v1/watch", "/%"] {
        let answering = || Server::new(|_| async { Response::new(full("heard")) });
        let open = Setup::new(answering()).grants(&[scoped(false)]).start();
        let answer = open.http2().await.send_request(get(path)).await.unwrap();
        assert_eq!(text(answer).await, "heard", "{path}");
        let closed = Setup::new(answering()).grants(&[scoped(true)]).start();
        let answer = closed.http2().await.send_request(get(path)).await.unwrap();
        assert_eq!(answer.status(), http::StatusCode::FORBIDDEN, "{path}");
        let status: Status = serde_json::from_str(&text(answer).await).unwrap();
        assert!(status.message.contains("a request whose path cannot be read"), "{}", status.message);
        let upgrade = Setup::new(switching()).grants(&[scoped(true)]).start();
        let mut tls = upgrade.tls(&[]).await;
        tls.write_all(websocket(path).as_bytes()).await.unwrap();
        assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 403 "), "{path}");
        assert_eq!((closed.server.connections(), upgrade.server.connections()), (0, 0), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_netmap_a_closed_pod_asks_to_try_again() {
    let mut setup = Setup::new(switching());
    (setup.netmap, setup.until_netmap) = (None, UntilNetmap::Closed);
    let pod = setup.start();
    let (answer, _tls) = converse(&pod, &upgrade(ATTACH, "SPDY/3.1", "")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 2\r\n"), "{answer}");
    pod.netmap.send_replace(Some(Netmap::default().into()));
    let (answer, _tls) = converse(&pod, &upgrade(ATTACH, "SPDY/3.1", "")).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_declines_is_heard_with_its_body() {
    let server = Server::new(|_| async {
        let mut answer = Response::new(full("{\"message\":\"pods \\\"p\\\" not found\"}"));
        *answer.status_mut() = http::StatusCode::NOT_FOUND;
        answer
    });
    let pod = Pod::start(server.http1());
    let mut tls = pod.tls(&[]).await;
    tls.write_all(websocket(EXEC).as_bytes()).await.unwrap();
    assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 404 Not Found\r\n"));
    hear(&mut tls, b"{\"message\":\"pods \\\"p\\\" not found\"}").await;
    assert_eq!(pod.metric("upgrades_total{purpose=\"Exec\",outcome=\"Declined\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn two_tokens_in_one_upgrade_are_refused() {
    let pod = Pod::start(switching());
    let more = "Authorization: Bearer a\r\nSec-WebSocket-Protocol: v5.channel.k8s.io, \
                base64url.bearer.authorization.k8s.io.YQ\r\n";
    let (answer, _tls) = converse(&pod, &upgrade(EXEC, "websocket", more)).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(pod.server.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_none_to_us_is_none_to_the_server() {
    let pod = Pod::start(
        Server::new(|request: http::Request<hyper::body::Incoming>| async move {
            let upgrades =
                request.headers().contains_key("upgrade") || request.headers().contains_key("connection");
            Response::new(full(upgrades.to_string()))
        })
        .http1(),
    );
    for head in [
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Connection: keep-alive\r\nUpgrade: SPDY/3.1\r\n",
    ] {
        let mut tls = pod.tls(&[]).await;
        tls.write_all(format!("GET {EXEC} HTTP/1.1\r\nHost: x\r\n{head}\r\n").as_bytes()).await.unwrap();
        assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 200 "));
        hear(&mut tls, b"false").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_sessions_and_lets_nothing_new_in() {
    let mut pod = Pod::start(switching());
    let (_, mut session) = converse(&pod, &websocket(EXEC)).await;
    let mut idle = pod.http1().await;
    let drained = tokio::spawn(pod.signal.take().unwrap().drain(Duration::from_secs(600)));
    eventually(|| idle.is_closed()).await;
    assert!(idle.send_request(get1("/version")).await.is_err());
    hear(&mut session, &frame(b"\x01first")).await;
    hear(&mut session, &masked(b"\0EARLY")).await;
    assert!(!drained.is_finished());
    drop(session);
    assert_eq!(drained.await.unwrap(), Drained::All);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_outlives_the_drain_is_ended() {
    let mut pod = Pod::start(switching());
    let (_, mut session) = converse(&pod, &websocket(EXEC)).await;
    assert_eq!(pod.signal.take().unwrap().drain(Duration::from_secs(30)).await, Drained::Deadline);
    let mut rest = Vec::new();
    session.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_command_that_comes_again_over_spdy_hears_the_first_reason_and_counts_once() {
    let pod = Setup::new(switching()).grants(&[grant(true)]).start();
    let ask = async |head: String| {
        let mut tls = pod.tls(&[]).await;
        tls.write_all(head.as_bytes()).await.unwrap();
        let head = read_head(&mut tls).await;
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        tls.read_exact(&mut body).await.unwrap();
        serde_json::from_slice::<Status>(&body).unwrap().message
    };
    let first = ask(websocket(EXEC)).await;
    assert!(first.contains("no Recorder that is ready has its tag"), "{first}");
    assert_eq!(ask(upgrade(EXEC, "SPDY/3.1", "")).await, first);
    assert_eq!(pod.metric("upgrades_total{purpose=\"Exec\",outcome=\"Refused\"}"), 1);
    assert_eq!(pod.metric(REFUSED), 1);
    ask(upgrade(EXEC, "SPDY/3.1", "")).await;
    assert_eq!(pod.metric("upgrades_total{purpose=\"Exec\",outcome=\"Refused\"}"), 2, "that is another one");
}
