//! Clients of the reference at the plain listener, where one address may be a proxy for many users.

use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use podwitness_wire::ack::Ack;

use crate::lab::{Client, HEADER, Recorder, acks, begin_on, connect, line};

/// A whole session, on a connection that stays open as long as the client: that its recording was acknowledged.
async fn session(recorder: &Recorder, number: u32) -> Result<Client, u16> {
    let mut client = connect(recorder.plain).await;
    let (writer, response) = begin_on(&mut client, recorder.plain).await;
    if response.status() != 200 {
        return Err(response.status().as_u16());
    }
    let cast = format!("{HEADER}{}", line(number, "said"));
    assert!(writer.send(&cast).await);
    let mut acks = acks(response.into_body());
    while acks.next().await.expect("it is acknowledged") != Ack::Received(cast.len() as u64) {}
    drop(writer);
    assert_eq!(acks.next().await, None);
    Ok(client)
}

/// The status of one event.
async fn event(client: &mut Client, recorder: &Recorder) -> u16 {
    let event = r#"{"type":"kubernetes-api-request","id":"","timestamp":1700000000,"userAgent":"test"}"#;
    let request = Request::post(format!("http://{}/v2/event", recorder.plain));
    let request = request.body(Full::from(event).boxed()).unwrap();
    client.send_request(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn three_hundred_sessions_begin_at_once_from_one_address() {
    let recorder = Recorder::start();
    let began = join_all((0..300).map(|_| async {
        let mut client = connect(recorder.plain).await;
        let (writer, response) = begin_on(&mut client, recorder.plain).await;
        (client, writer, response)
    }))
    .await;
    let refused: Vec<_> = began.iter().filter(|(.., response)| response.status() != 200).collect();
    assert!(refused.is_empty(), "{} of 300 are refused", refused.len());
    for (_client, writer, response) in began {
        let cast = format!("{HEADER}{}", line(1, "said"));
        assert!(writer.send(&cast).await);
        drop(writer);
        let mut acks = acks(response.into_body());
        let mut last = None;
        while let Some(ack) = acks.next().await {
            last = Some(ack);
        }
        assert_eq!(last, Some(Ack::Received(cast.len() as u64)));
    }
    assert_eq!(recorder.sums().len(), 300);
}

#[tokio::test]
async fn connections_that_sessions_leave_open_keep_no_session_out() {
    let recorder = Recorder::start();
    let mut left = Vec::new();
    for number in 0..300 {
        match session(&recorder, number).await {
            Ok(client) => left.push(client),
            Err(status) => panic!("session {number} is refused with {status}"),
        }
    }
    assert_eq!((recorder.sums().len(), left.len()), (300, 300));
}

#[tokio::test]
async fn events_are_no_sessions_and_lock_none_out() {
    let recorder = Recorder::start();
    let mut client = connect(recorder.plain).await;
    for number in 0..600 {
        assert_eq!(event(&mut client, &recorder).await, 200, "event {number}");
    }
    session(&recorder, 1).await.expect("a session behind the events");
    // Others at the same time, while sessions begin.
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(client.clone());
    }
    let events = join_all(clients.iter_mut().map(|client| event(client, &recorder)));
    let sessions = join_all((0..50).map(|number| session(&recorder, number)));
    let (events, sessions) = tokio::join!(events, sessions);
    assert!(events.iter().all(|status| *status == 200), "{events:?}");
    assert!(sessions.iter().all(Result::is_ok));
}
