//! API events: every request that a grant asks for, from before it goes upstream until its answer has ended.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use podwitness_core::{
    control::{Netmap, Notice, RecorderPeer},
    event::{Event, Stage},
    grant::Grant,
    inject::UntilNetmap,
};
use podwitness_proxy::BoxedStream;
use podwitness_runtime::drain::Drained;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use crate::{
    harness::*,
    recorder::{Ended, Mood, Network, Peer, Recorder, Seen},
};

const ONE: &str = "[fd70::1]:80";
const POD: &str = "/api/v1/namespaces/n/pods/p";

fn asking(enforce: bool) -> Grant {
    let rule = serde_json::json!({
        "recorder": ["tag:podwitness"], "enforceRecorder": enforce, "enableEvents": true
    });
    let spec =
        serde_json::json!({"src": ["*"], "dst": ["*"], "app": {"tailscale.com/cap/kubernetes": [rule]}});
    Grant { name: "all".into(), spec: serde_json::from_value(spec).unwrap() }
}

fn netmap(grant: Grant) -> Netmap {
    let address: std::net::SocketAddrV6 = ONE.parse().unwrap();
    let recorder = RecorderPeer {
        name: "podwitness".into(),
        replica: "r".into(),
        tags: vec!["tag:podwitness".into()],
        public_key: "k".into(),
        address: *address.ip(),
        port: address.port(),
        endpoint: "10.0.0.9:51820".parse().unwrap(),
        ack: None,
        plaintext: None,
        zone: None,
    };
    Netmap {
        cluster: "c1".into(),
        recorders: vec![recorder],
        grants: vec![grant].into(),
        ..Netmap::default()
    }
}

/// A pod, its recorder, and the number of requests that the API server saw, reviews apart.
struct Lab {
    pod: Pod,
    recorder: Arc<Recorder>,
    asked: Arc<AtomicUsize>,
}

impl Lab {
    fn new(enforce: bool) -> Self {
        Self::with(Some(netmap(asking(enforce))))
    }

