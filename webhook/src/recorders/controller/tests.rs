use kube::runtime::{
    reflector::{store, store::Writer},
    watcher::Event,
};

use super::{super::objects::testing, *};
use crate::control::testing::{Api as TestApi, status};

const RECORDER: &str = "/apis/podwitness.dev/v1alpha1/recorders/r";
const ACCOUNT: &str = "/api/v1/namespaces/podwitness-system/serviceaccounts/r";
const SERVICE: &str = "/api/v1/namespaces/podwitness-system/services/r";
const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/podwitness-system/networkpolicies/r";
const BUDGET: &str = "/apis/policy/v1/namespaces/podwitness-system/poddisruptionbudgets/r";
const SET: &str = "/apis/apps/v1/namespaces/podwitness-system/statefulsets/r";
/// What is made of the recorder, in this order.
const ALL: [&str; 4] = [ACCOUNT, SERVICE, POLICY, SET];

struct Setup {
    api: TestApi,
    controller: Controller,
    writer: Writer<Recorder>,
    memory: Memory,
}

fn recorder(spec: &Value) -> Recorder {
    serde_json::from_value(json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "spec": spec,
        "metadata": {"name": "r", "uid": "u", "generation": 3, "resourceVersion": "7", "finalizers": [FINALIZER]}}))
    .unwrap()
}

fn metadata(version: &str, owner: &str) -> Value {
    let owner = json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "name": "r",
        "uid": owner, "controller": true});
    json!({"name": "r", "namespace": "podwitness-system", "uid": "o", "resourceVersion": version,
        "ownerReferences": [owner]})
}

/// What the API server answers about an object's metadata.
fn live(version: &str, owner: &str) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata(version, owner)})
}

fn applied(version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Any", "metadata": metadata(version, "u")})
}

fn setup(recorder: Recorder) -> Setup {
    let api = TestApi::default();
    for path in ALL {
        api.answer("PATCH", path, applied("1"));
    }
    let (recorders, mut writer) = store();
    writer.apply_watcher_event(&Event::Apply(recorder));
    let controller = Controller {
        recorders,
        caches: testing::empty(),
        filled: Filled::at_once(),
        settings: Settings { namespace: "podwitness-system".into(), image: "i".into(), eviction_percent: 10 },
        changed: Arc::default(),
        outcomes: Outcomes::default(),
        report: Arc::default(),
        client: api.client(),
    };
    Setup { api, controller, writer, memory: Memory::new() }
}

impl Setup {
    /// Looks once; says how often each object was applied so far.
    async fn once(&mut self) -> Vec<usize> {
        self.controller.once(&mut self.memory).await;
        ALL.iter().map(|path| self.api.bodies("PATCH", path).len()).collect()
    }

    /// Lets the caches say that all objects are there in this version.
    fn cached(&mut self, version: &str) {
        let objects = || vec![serde_json::from_value(metadata(version, "u")).unwrap()];
        self.controller.caches = Caches {
            service_accounts: testing::of(objects()),
            services: testing::of(objects()),
            network_policies: testing::of(objects()),
            budgets: testing::of(vec![]),
            stateful_sets: testing::of(objects()),
        };
        for path in ALL {
            self.api.answer("GET", path, live(version, "u"));
        }
    }

    fn problem(&self) -> Option<Problem> {
        let recorder = self.controller.recorders.state().pop().unwrap();
        self.controller.outcomes.of(&recorder).unwrap().problem
    }
}

fn plain() -> Recorder {
    recorder(&json!({"enableUI": true}))
}

#[tokio::test]
async fn objects_are_made_once_and_left_alone_while_they_are_as_they_were_made() {
    let mut setup = setup(plain());
    assert_eq!(setup.once().await, [1, 1, 1, 1]);
    assert_eq!(setup.problem(), None);
    setup.cached("1");
    assert_eq!(setup.once().await, [1, 1, 1, 1]);
    assert_eq!(setup.api.count(RECORDER), 0);
}

#[tokio::test]
async fn what_was_changed_or_deleted_is_made_again() {
    let mut setup = setup(plain());
    setup.once().await;
    setup.cached("1");
    setup.controller.caches.services = testing::of(vec![]);
    setup.controller.caches.stateful_sets =
        testing::of(vec![serde_json::from_value(metadata("2", "u")).unwrap()]);
    assert_eq!(setup.once().await, [1, 2, 1, 2]);
    // Only the object that was looked at, by its uid.
    assert_eq!(setup.api.bodies("PATCH", SET)[1]["metadata"]["uid"], "o");
}

