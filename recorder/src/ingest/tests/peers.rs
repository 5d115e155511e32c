//! Peers of the tunnel: each adds to what its own pod said, none reads, and none takes more than its share.

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use podwitness_core::assertion::{self, Claims, sign};
use podwitness_tunnel::{PrivateKey, PublicKey, address};
use podwitness_wire::cast::MAX_HEADER;

use super::*;

/// A tunnel whose peers are admitted, and who may speak for them.
struct Tunnel {
    keys: [PublicKey; 2],
    issuer: Issuer,
    pkcs8: Vec<u8>,
}

impl Gatekeeper for Tunnel {
    fn peer(&self, from: std::net::Ipv6Addr) -> Option<TunnelPeer> {
        let key = self.keys.iter().find(|key| address(key) == from)?;
        Some(TunnelPeer { key: *key, admitted: true })
    }

    fn admit(&self, _: &PublicKey, _: Duration) -> bool {
        true
    }
}

impl Tunnel {
    fn new() -> Arc<Self> {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public_key = STANDARD.encode(pair.public_key().as_ref());
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let keys = [(); 2].map(|()| PrivateKey::generate().unwrap().public());
        let issuer = Issuer { id: "k".into(), cluster: "c".into(), public_key };
        Arc::new(Self { keys, issuer, pkcs8: der.as_ref().to_vec() })
    }

    fn lab(&self) -> Lab {
        let issuers = Arc::from([self.issuer.clone()]);
        Lab::with(|parts| parts.issuers = watch::Sender::new(issuers).subscribe(), 0)
    }

    /// HTTP/2 from the pod `shop/till-N`.
    async fn connect(self: &Arc<Self>, lab: &Lab, pod: usize) -> http2::SendRequest<BodyOf> {
        let door = Door::Tunnel(Arc::clone(self) as Arc<dyn Gatekeeper>);
        lab.h2_from(address(&self.keys[pod]).into(), door).await
    }

    fn assertion(&self, pod: usize) -> http::HeaderValue {
        let claims = Claims {
            cluster: "c".into(),
            namespace: "shop".into(),
            pod: format!("till-{pod}"),
            pod_uid: format!("uid-{pod}"),
            node: "n".into(),
            service_account: "default".into(),
            key: self.keys[pod].to_string(),
            mode: None,
            iat: 1_700_000_000,
            exp: 1_700_000_600,
        };
        sign(&claims, "k", &self.pkcs8).unwrap().parse().unwrap()
    }

    /// The last word on an upload of a pod.
    async fn upload(self: &Arc<Self>, lab: &Lab, pod: usize, cast: &str) -> Option<Ack> {
        let (writer, body) = body();
        let mut request = request("POST", "/v2/record", body);
        request.headers_mut().insert(assertion::HEADER, self.assertion(pod));
        let response = self.connect(lab, pod).await.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        writer.send(cast).await;
        drop(writer);
        Acks { body: response.into_body(), reader: Reader::new() }.last().await
    }
}

fn header(podwitness: &serde_json::Value) -> String {
    let header = serde_json::json!({"version": 2, "width": 80, "height": 24, "podwitness": podwitness});
    format!("{header}\n")
}