    fn with(netmap: Option<Netmap>) -> Self {
        let network = Network::default();
        let recorder = network.add(ONE, Some("volume"));
        let asked = Arc::new(AtomicUsize::new(0));
        let server = api_server(Arc::clone(&asked));
        let setup = Setup { netmap, recorders: Arc::new(network), ..Setup::new(server) };
        Self { pod: setup.start(), recorder, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Every event that the recorder has.
    fn seen(&self) -> Vec<Event> {
        let uploads = self.recorder.uploads();
        let lines = uploads.iter().filter(|upload| upload.events).flat_map(|upload| {
            upload.body.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"))
        });
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    async fn events(&self, count: usize) -> Vec<Event> {
        eventually(|| self.seen().len() >= count).await;
        let seen = self.seen();
        assert_eq!(seen.len(), count, "{seen:?}");
        seen
    }

    async fn ask(&self, request: Request<TestBody>) -> (StatusCode, String) {
        let answer = self.pod.http2().await.send_request(request).await.unwrap();
        (answer.status(), text(answer).await)
    }
}

/// Answers reviews, refuses what is called `secret`, and never ends a watch.
fn api_server(asked: Arc<AtomicUsize>) -> Server {
    Server::new(move |request| {
        let asked = Arc::clone(&asked);
        async move {
            if request.uri().path().ends_with("selfsubjectreviews") {
                let user =
                    serde_json::json!({"status": {"userInfo": {"username": "ana", "groups": ["sre"]}}});
                return Response::new(full(user.to_string()));
            }
            asked.fetch_add(1, Ordering::SeqCst);
            let (parts, body) = request.into_parts();
            let received = body.collect().await.unwrap().to_bytes().len();
            if parts.uri.query().is_some_and(|query| query.contains("watch=true")) {
                let (feed, body) = fed();
                feed.send("{}\n").await.unwrap();
                tokio::spawn(async move {
                    let _feed = feed;
                    std::future::pending::<()>().await;
                });
                return Response::new(body);
            }
            if parts.uri.path().ends_with("secret") {
                let status = serde_json::json!({"kind": "Status", "reason": "Forbidden", "message": "no"});
                let mut denied = Response::new(full(status.to_string()));
                *denied.status_mut() = StatusCode::FORBIDDEN;
                return denied;
            }
            let audit = parts.headers.get("audit-id").map_or("", |id| id.to_str().unwrap());
            Response::new(full(format!("{audit} {received}")))
        }
    })
}

#[tokio::test]
async fn a_request_becomes_one_event_that_says_what_came_of_it() {
    let lab = Lab::new(false);
    let (status, answer) = lab.ask(get(&format!("{POD}?pretty=true"))).await;
    let [event] = lab.events(1).await.try_into().unwrap();
    let ours = &event.podwitness;
    assert_eq!((status, answer), (StatusCode::OK, format!("{} 0", ours.event)));
    assert_eq!((ours.audit_id == ours.event, ours.first, ours.stage), (true, true, Stage::Complete));
    assert_eq!((&*event.kubernetes.verb, &*event.kubernetes.name), ("get", "p"));
    assert_eq!((&*ours.caller.effective.name, ours.caller.verified), ("ana", true));
    assert_eq!((&*ours.cluster, &*ours.pod, &*ours.namespace), ("c1", "till", "shop"));
    assert_eq!((&*event.source.node, &*event.source.node_user), ("till.shop", "ana"));
    let answer = ours.answer.as_ref().unwrap();
    assert_eq!((answer.code, answer.bytes, &*answer.reason), (200, 28, ""));
    assert_eq!(ours.grants, ["all"]);
    assert!(!String::from_utf8(lab.recorder.uploads()[0].body.clone()).unwrap().contains("secret"));
}

#[tokio::test]
async fn the_audit_id_that_a_client_chose_stays() {
    let lab = Lab::new(false);
    let mut request = get(POD);
    request.headers_mut().insert("audit-id", "mine".parse().unwrap());
    assert_eq!(lab.ask(request).await.1, "mine 0");
    let [event] = lab.events(1).await.try_into().unwrap();
    assert_eq!(event.podwitness.audit_id, "mine");
    assert_ne!(event.podwitness.event, "mine");
}

#[tokio::test]
async fn nothing_is_written_where_no_grant_asks_for_it() {
    let lab = Lab::with(Some(netmap(grant(false))));
    assert_eq!(lab.ask(get(POD)).await.1, " 0", "and the request is as it was");
    assert_eq!(lab.pod.metric("events_written_total"), 0);
}

#[tokio::test]
async fn a_denied_request_keeps_its_reason() {
    let lab = Lab::new(false);
    assert_eq!(lab.ask(get(&format!("{POD}/secret"))).await.0, StatusCode::FORBIDDEN);
    let [event] = lab.events(1).await.try_into().unwrap();
    let answer = event.podwitness.answer.unwrap();
    assert_eq!((answer.code, &*answer.reason), (403, "Forbidden"));
}

#[tokio::test]
async fn of_a_body_the_fields_are_named_and_no_value_is_kept() {
    let lab = Lab::new(false);
    let mut request = request("PATCH", "/api/v1/namespaces/n/secrets/db", "secret");
    request.headers_mut().insert("content-type", "application/merge-patch+json".parse().unwrap());
    let body = r#"{"metadata":{"name":"db"},"data":{"password":"hunter2"}}"#;
    *request.body_mut() = full(body);
    lab.ask(request).await;
    let [event] = lab.events(1).await.try_into().unwrap();
    let sent = event.podwitness.body.unwrap();
    assert_eq!((sent.bytes, &*sent.content_type), (body.len() as u64, "application/merge-patch+json"));
    assert_eq!(
        (&*sent.touched.name, sent.touched.fields),
        ("db", vec!["data.password".to_owned(), "metadata.name".to_owned()])
    );
    assert!(!String::from_utf8(lab.recorder.uploads()[0].body.clone()).unwrap().contains("hunter2"));
}

#[tokio::test]
async fn of_a_media_type_no_parameter_is_kept() {
    let lab = Lab::new(false);
    let mut request = request("POST", "/api/v1/namespaces/n/secrets", "secret");
    request.headers_mut().insert("content-type", "Application/JSON ; password=hunter2".parse().unwrap());
    *request.body_mut() = full("{}");
    lab.ask(request).await;
    let [event] = lab.events(1).await.try_into().unwrap();
    assert_eq!(event.podwitness.body.unwrap().content_type, "application/json");
    assert!(!String::from_utf8(lab.recorder.uploads()[0].body.clone()).unwrap().contains("hunter2"));
}

#[tokio::test]
async fn a_watch_has_an_event_at_its_start_and_one_at_its_end() {
    let lab = Lab::new(false);
    let mut client = lab.pod.http2().await;
    let mut answer = client.send_request(get("/api/v1/pods?watch=true")).await.unwrap();
    assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "{}\n");
    let [started] = lab.events(1).await.try_into().unwrap();
    assert_eq!((started.podwitness.stage, started.podwitness.first), (Stage::Started, true));
    assert_eq!(started.podwitness.answer.unwrap().code, 200);
    drop(answer);
    let [_, complete] = lab.events(2).await.try_into().unwrap();
    assert_eq!(complete.podwitness.event, started.podwitness.event);
    assert_eq!((complete.podwitness.stage, complete.podwitness.first), (Stage::Complete, false));
    let answer = complete.podwitness.answer.unwrap();
    assert_eq!((answer.code, answer.bytes, &*answer.reason), (200, 3, "client-left"));
}

#[tokio::test]
async fn an_answer_that_is_broken_off_says_who_left() {
    let lab = Lab::new(false);
    let mut client = lab.pod.http2().await;
    let mut answer = client.send_request(get("/api/v1/pods?watch=true")).await.unwrap();
    assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "{}\n");
    lab.events(1).await;
    lab.pod.server.cut.send_modify(|times| *times += 1);
    let [_, complete] = lab.events(2).await.try_into().unwrap();
    assert_eq!(complete.podwitness.answer.unwrap().reason, "server-left");
}

#[tokio::test]
async fn under_fail_closed_a_request_goes_on_once_its_event_is_acknowledged() {
    let lab = Lab::new(true);
    lab.recorder.mood.send_replace(Mood::Forgetful);
    let mut client = lab.pod.http2().await;
    let asking = tokio::spawn(async move { client.send_request(get(POD)).await.unwrap().status() });
    let [requested] = lab.events(1).await.try_into().unwrap();
    assert_eq!((requested.podwitness.stage, lab.asked()), (Stage::Requested, 0));
    lab.recorder.mood.send_replace(Mood::Good);
    assert_eq!((asking.await.unwrap(), lab.asked()), (StatusCode::OK, 1));
    let [_, complete] = lab.events(2).await.try_into().unwrap();
    assert_eq!((complete.podwitness.stage, complete.podwitness.answer.unwrap().code), (Stage::Complete, 200));
}

#[tokio::test(start_paused = true)]
async fn under_fail_closed_what_cannot_be_recorded_is_refused_before_it_goes_upstream() {
    let lab = Lab::new(true);
    lab.recorder.die();
    let asked = tokio::time::Instant::now();
    let (status, text) = lab.ask(get(POD)).await;
    assert_eq!((status, lab.asked()), (StatusCode::SERVICE_UNAVAILABLE, 0));
    assert!(text.contains("no recorder can be reached") && text.contains("all"), "{text}");
    assert!(asked.elapsed() <= Duration::from_secs(11), "{:?}", asked.elapsed());
    let again = tokio::time::Instant::now();
    assert_eq!(lab.ask(get(POD)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(again.elapsed() < Duration::from_secs(1), "one delay, not one for everybody");
    assert_eq!(lab.pod.metric("events_refused_total"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_discovery_carries_its_reason_as_a_warning_and_is_noticed() {
    let mut lab = Lab::new(true);
    lab.recorder.die();
    let mut client = lab.pod.http2().await;
    for path in ["/api", "/apis/apps/v1", "/openapi/v3"] {
        let answer = client.send_request(get(path)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        let warning = answer.headers()["warning"].to_str().unwrap();
        assert!(warning.starts_with(r#"299 - "podwitness: Grant \"all\" asks"#), "{path}: {warning}");
    }
    let answer = client.send_request(get(POD)).await.unwrap();
    assert!(!answer.headers().contains_key("warning"), "kubectl prints the Status of this one");
    assert_eq!(lab.pod.noticed.try_recv(), Ok(Notice::RecordingRefused));
    assert!(lab.pod.noticed.try_recv().is_err(), "once in a while");
}

#[tokio::test(start_paused = true)]
async fn under_fail_open_nobody_waits_and_the_event_comes_later() {
    let lab = Lab::new(false);
    lab.recorder.die();
    assert_eq!(lab.ask(get(POD)).await.0, StatusCode::OK);
    lab.recorder.mood.send_replace(Mood::Good);
    assert_eq!(lab.events(1).await[0].kubernetes.name, "p");
    assert_eq!(lab.pod.metric("events_dropped_total"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_one_process_put_aside_the_next_one_ships() {
    let first = Lab::new(false);
    first.recorder.die();
    first.ask(get(POD)).await;
    let on_disk =
        || first.pod.metric("session_spool_bytes") > 0 && first.pod.metric("session_memory_bytes") == 0;
    eventually(on_disk).await;
    // It dies without a word: what is on its disk at this moment is all that there is.
    let [left] = first.pod.spooled().try_into().unwrap();
    let network = Network::default();
    let recorder = network.add(ONE, Some("volume"));
    let server = api_server(Arc::default());
    let (netmap, recorders) = (Some(netmap(asking(false))), Arc::new(network));
    let pod = Setup { netmap, recorders, left: Some(left), ..Setup::new(server) }.start();
    let next = Lab { pod, recorder, asked: Arc::default() };
    assert_eq!(next.events(1).await[0].kubernetes.name, "p");
    eventually(|| next.pod.spooled().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_uses_ends_and_the_next_event_begins_another() {
    let lab = Lab::new(false);
    for count in 1..=2 {
        lab.ask(get(POD)).await;
        lab.events(count).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        let ended =
            || lab.recorder.uploads().iter().filter(|upload| upload.ended == Ended::Cleanly).count() == count;
        eventually(ended).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_until_the_last_events_are_recorded() {
    let mut lab = Lab::new(false);
    lab.ask(get(POD)).await;
    let drained = lab.pod.signal.take().unwrap().drain(Duration::from_secs(20)).await;
    assert_eq!(drained, Drained::All);
    assert_eq!(lab.seen().len(), 1);
}

#[tokio::test]
async fn before_the_first_netmap_events_are_held_and_judged_by_it() {
    let lab = Lab::with(None);
    assert_eq!(lab.ask(get(POD)).await.0, StatusCode::OK);
    assert!(lab.seen().is_empty());
    lab.pod.netmap.send_replace(Some(Arc::new(netmap(asking(false)))));
    let [event] = lab.events(1).await.try_into().unwrap();
    assert_eq!((&*event.podwitness.cluster, event.podwitness.grants), ("c1", vec!["all".to_owned()]));
}

#[tokio::test]
async fn before_the_first_netmap_a_pod_that_is_closed_to_all_asks_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = api_server(Arc::clone(&asked));
    let setup = Setup { netmap: None, until_netmap: UntilNetmap::ClosedToAll, ..Setup::new(server) };
    let answer = setup.start().http2().await.send_request(get(POD)).await.unwrap();
    assert_eq!((answer.status(), asked.load(Ordering::SeqCst)), (StatusCode::SERVICE_UNAVAILABLE, 0));
    assert_eq!(answer.headers()["retry-after"], "2");
}

/// A lab whose API server switches protocols and says "hi".
fn talking(grant: Grant) -> Lab {
    let network = Network::default();
    let recorder = network.add(ONE, Some("volume"));
    let server = Server::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        if !head.contains("Upgrade:") {
            return stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.write_all(b"\x82\x03\x01hi").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let setup = Setup { netmap: Some(netmap(grant)), recorders: Arc::new(network), ..Setup::new(server) };
    Lab { pod: setup.start(), recorder, asked: Arc::default() }
}

impl Lab {
    /// Runs a session until it says "hi".
    async fn exec(&self, query: &str) -> Tls {
        let mut tls = self.pod.tls(&[]).await;
        let head = format!(
            "GET {POD}/exec?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
        );
        tls.write_all(head.as_bytes()).await.unwrap();
        assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 101"));
        tls.read_exact(&mut [0; 5]).await.unwrap();
        tls
    }

    /// The only recording, once it is over.
    async fn cast(&self) -> String {
        let over = |upload: &&Seen| !upload.events && upload.ended == Ended::Cleanly;
        eventually(|| self.recorder.uploads().iter().filter(over).count() == 1).await;
        let cast = self.recorder.uploads().into_iter().find(|upload| !upload.events).unwrap();
        String::from_utf8(cast.body).unwrap()
    }
}

#[tokio::test]
async fn a_session_shares_its_id_with_its_recording() {
    let lab = talking(asking(false));
    let tls = lab.exec("command=sh&stdout=1").await;
    let [started] = lab.events(1).await.try_into().unwrap();
    assert_eq!((started.podwitness.stage, &*started.kubernetes.subresource), (Stage::Started, "exec"));
    drop(tls);
    let [_, complete] = lab.events(2).await.try_into().unwrap();
    let ours = complete.podwitness;
    assert_eq!((&ours.session, ours.answer.unwrap().bytes >= 5), (&ours.event, true));
    assert!(lab.cast().await.contains(&ours.session));
}

#[tokio::test]
async fn values_that_a_grant_hides_are_in_no_event_and_in_no_recording() {
    let mut grant = asking(false);
    grant.spec.app.kubernetes[0].mask_flags = vec!["--password".into()];
    let lab = talking(grant);
    drop(lab.exec("command=mysql&command=--password%3Dhunter2&command=shop&stdout=1").await);
    let cast = lab.cast().await;
    lab.events(2).await;
    for upload in lab.recorder.uploads() {
        let text = String::from_utf8(upload.body).unwrap();
        assert!(!text.contains("hunter2") && text.contains("--password=[withheld]"), "{text}");
    }
    assert!(cast.contains("mysql --password=[withheld] shop"), "{cast}");
}

/// A recorder that knows the reference protocol of events and nothing of recordings.
#[derive(Default)]
struct Reference {
    bodies: Arc<Mutex<Vec<Bytes>>>,
    without_events: bool,
}

impl Peer for Reference {
    fn dialled(&self) -> io::Result<BoxedStream> {
        let (near, far) = duplex(64 << 10);
        let (bodies, without_events) = (Arc::clone(&self.bodies), self.without_events);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let bodies = Arc::clone(&bodies);
                async move {
                    let mut answer = Response::new(Full::<Bytes>::default());
                    if request.uri().path() != "/v2/event" || without_events {
                        *answer.status_mut() = StatusCode::NOT_FOUND;
                    } else if request.method() == Method::POST {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        bodies.lock().unwrap().push(body);
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(far), service).await;
        });
        Ok(Box::new(near))
    }
}

fn with_reference(reference: Reference, enforce: bool) -> (Pod, Arc<AtomicUsize>) {
    let network = Network::default();
    network.put(ONE, Arc::new(reference));
    let asked = Arc::new(AtomicUsize::new(0));
    let server = api_server(Arc::clone(&asked));
    let setup =
        Setup { netmap: Some(netmap(asking(enforce))), recorders: Arc::new(network), ..Setup::new(server) };
    (setup.start(), asked)
}

#[tokio::test]
async fn a_reference_recorder_gets_one_post_a_request_with_the_keys_it_knows() {
    let reference = Reference::default();
    let bodies = Arc::clone(&reference.bodies);
    let (pod, _) = with_reference(reference, true);
    for _ in 0..3 {
        assert_eq!(pod.http2().await.send_request(get(POD)).await.unwrap().status(), StatusCode::OK);
    }
    let bodies = bodies.lock().unwrap().clone();
    assert_eq!(bodies.len(), 3);
    for body in bodies {
        let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&event["type"], &event["kubernetes"]["Name"]),
            (&"kubernetes-api-request".into(), &"p".into())
        );
        assert_eq!((event.get("podwitness"), body.ends_with(b"\n")), (None, true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_takes_no_events_cannot_record_them() {
    let reference = Reference { without_events: true, ..Reference::default() };
    let (pod, asked) = with_reference(reference, true);
    let answer = pod.http2().await.send_request(get(POD)).await.unwrap();
    assert_eq!((answer.status(), asked.load(Ordering::SeqCst)), (StatusCode::SERVICE_UNAVAILABLE, 0));
}