#[tokio::test]
async fn a_change_of_the_recorder_changes_what_it_concerns() {
    let mut setup = setup(plain());
    setup.once().await;
    setup.cached("1");
    setup.writer.apply_watcher_event(&Event::Apply(recorder(&json!({"enableUI": true, "replicas": 0}))));
    assert_eq!(setup.once().await, [1, 1, 1, 2]);
    assert_eq!(setup.api.bodies("PATCH", SET)[1]["spec"]["replicas"], 0);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_a_conflict_and_nothing_is_made_on_top_of_it() {
    for owner in ["another", ""] {
        let mut setup = setup(plain());
        setup.api.answer("GET", ACCOUNT, live("9", owner));
        assert_eq!(setup.once().await, [0, 0, 0, 0]);
        let problem = setup.problem().unwrap();
        assert_eq!(problem.reason(), "RecorderConflict");
        assert!(problem.to_string().contains("statefulSet.pod.serviceAccount.name"), "{problem}");
        setup.api.forget("GET", ACCOUNT);
        assert_eq!(setup.once().await, [1, 1, 1, 1]);
        assert_eq!(setup.problem(), None);
    }
}

#[tokio::test]
async fn what_the_api_server_does_not_let_change_is_said_with_the_way_out() {
    let mut setup = setup(plain());
    let mut refusal = status(422, "Invalid");
    refusal["message"] =
        json!("spec: Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden");
    setup.api.answer_with("PATCH", SET, 422, refusal);
    setup.once().await;
    let problem = setup.problem().unwrap();
    assert_eq!(problem.reason(), "RecorderImmutable");
    assert!(problem.to_string().contains("--cascade=orphan"), "{problem}");
    setup.api.answer_with("PATCH", SET, 422, status(422, "Invalid"));
    setup.once().await;
    assert_eq!(setup.problem().unwrap().reason(), "RecorderCreationFailed");
}

#[tokio::test]
async fn an_invalid_recorder_changes_nothing() {
    let mut setup = setup(recorder(&json!({})));
    setup.cached("1");
    assert_eq!(setup.once().await, [0, 0, 0, 0]);
    assert_eq!(setup.problem().unwrap().reason(), "RecorderInvalid");
}

#[tokio::test]
async fn a_recorder_has_its_finalizer_before_anything_is_made() {
    let mut unfinalized = plain();
    unfinalized.metadata.finalizers = Some(vec!["of/another".into()]);
    let mut setup = setup(unfinalized);
    setup.api.answer_with("PATCH", RECORDER, 500, status(500, "InternalError"));
    assert_eq!(setup.once().await, [0, 0, 0, 0]);
    assert_eq!(setup.problem().unwrap().reason(), "RecorderCreationFailed");
    setup.api.answer("PATCH", RECORDER, live("8", "-"));
    assert_eq!(setup.once().await, [1, 1, 1, 1]);
    let sent = &setup.api.bodies("PATCH", RECORDER)[0]["metadata"];
    assert_eq!(sent["finalizers"], json!(["of/another", FINALIZER]));
    assert_eq!(sent["resourceVersion"], "7");
}

#[tokio::test]
async fn what_is_no_longer_needed_is_deleted_and_nothing_else() {
    let mut setup = setup(plain());
    setup.cached("1");
    let stray = |name: &str, owner: &str| {
        let mut metadata = metadata("1", owner);
        metadata["name"] = json!(name);
        serde_json::from_value(metadata).unwrap()
    };
    setup.controller.caches.budgets = testing::of(vec![stray("r", "u"), stray("other", "another")]);
    setup.api.answer("DELETE", BUDGET, json!({"kind": "Status", "status": "Success"}));
    setup.once().await;
    assert_eq!(setup.problem(), None);
    let sent = &setup.api.bodies("DELETE", BUDGET)[0];
    assert_eq!(sent["preconditions"]["uid"], "o");
    assert_eq!(setup.api.count(&BUDGET.replace("/r", "/other")), 0);
}

#[tokio::test]
async fn a_deleted_recorder_goes_once_everything_of_it_is_gone() {
    let mut going = plain();
    going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let mut setup = setup(going);
    setup.cached("1");
    setup.api.answer("PATCH", RECORDER, live("8", "-"));
    for path in ALL {
        setup.api.answer("DELETE", path, json!({"kind": "Status", "status": "Success"}));
    }
    setup.once().await;
    assert!(ALL.iter().all(|path| setup.api.bodies("DELETE", path).len() == 1));
    assert_eq!(setup.api.bodies("DELETE", SET)[0]["propagationPolicy"], "Foreground");
    assert_eq!(setup.api.count(RECORDER), 0);
    setup.controller.caches = testing::empty();
    assert_eq!(setup.once().await, [0, 0, 0, 0]);
    assert_eq!(setup.api.bodies("PATCH", RECORDER)[0]["metadata"]["finalizers"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn it_works_at_every_change_and_again_soon_where_something_went_wrong() {
    let Setup { api, mut controller, mut writer, .. } = setup(plain());
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitApply(plain()));
    writer.apply_watcher_event(&Event::InitDone);
    controller.caches = testing::empty();
    api.answer_with("PATCH", SET, 503, status(503, "ServiceUnavailable"));
    let (changed, report) = (Arc::clone(&controller.changed), Arc::clone(&controller.report));
    let running = tokio::spawn(controller.run());
    report.notified().await;
    api.answer("PATCH", SET, applied("1"));
    report.notified().await;
    let before = api.count(ACCOUNT);
    changed.notify_one();
    let again = async {
        while api.count(ACCOUNT) == before {
            tokio::task::yield_now().await;
            tokio::time::advance(DEBOUNCE).await;
        }
    };
    timeout(Duration::from_secs(600), again).await.unwrap();
    running.abort();
}
