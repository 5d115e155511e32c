//! Clients of the reference at the plain listener.

use super::*;

/// A whole recording on a connection, whether its answer is read to its end or left.
async fn record(client: &mut http2::SendRequest<BodyOf>, n: u32, reads: bool) -> Option<Incoming> {
    let (writer, body) = body();
    let response = client.send_request(request("POST", "/v2/record", body)).await.unwrap();
    assert_eq!(response.status(), 200, "session {n}");
    let cast = format!("{HEADER}{}", line(n, "said"));
    writer.send(&cast).await;
    let mut acks = Acks { body: response.into_body(), reader: Reader::new() };
    acks.until(cast.len() as u64).await;
    drop(writer);
    if reads {
        assert_eq!(acks.last().await, None);
    }
    (!reads).then_some(acks.body)
}

/// Releases before 1.102 leave the connection of each session open, and some the answer.
#[tokio::test(start_paused = true)]
async fn connections_that_sessions_leave_open_keep_no_session_out_and_end() {
    let lab = Lab::new();
    let mut left = Vec::new();
    // More than one address may have.
    for n in 0..1200 {
        let mut client = lab.h2(Door::Plain).await;
        let answer = record(&mut client, n, n % 2 == 0).await;
        left.push((client, answer));
    }
    assert_eq!(lab.files("cast").len(), 1200);
    assert!(left.first().is_some_and(|(client, _)| client.is_closed()), "the oldest ended for the newest");
    tokio::time::sleep(Duration::from_secs(66)).await;
    assert!(left.iter().all(|(client, _)| client.is_closed()), "idle connections end by themselves");
}

#[tokio::test(start_paused = true)]
async fn an_address_whose_connections_are_all_busy_is_named() {
    let lab = Lab::new();
    let mut busy = Vec::new();
    for _ in 0..1024 {
        let mut client = lab.h2(Door::Plain).await;
        let (writer, body) = body();
        let response = client.send_request(request("POST", "/v2/record", body)).await.unwrap();
        assert_eq!(response.status(), 200);
        busy.push((client, writer, response));
    }
    let mut refused = lab.connect(Door::Plain);
    assert_eq!(refused.read(&mut [0]).await.unwrap(), 0);
    let told = lab.registry.encode().unwrap();
    let named = format!("podwitness_recorder_limited_total{{address=\"{FROM}\",reason=\"connections\"}} 1");
    assert!(told.contains(&named), "{told}");
    // Others are served.
    let mut other = lab.h2_from("10.0.0.7".parse().unwrap(), Door::Plain).await;
    record(&mut other, 1, true).await;
}
