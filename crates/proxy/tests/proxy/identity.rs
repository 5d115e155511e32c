//! Who is calling is asked once, with the caller's own credential.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use podwitness_core::grant::Grant;
use tokio::io::AsyncWriteExt as _;

use crate::harness::*;

const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// A server that knows the bearers of two tokens and obeys impersonation; it refuses every session with 418, so that
/// who gets that far is seen.
fn knowing(asked: &Arc<AtomicUsize>, agents: &Arc<Mutex<Vec<String>>>) -> Server {
    let (asked, agents) = (Arc::clone(asked), Arc::clone(agents));
    Server::new(move |request: Request<Incoming>| {
        let mut answer = Response::new(full(""));
        *answer.status_mut() = StatusCode::IM_A_TEAPOT;
        if request.uri().path() == REVIEW {
            asked.fetch_add(1, Ordering::SeqCst);
            let text = |name| {
                request.headers().get(name).map(|v: &http::HeaderValue| v.to_str().unwrap().to_owned())
            };
            agents.lock().unwrap().push(text("user-agent").unwrap());
            let known = text("authorization").filter(|value| value != "Bearer unknown");
            let user = text("impersonate-user").or_else(|| known.map(|value| value.replace("Bearer ", "")));
            answer = match user {
                Some(user) => {
                    let info =
                        serde_json::json!({"status": {"userInfo": {"username": user, "groups": ["g"]}}});
                    Response::new(full(info.to_string()))
                }
                None => Response::builder().status(401).body(full("")).unwrap(),
            };
        }
        async move { answer }
    })
}

/// A closed grant for one user: whoever it is taken for is refused an unrecordable session.
fn only(user: &str) -> Grant {
    let mut grant = grant(true);
    grant.spec.src = vec![user.to_owned()];
    grant
}

async fn attach(pod: &Pod, headers: &str) -> u16 {
    attach_with(pod, headers.as_bytes()).await
}

async fn attach_with(pod: &Pod, headers: &[u8]) -> u16 {
    let mut tls = pod.tls(&[]).await;
    let head = b"GET /api/v1/namespaces/n/pods/p/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    tls.write_all(&[&head[..], headers, b"\r\n"].concat()).await.unwrap();
    read_head(&mut tls).await.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Else a session could be recorded as one user's and run as another's.
#[tokio::test(start_paused = true)]
async fn a_second_credential_is_seen_beside_bytes_that_are_no_ascii() {
    let (pod, asked, _) = pod();
    let subprotocol = b"base64url.bearer.authorization.k8s.io.Ym9i";
    for offer in [
        [b"\xff, ", &subprotocol[..]].concat(),
        [b"\xc2\xa0", &subprotocol[..]].concat(),
        [&subprotocol[..], b", caf\xc3\xa9"].concat(),
    ] {
        let headers =
            [b"Authorization: Bearer ana\r\nSec-WebSocket-Protocol: ", &offer[..], b"\r\n"].concat();
        assert_eq!(attach_with(&pod, &headers).await, 400, "{offer:x?}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

fn pod() -> (Pod, Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>) {
    let (asked, agents) = (Arc::default(), Arc::default());
    (Setup::new(knowing(&asked, &agents)).grants(&[only("bob")]).start(), asked, agents)
}

#[tokio::test(start_paused = true)]
async fn the_grants_that_apply_are_those_of_the_authenticated_and_of_the_effective_user() {
    let (pod, ..) = pod();
    for (headers, status) in [
        ("Authorization: Bearer ana\r\n", 418),
        ("Authorization: Bearer bob\r\n", 403),
        ("Authorization: Bearer ana\r\nImpersonate-User: bob\r\n", 403),
        ("Authorization: Bearer bob\r\nImpersonate-User: ana\r\n", 403),
        ("Authorization: Bearer ana\r\nImpersonate-User: eve\r\n", 418),
        ("", 418),
    ] {
        assert_eq!(attach(&pod, headers).await, status, "{headers}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_known_is_held_to_every_grant() {
    let (pod, ..) = pod();
    assert_eq!(attach(&pod, "Authorization: Bearer unknown\r\n").await, 403);
    assert_eq!(pod.metric("identity_reviews_total{outcome=\"Claimed\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn simultaneous_and_later_callers_share_one_question() {
    let (pod, asked, agents) = pod();
    let answers =
        futures_util::future::join_all((0..20).map(|_| attach(&pod, "Authorization: Bearer ana\r\n"))).await;
    assert!(answers.iter().all(|status| *status == 418));
    attach(&pod, "Authorization: Bearer ana\r\n").await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    attach(&pod, "Authorization: Bearer ana\r\nImpersonate-User: eve\r\n").await;
    attach(&pod, "Authorization: Bearer ana\r\nImpersonate-User: eve\r\nImpersonate-Group: g\r\n").await;
    assert_eq!(asked.load(Ordering::SeqCst), 3, "each impersonation is another question");
    assert!(agents.lock().unwrap().iter().all(|agent| agent.starts_with("podwitness/")));
}

#[tokio::test(start_paused = true)]
async fn a_token_in_a_subprotocol_is_asked_about_like_any_other() {
    let (pod, asked, _) = pod();
    // "bob" and "ana" in base64url.
    for (token, status) in [("Ym9i", 403), ("YW5h", 418)] {
        let header = format!("Sec-WebSocket-Protocol: x, base64url.bearer.authorization.k8s.io.{token}\r\n");
        assert_eq!(attach(&pod, &header).await, status);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn that_no_answer_comes_is_remembered_for_seconds() {
    let (pod, asked, _) = pod();
    for _ in 0..3 {
        assert_eq!(attach(&pod, "Authorization: Bearer unknown\r\n").await, 403);
    }
    // Nobody is asked about an impersonation that cannot be verified.
    assert_eq!(attach(&pod, "Authorization: Bearer unknown\r\nImpersonate-User: eve\r\n").await, 403);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_secs(3)).await;
    attach(&pod, "Authorization: Bearer unknown\r\n").await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_with_an_event_asks_once_who_is_calling() {
    let (asked, agents) = (Arc::default(), Arc::default());
    let mut both = only("bob");
    both.spec.app.kubernetes[0].enable_events = true;
    let pod = Setup::new(knowing(&asked, &agents)).grants(&[both]).start();
    attach(&pod, "Authorization: Bearer ana\r\n").await;
    assert_eq!(pod.metric("identity_reviews_total{outcome=\"Verified\"}"), 1);
    attach(&pod, "Authorization: Bearer unknown\r\n").await;
    assert_eq!(pod.metric("identity_reviews_total{outcome=\"Claimed\"}"), 1);
}