#[tokio::test(start_paused = true)]
async fn a_pod_adds_to_its_own_sessions_only() {
    let tunnel = Tunnel::new();
    let lab = tunnel.lab();
    let ours = header(&serde_json::json!({"session": "s", "pod": "till-0"})) + &line(1, "ours");
    assert_eq!(tunnel.upload(&lab, 0, &ours).await, Some(Ack::Received(ours.len() as u64)));
    // In its name, in its place, and with its id.
    for lie in [
        serde_json::json!({"session": "s", "part": 1, "pod": "till-0"}),
        serde_json::json!({"session": "s", "part": 1, "podUID": "uid-0"}),
        serde_json::json!({"session": "s", "part": 1, "cluster": "d"}),
        serde_json::json!({"session": "../till-0/s", "part": 1}),
    ] {
        let last = tunnel.upload(&lab, 1, &(header(&lie) + &line(1, "theirs"))).await;
        assert!(matches!(last, Some(Ack::Failed(_))), "{lie}: {last:?}");
        assert_eq!(lab.files("cast").len(), 1, "{lie}");
    }
    let theirs = header(&serde_json::json!({"session": "s"})) + &line(1, "theirs");
    assert_eq!(tunnel.upload(&lab, 1, &theirs).await, Some(Ack::Received(theirs.len() as u64)));
    let files = lab.files("cast");
    let ends: Vec<bool> = ["c/shop/till-0/s.0.cast", "c/shop/till-1/s.0.cast"]
        .iter()
        .zip(&files)
        .map(|(end, file)| file.ends_with(end))
        .collect();
    assert_eq!((files.len(), ends), (2, vec![true, true]), "{files:?}");
    // Not even its own: what is there stays as it is.
    let again = header(&serde_json::json!({"session": "s"})) + &line(9, "something else");
    assert!(matches!(tunnel.upload(&lab, 0, &again).await, Some(Ack::Failed(_))));
    assert_eq!(std::fs::read(&files[0]).unwrap(), ours.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn no_peer_reads_what_is_there() {
    let tunnel = Tunnel::new();
    let lab = tunnel.lab();
    let cast = header(&serde_json::json!({"session": "s"})) + &line(1, "a secret");
    tunnel.upload(&lab, 0, &cast).await;
    let stored = lab.files("cast").remove(0);
    let below = format!("/{}", stored.strip_prefix(lab.dir.path()).unwrap().display());
    let mut sender = tunnel.connect(&lab, 0).await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        for path in [
            "/v2/record",
            "/v2/record/s",
            "/record",
            "/v2/event",
            "/",
            "/api/v1/sessions",
            "/metrics",
            "/readyz",
            "/../",
            &below,
        ] {
            let mut request = request(method, path, no_body());
            request.headers_mut().insert(assertion::HEADER, tunnel.assertion(0));
            let response = sender.send_request(request).await.unwrap();
            assert!([404, 405].contains(&response.status().as_u16()), "{method} {path}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body.is_empty(), "{method} {path}: {body:?}");
        }
    }
    assert_eq!(std::fs::read(&stored).unwrap(), cast.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn headers_and_lines_above_their_caps_end_in_an_error_frame() {
    let lab = Lab::new();
    let (writer, mut acks) = lab.post().await;
    writer.send("x".repeat(MAX_HEADER + 1)).await;
    assert!(matches!(acks.last().await, Some(Ack::Failed(text)) if text.contains("line 1 is longer")));
    assert_eq!(lab.files("cast"), Vec::<PathBuf>::new());

    let (writer, mut acks) = lab.post().await;
    writer.send(HEADER).await;
    acks.until(HEADER.len() as u64).await;
    writer.send(line(1, &"x".repeat(1 << 20))).await;
    assert!(matches!(acks.last().await, Some(Ack::Failed(text)) if text.contains("line 2 is longer")));
    assert_eq!(lab.only().0, HEADER.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_peer_has_its_share_of_sessions_and_no_more() {
    let caps = Caps { sessions: 2, shared_burst: 3, refill: Duration::from_secs(1), ..Caps::default() };
    let lab = Lab::with(|parts| parts.peers = Peers::new(caps), 0);
    let mut sender = lab.h2(Door::Plain).await;
    let mut begin = async || {
        let (writer, body) = body();
        let response = sender.send_request(request("POST", "/v2/record", body)).await.unwrap();
        match response.status().as_u16() {
            200 => Ok((writer, Acks { body: response.into_body(), reader: Reader::new() })),
            status => Err(status),
        }
    };
    let lasting = [begin().await.ok().unwrap(), begin().await.ok().unwrap()];
    assert_eq!(begin().await.err(), Some(429), "two at a time");
    for (writer, mut acks) in lasting {
        drop(writer);
        assert_eq!(acks.last().await, None);
    }
    let _third = begin().await.ok().unwrap();
    assert_eq!(begin().await.err(), Some(429), "three at once");
    let told = lab.registry.encode().unwrap();
    for reason in ["sessions", "rate"] {
        let counted = format!("podwitness_recorder_refused_total{{reason=\"{reason}\"}} 1");
        assert!(told.contains(&counted), "{told}");
        let named = format!("podwitness_recorder_limited_total{{address=\"{FROM}\",reason=\"{reason}\"}} 1");
        assert!(told.contains(&named), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_keep_no_peer_waiting() {
    let tunnel = Tunnel::new();
    let lab = tunnel.lab();
    let mut idle = Vec::new();
    for n in 0..600_u16 {
        // Of many who are not admitted, and of one who is.
        let stranger = format!("fd00::{n:x}");
        idle.push(lab.connect_from(stranger.parse().unwrap(), strangers(&stranger)));
        let door = Door::Tunnel(Arc::clone(&tunnel) as Arc<dyn Gatekeeper>);
        idle.push(lab.connect_from(address(&tunnel.keys[1]).into(), door));
    }
    for pod in [0, 1] {
        let cast = header(&serde_json::json!({"session": format!("s{pod}")})) + &line(1, "x");
        assert_eq!(tunnel.upload(&lab, pod, &cast).await, Some(Ack::Received(cast.len() as u64)));
    }
    let told = lab.registry.encode().unwrap();
    assert!(told.contains("podwitness_connections_evicted_total{listener=\"tunnel-peers\"} 3"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn an_upload_outlives_any_number_of_idle_connections_of_its_peer() {
    let tunnel = Tunnel::new();
    let lab = tunnel.lab();
    let (writer, body) = body();
    let mut request = request("POST", "/v2/record", body);
    request.headers_mut().insert(assertion::HEADER, tunnel.assertion(0));
    let response = tunnel.connect(&lab, 0).await.send_request(request).await.unwrap();
    let mut acks = Acks { body: response.into_body(), reader: Reader::new() };
    let cast = header(&serde_json::json!({"session": "s"}));
    writer.send(&cast).await;
    acks.until(cast.len() as u64).await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        let door = Door::Tunnel(Arc::clone(&tunnel) as Arc<dyn Gatekeeper>);
        idle.push(lab.connect_from(address(&tunnel.keys[0]).into(), door));
    }
    let more = line(1, "goes on");
    writer.send(&more).await;
    acks.until((cast.len() + more.len()) as u64).await;
}

/// What a session is described by stays in memory while it lasts.
#[tokio::test(start_paused = true)]
async fn sessions_with_long_descriptions_are_fewer() {
    let lab = Lab::with(|parts| parts.memory.described.per_key = 10_000, 0);
    let long = |n: u32| {
        let command = "x".repeat(4000);
        format!("{{\"version\":2,\"command\":\"{command}\",\"podwitness\":{{\"session\":\"s{n}\"}}}}\n")
    };
    let mut lasting = Vec::new();
    for n in 0..2 {
        let (writer, mut acks) = lab.post().await;
        writer.send(long(n)).await;
        acks.until(long(n).len() as u64).await;
        lasting.push((writer, acks));
    }
    let (writer, mut acks) = lab.post().await;
    writer.send(long(3)).await;
    assert!(
        matches!(acks.last().await, Some(Ack::Failed(text)) if text.contains("no memory for more sessions"))
    );
    let (writer, mut acks) = lasting.remove(0);
    drop(writer);
    while acks.next().await.is_some() {}
    let (writer, mut acks) = lab.post().await;
    writer.send(long(4)).await;
    acks.until(long(4).len() as u64).await;
}
