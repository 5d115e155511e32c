use http::{Request, StatusCode};
use kube::Client;
use podwitness_core::{
    control::{ServingNames, Update},
    inject::ControlAddress,
    trust::{Trust, TrustSetting},
};
use podwitness_runtime::{
    clock::SystemClock,
    descriptors,
    drain::Drain,
    quota::QuotaMetrics,
    tls::{
        self,
        resolver::{HotCert, certified_key},
    },
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
};

use super::{
    super::{
        access::testing::{self as access, setup},
        assertions::testing::assertions,
        certificates::chain::ClusterCa,
        enrolments::Enrolments,
        events,
        pod::testing::{injected, pod},
        pods::testing::pods,
        testing::Api,
        token::testing::{Cluster, NOW, claims},
        world::{Published, World, testing::world},
    },
    *,
};
use crate::certs::Authority;

const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const OTHER: &str = "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=";

struct Setup {
    api: Api,
    cluster: Cluster,
    server: Server,
    client: Client,
    worlds: watch::Sender<Option<Arc<Published>>>,
    _drain: drain::Signal,
}

fn server() -> Setup {
    server_with(false)
}

/// A server that gets certificates, or does not.
fn server_with(certificates: bool) -> Setup {
    let access::Setup { api, cluster, access } = setup();
    let (signal, drain) = Drain::new();
    let worlds = watch::Sender::new(Some(Arc::new(Published { generation: 1, world: world() })));
    let (assertions, clock) = assertions(NOW);
    let enrolments = Enrolments::default();
    let feeds = Feeds {
        worlds: worlds.subscribe(),
        enrolments: enrolments.clone(),
        assertions: assertions.clone(),
        pods: pods(vec![pod(injected())], api.client()),
        drain,
    };
    let changed = Arc::new(Notify::new());
    let enrol = Enrol { enrolments, assertions, worlds: worlds.subscribe(), changed };
    let (events, publisher) = events::channel(api.client());
    tokio::spawn(publisher.run());
    let (metrics, ca) = (Metrics::default(), ClusterCa::at("/nowhere".into()));
    let certificates =
        certificates.then(|| Certificates::new(api.client(), ca, Arc::clone(&clock) as Arc<dyn Clock>));
    let server = Server::new(Parts { access, enrol, feeds, certificates, events, metrics, clock });
    let router = server.router("10.0.0.7:40000".parse().unwrap(), ConnectionHandle::uncounted());
    let client = Client::new(router, "default");
    Setup { api, cluster, server, client, worlds, _drain: signal }
}

impl Setup {
    async fn send(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: impl Into<Vec<u8>>,
    ) -> http::Response<kube::client::Body> {
        let request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        self.client.send(request.body(body.into().into()).unwrap()).await.unwrap()
    }

