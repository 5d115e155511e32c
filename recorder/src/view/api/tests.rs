use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use podwitness_runtime::clock::ManualClock;
use serde_json::Value;

use super::*;
use crate::{
    bucket::testing::silent,
    store::{
        Store,
        events::Draft,
        layout::PartName,
        meta::{End, Facts, Meta, Outcome, Owner},
    },
};

const CAST_TEXT: &str = "{\"version\":2}\n[1,\"o\",\"<script>\"]\n";

struct Lab {
    service: TowerToHyperService<Router>,
    store: Store,
    _dir: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Lab {
    fn new() -> Self {
        Self::with(|catalogue| catalogue)
    }

    fn with(change: impl FnOnce(Catalogue) -> Catalogue) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 0).unwrap();
        let owner = Owner::Unverified { address: "10.0.0.9".parse().unwrap() };
        let facts = Facts { start: 1_700_000_000, command: "<b>id</b>".into(), ..Facts::default() };
        let meta = Meta { owner, received: 0, offset: 0, header_bytes: 14, facts, end: None };
        let mut part = store.create(&PartName::new("s", 0).unwrap(), meta, 1_700_000_000).unwrap();
        part.append(&[CAST_TEXT.as_bytes()]).unwrap();
        let end = End {
            outcome: Outcome::Complete,
            message: String::new(),
            at: 0,
            bytes: 0,
            duration: 1.0,
            exit: None,
            session_end: Some("client-left".into()),
            session_outcome: Some("recorded".into()),
            gap: 0,
            torn: 0,
            damaged: 0,
        };
        part.finish(end).unwrap();
        let catalogue = Catalogue::new(dir.path().into(), Arc::new(ManualClock::at(1_700_000_000)));
        let router = router(Arc::new(change(catalogue)), EventTable::new(dir.path()));
        Self { service: TowerToHyperService::new(router), store, _dir: dir }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        request.headers_mut().insert("host", HeaderValue::from_static("localhost:8081"));
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(header::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let (parts, body) = self.service.call(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    async fn id(&self) -> String {
        let list: Value = serde_json::from_slice(&self.get("/api/v1/sessions", &[]).await.body).unwrap();
        list["sessions"][0]["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_listing_is_json_with_the_names_that_clients_know() {
    let answer = Lab::new().get("/api/v1/sessions?limit=1&namespace=none", &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    let list: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(list, serde_json::json!({"sessions": [], "truncated": false}));
    let answer = Lab::new().get("/api/v1/sessions", &[]).await;
    let list: Value = serde_json::from_slice(&answer.body).unwrap();
    let session = &list["sessions"][0];
    for (key, value) in [
        ("session", Value::from("s")),
        ("command", "<b>id</b>".into()),
        ("complete", true.into()),
        ("outcome", "complete".into()),
        ("size", CAST_TEXT.len().into()),
        ("exitCode", Value::Null),
        ("sessionEnd", "client-left".into()),
        ("sessionOutcome", "recorded".into()),
        ("source", serde_json::json!({"unverified": {"address": "10.0.0.9"}})),
        ("claimedBy", "unverified 10.0.0.9".into()),
    ] {
        assert_eq!(session[key], value, "{key}");
    }
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn a_recording_comes_whole_or_in_part_as_it_was_stored() {
    let lab = Lab::new();
    let path = format!("/api/v1/sessions/{}/cast?raw", lab.id().await);
    let whole = lab.get(&path, &[]).await;
    assert_eq!((whole.status, whole.body.as_ref()), (StatusCode::OK, CAST_TEXT.as_bytes()));
    assert_eq!(whole.headers["content-type"], "application/x-asciicast");
    assert_eq!(whole.headers["content-length"], CAST_TEXT.len().to_string());
    let part = lab.get(&path, &[("range", "bytes=2-8")]).await;
    assert_eq!((part.status, part.body.as_ref()), (StatusCode::PARTIAL_CONTENT, &CAST_TEXT.as_bytes()[2..9]));
    assert_eq!(part.headers["content-range"], format!("bytes 2-8/{}", CAST_TEXT.len()));
    let beyond = lab.get(&path, &[("range", "bytes=9999-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn a_recording_plays_unless_its_bytes_are_asked_for() {
    let lab = Lab::new();
    let path = format!("/api/v1/sessions/{}/cast", lab.id().await);
    let played = lab.get(&path, &[("range", "bytes=2-8")]).await;
    let expected = "{\"height\":24,\"version\":2,\"width\":80}\n[1,\"o\",\"<script>\"]\n";
    assert_eq!((played.status, played.body.as_ref()), (StatusCode::OK, expected.as_bytes()));
    assert_eq!(played.headers["content-type"], "application/x-asciicast");
    assert_eq!(lab.get("/api/v1/sessions/s/cast", &[]).await.body, played.body, "by the id that events have");
    assert_eq!(lab.get(&format!("{path}?row"), &[]).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_listing_says_that_the_bucket_is_not_read() {
    let lab = Lab::with(|catalogue| catalogue.with_bucket(silent()));
    let list = lab.json("/api/v1/sessions").await;
    assert_eq!(list["sessions"].as_array().unwrap().len(), 1);
    assert_eq!((&list["bucket"]["stale"], &list["truncated"]), (&true.into(), &false.into()));
    let [warning] = list["warnings"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert!(warning.as_str().unwrap().contains("bucket"), "{warning}");
}

#[tokio::test]
async fn an_id_that_several_senders_state_is_answered_with_theirs() {
    let lab = Lab::new();
    let owner = Owner::Unverified { address: "10.0.0.10".parse().unwrap() };
    let meta = Meta { owner, received: 0, offset: 0, header_bytes: 14, facts: Facts::default(), end: None };
    drop(lab.store.create(&PartName::new("s", 0).unwrap(), meta, 1_700_000_000).unwrap());
    let answer = lab.get("/api/v1/sessions/s/cast", &[]).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let error: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(error["error"].as_str().unwrap().contains(&lab.id().await), "{error}");
}

#[tokio::test]
async fn only_what_is_in_the_catalogue_is_found() {
    let lab = Lab::new();
    for path in [
        "/api/v1/sessions/none/cast",
        "/api/v1/sessions/..%2F..%2Fetc%2Fpasswd/cast",
        "/api/v1/sessions/%2e%2e/cast",
        "/api/v1/sessions/t/cast",
        "/api/v1/sessions//cast",
        "/api/v1/sessions/",
        "/",
    ] {
        assert_eq!(lab.get(path, &[]).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for query in ["limit=x", "since=yesterday", "sort=user"] {
        let answer = lab.get(&format!("/api/v1/sessions?{query}"), &[]).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn the_viewer_answers_to_loopback_names_only() {
    let lab = Lab::new();
    for host in ["localhost", "localhost:1", "127.0.0.1:8081", "[::1]:8081", "127.0.0.2"] {
        assert_eq!(lab.get("/api/v1/sessions", &[("host", host)]).await.status, StatusCode::OK, "{host}");
    }
    for host in
        ["evil.example", "evil.example:8081", "10.0.0.1:8081", "localhost.evil.example", "", "[::2]:1"]
    {
        assert_eq!(
            lab.get("/api/v1/sessions", &[("host", host)]).await.status,
            StatusCode::FORBIDDEN,
            "{host}"
        );
    }
}

#[tokio::test]
async fn files_of_events_are_listed_by_date_and_in_pages_and_read_whole() {
    let lab = Lab::new();
    assert_eq!(lab.json("/api/v1/events").await, serde_json::json!({"files": []}));
    let mut log = lab.store.events().unwrap();
    let draft = Draft::new(b"{\"id\":}".to_vec(), 6);
    for hour in [0, 1, 26] {
        log.append([&draft].into_iter(), 1_700_000_000 + hour * 3600).unwrap();
    }
    log.publish().unwrap();
    let all = lab.json("/api/v1/events").await;
    let paths: Vec<&str> =
        all["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    let partitions: Vec<&str> = paths.iter().map(|path| path.rsplit_once('/').unwrap().0).collect();
    assert_eq!(partitions, ["date=2023-11-14/hour=22", "date=2023-11-14/hour=23", "date=2023-11-16/hour=00"]);
    let first = lab.json("/api/v1/events?limit=2").await;
    assert_eq!((first["files"].as_array().unwrap().len(), &first["next"]), (2, &paths[1].into()));
    let rest = lab.json(&format!("/api/v1/events?after={}", paths[1])).await;
    assert_eq!((&rest["files"][0]["path"], rest["files"].as_array().unwrap().len()), (&paths[2].into(), 1));
    let day = lab.json("/api/v1/events?date=2023-11-16").await;
    assert_eq!(day["files"], rest["files"]);
    let file = lab.get(&format!("/api/v1/events/{}", paths[0]), &[]).await;
    assert_eq!(
        (file.status, file.body.len() as u64),
        (StatusCode::OK, all["files"][0]["size"].as_u64().unwrap())
    );
    assert_eq!(file.headers["content-type"], "application/zstd");
}

#[tokio::test]
async fn only_published_files_of_events_are_found() {
    let lab = Lab::new();
    let mut log = lab.store.events().unwrap();
    log.append([&Draft::new(b"{}".to_vec(), 1)].into_iter(), 0).unwrap();
    for path in [".open", "date=1970-01-01", "..%2F..%2Fetc%2Fpasswd", "../x/y", "a/../../x", "a//b", "x/y/z"]
    {
        assert_eq!(
            lab.get(&format!("/api/v1/events/{path}"), &[]).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    assert_eq!(lab.get("/api/v1/events?day=1", &[]).await.status, StatusCode::BAD_REQUEST);
}