    async fn enrol(&self, key: &str) -> (StatusCode, Value) {
        let body = json!({"publicKey": key}).to_string();
        let response = self.send("POST", ENROL, &self.cluster.sign(&claims()), body).await;
        let status = response.status();
        let body = response.into_body().collect_bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

#[tokio::test]
async fn a_notice_of_a_sidecar_is_an_event_until_there_are_too_many() {
    let setup = server();
    let path = "/apis/events.k8s.io/v1/namespaces/shop/events";
    setup.api.answer("POST", path, json!({"metadata": {}, "eventTime": null}));
    let give = async |body: &str| {
        let token = setup.cluster.sign(&claims());
        setup.send("POST", NOTICE, &token, body.to_owned()).await.status()
    };
    assert_eq!(give(r#"{"notice":"nonsense"}"#).await, StatusCode::BAD_REQUEST);
    assert_eq!(give(r#"{"notice":{"recorder":"refusing"}}"#).await, StatusCode::FORBIDDEN);
    for _ in 0..8 {
        assert_eq!(give(r#"{"notice":"no-grant"}"#).await, StatusCode::NO_CONTENT);
    }
    assert_eq!(give(r#"{"notice":"no-grant"}"#).await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        setup.send("POST", NOTICE, "stranger", String::new()).await.status(),
        StatusCode::UNAUTHORIZED
    );
    let published = async {
        while setup.api.count(path) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), published).await.unwrap();
    let event = &setup.api.bodies("POST", path)[0];
    assert_eq!((&event["reason"], &event["regarding"]["uid"]), (&json!("NoGrant"), &json!("uid-till")));
}

#[tokio::test]
async fn a_certificate_is_for_pods_whose_netmap_names_one_and_for_what_it_names() {
    let ask = async |setup: &Setup, body: String| {
        setup.send("POST", CERTIFICATE, &setup.cluster.sign(&claims()), body).await.status()
    };
    let body = || json!({"request": "AAAA"}).to_string();
    assert_eq!(ask(&server(), body()).await, StatusCode::NOT_FOUND, "as of a version that has none");
    let setup = server_with(true);
    assert_eq!(ask(&setup, body()).await, StatusCode::CONFLICT, "the netmap names none");
    let mut world = World {
        trust: TrustSetting::Namespace,
        serving: Some(ServingNames { names: vec!["kubernetes".into()], ..ServingNames::default() }),
        ..world()
    };
    world.namespaces.get_mut("shop").unwrap().trust = Some(Trust::Cluster);
    setup.worlds.send_replace(Some(Arc::new(Published { generation: 2, world })));
    assert_eq!(ask(&setup, body()).await, StatusCode::BAD_REQUEST);
    let long = json!({"request": "A".repeat(MAX_REQUEST_BODY)}).to_string();
    assert_eq!(ask(&setup, long).await, StatusCode::PAYLOAD_TOO_LARGE);
    let path = "/apis/events.k8s.io/v1/namespaces/shop/events";
    let published = async {
        while setup.api.count(path) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), published).await.unwrap();
    assert_eq!(setup.api.bodies("POST", path)[0]["reason"], json!("NoClusterCertificate"));
    for _ in 0..2 {
        assert_eq!(ask(&setup, body()).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(ask(&setup, body()).await, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn what_a_replica_takes_is_kept_and_a_change_of_it_is_an_event() {
    let setup = server();
    let path = "/apis/events.k8s.io/v1/namespaces/podwitness-system/events";
    setup.api.answer("POST", path, json!({"metadata": {}, "eventTime": null}));
    let (claims, review) = access::as_replica();
    access::accept(&setup.api, &review);
    let token = setup.cluster.sign(&claims);
    let send = async |path: &str, body: Value| {
        let body = body.to_string();
        setup.send("POST", path, &token, body).await.status()
    };
    let give = async |taking: &str| send(NOTICE, json!({"notice": {"recorder": taking}})).await;
    let kept = || setup.server.0.enrol.enrolments.lock().get("uid-rec").and_then(|entry| entry.taking);
    assert_eq!(give("degraded").await, StatusCode::NO_CONTENT);
    assert_eq!(kept(), None, "it has no key yet");
    assert_eq!(send(ENROL, json!({"publicKey": KEY})).await, StatusCode::OK);
    for (taking, known) in [("accepting", Taking::Accepting), ("refusing", Taking::Refusing)] {
        assert_eq!(give(taking).await, StatusCode::NO_CONTENT);
        assert_eq!(kept(), Some(known));
        setup.server.0.enrol.changed.notified().await;
    }
    assert_eq!(give("refusing").await, StatusCode::NO_CONTENT);
    let published = async {
        while setup.api.count(path) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), published).await.unwrap();
    let events = setup.api.bodies("POST", path);
    assert_eq!(events.len(), 1, "that all is well at first is none, nor that nothing has changed");
    assert_eq!(
        (&events[0]["reason"], &events[0]["regarding"]["uid"]),
        (&json!("RecorderRefusing"), &json!("uid-rec"))
    );
}

async fn lines(body: kube::client::Body, count: usize) -> Vec<Update> {
    use http_body_util::BodyExt as _;
    let mut body = body;
    let mut updates = Vec::new();
    while updates.len() < count {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        updates.push(serde_json::from_slice(frame.strip_suffix(b"\n").unwrap()).unwrap());
    }
    updates
}

#[tokio::test]
async fn a_pod_enrols_and_follows_its_netmap() {
    let setup = server();
    let token = setup.cluster.sign(&claims());
    let early = setup.send("GET", NETMAP, &token, "").await;
    assert_eq!(early.status(), StatusCode::CONFLICT);
    let (status, body) = setup.enrol(KEY).await;
    assert_eq!(
        (status, &body["address"]),
        (StatusCode::OK, &json!("fd70:6f64:7769:66e0:3ef6:9449:47a8:bb44"))
    );
    let stream = setup.send("GET", NETMAP, &token, "").await;
    assert_eq!(stream.headers()["content-type"], "application/x-ndjson");
    let [Update::Netmap(netmap), Update::Assertion(_)] = &lines(stream.into_body(), 2).await[..] else {
        panic!("not a netmap and an assertion")
    };
    assert_eq!((netmap.generation, netmap.grants.len()), (1, 2));
    setup.worlds.send_replace(None);
}

#[tokio::test]
async fn a_second_key_is_a_conflict_that_says_what_to_do() {
    let setup = server();
    assert_eq!(setup.enrol(KEY).await.0, StatusCode::OK);
    assert_eq!(setup.enrol(KEY).await.0, StatusCode::OK);
    let (status, body) = setup.enrol(OTHER).await;
    assert_eq!(
        (status, &body["kind"], &body["reason"]),
        (StatusCode::CONFLICT, &json!("Status"), &json!("Conflict"))
    );
    assert!(body["message"].as_str().unwrap().contains("Podwitness-Assertion"));
}

#[tokio::test]
async fn a_caller_chooses_nothing_but_its_key() {
    let setup = server();
    let token = setup.cluster.sign(&claims());
    let more = json!({"publicKey": KEY, "tags": ["tag:admin"]}).to_string();
    for (body, code) in [
        (more.into_bytes(), 400),
        (b"{}".to_vec(), 400),
        (b"not json".to_vec(), 400),
        (json!({"publicKey": "AAAA"}).to_string().into_bytes(), 400),
        (vec![b' '; MAX_BODY + 1], 413),
    ] {
        assert_eq!(setup.send("POST", ENROL, &token, body).await.status().as_u16(), code);
    }
    assert!(setup.server.0.enrol.enrolments.lock().is_empty());
}

#[tokio::test]
async fn strangers_get_a_status_and_nothing_else() {
    let setup = server();
    let stranger = Cluster::new("k9").sign(&claims());
    for (method, path, code) in [
        ("POST", ENROL, 401),
        ("GET", NETMAP, 401),
        ("GET", ENROL, 404),
        ("DELETE", NETMAP, 404),
        ("GET", "/metrics", 404),
        ("GET", "/", 404),
    ] {
        let response = setup.send(method, path, &stranger, "").await;
        assert_eq!(response.status().as_u16(), code, "{method} {path}");
        let body = response.into_body().collect_bytes().await.unwrap();
        let status: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(code)));
    }
}

/// The server over TLS, and the agent of a pod in front of it.
struct Served {
    address: SocketAddr,
    setup: Setup,
    options: podwitness_agent::Options,
    _token: tempfile::NamedTempFile,
    _drain: drain::Signal,
}

async fn served() -> Served {
    descriptors::raise();
    let setup = server();
    let authority = Authority::found(SystemClock.now_unix()).unwrap();
    let leaf = authority.issue(&["control.test".to_owned()], SystemClock.now_unix()).unwrap();
    let cert = HotCert::new(certified_key(leaf.cert.as_bytes(), leaf.key.as_bytes()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (signal, drain) = Drain::new();
    let tls = tls::server_config(Arc::new(cert)).unwrap();
    let limiter = ConnectionLimiter::with(UNAUTHENTICATED, QuotaMetrics::default());
    tokio::spawn(setup.server.clone().serve(listener, tls, limiter, drain));
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), setup.cluster.sign(&claims())).unwrap();
    let options = podwitness_agent::Options {
        control: ControlAddress {
            name: "control.test".into(),
            port: address.port(),
            addresses: vec![address.ip()],
        },
        roots: authority.bundle(),
        token: token.path().to_owned(),
        public_key: KEY.into(),
        cache: None,
        dial: podwitness_agent::dial_direct(),
        notices: None,
        certificates: None,
    };
    Served { address, setup, options, _token: token, _drain: signal }
}

#[tokio::test]
async fn the_agent_of_sidecars_and_recorders_enrols_and_follows_over_tls() {
    let served = served().await;
    let (mut agent, driver) = podwitness_agent::new(served.options).unwrap();
    let driver = tokio::spawn(driver.run());
    let netmap = agent.netmap.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!((netmap.generation, netmap.grants.len()), (1, 2));
    assert!(agent.assertion.borrow().is_some());
    let mut next = world();
    next.grants.clear();
    served.setup.worlds.send_replace(Some(Arc::new(Published { generation: 2, world: next })));
    agent.netmap.wait_for(|netmap| netmap.as_ref().is_some_and(|map| map.generation == 2)).await.unwrap();
    driver.abort();
}

#[tokio::test]
async fn a_pod_enrols_and_stays_however_many_others_connect_from_its_address() {
    let served = served().await;
    let mut strangers = Vec::new();
    let mut flood = async |count: usize| {
        for _ in 0..count {
            strangers.push(TcpStream::connect(served.address).await.unwrap());
        }
    };
    flood(2 * UNAUTHENTICATED.per_key).await;
    let (mut agent, driver) = podwitness_agent::new(served.options).unwrap();
    let driver = tokio::spawn(driver.run());
    let enrolled = agent.netmap.wait_for(Option::is_some);
    timeout(Duration::from_secs(5), enrolled).await.expect("in time").unwrap();
    flood(2 * UNAUTHENTICATED.per_key).await;
    let mut next = world();
    next.grants.clear();
    served.setup.worlds.send_replace(Some(Arc::new(Published { generation: 2, world: next })));
    agent.netmap.wait_for(|netmap| netmap.as_ref().is_some_and(|map| map.generation == 2)).await.unwrap();
    assert_eq!(served.setup.api.count(access::REVIEWS), 2, "it never had to come again");
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_token_is_short() {
    let connection = ConnectionHandle::uncounted();
    let begun = tokio::time::Instant::now();
    unauthenticated_deadline(&connection).await;
    assert_eq!(begun.elapsed(), HEAD);
    let pods = Quota::new(PODS, QuotaMetrics::default());
    connection.authenticate(&pods, QuotaKey::Name("uid".into())).unwrap();
    assert!(timeout(Duration::from_secs(3600), unauthenticated_deadline(&connection)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_shows_no_token_is_slowed_and_a_pod_at_the_same_address_is_not() {
    let setup = server();
    let mut slowed = 0;
    for _ in 0..SOURCE_RATE.burst + 8 {
        let response = setup.send("GET", NETMAP, "nonsense", "").await;
        slowed += u32::from(response.status() == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(slowed, 8);
    assert_eq!(setup.enrol(KEY).await.0, StatusCode::OK);
}
