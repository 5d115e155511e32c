use podwitness_runtime::clock::ManualClock;
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{
    super::testing::{Api as Cluster, status},
    chain::testing::TestCa,
    request::testing::{names, request},
    *,
};

const NOW: i64 = 1_800_000_000;
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const ONE: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests/podwitness-u";
const APPROVAL: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests/podwitness-u/approval";

struct Lab {
    cluster: Cluster,
    ca: TestCa,
    der: Vec<u8>,
}

fn object_with(status: &Value) -> Value {
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "podwitness-u", "resourceVersion": "7"},
        "spec": {"request": "", "signerName": SIGNER}, "status": status})
}

impl Lab {
    /// A cluster that takes and approves requests.
    fn new() -> Self {
        let cluster = Cluster::default();
        let made = object_with(&json!({}));
        cluster.answer("POST", REQUESTS, made.clone());
        cluster.answer("PUT", APPROVAL, made);
        cluster.answer("DELETE", ONE, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
        Self { cluster, ca: TestCa::new("kubernetes"), der: request("u", &KeyPair::generate().unwrap()) }
    }

    /// Whose signer leaves a request so.
    fn left(self, status: &Value) -> Self {
        self.cluster.answer("GET", ONE, object_with(status));
        self
    }

    async fn issue_at_a_time(&self, turns: usize) -> Result<CertificateResponse, CertificateError> {
        let inner = Inner {
            requests: Api::all(self.cluster.client()),
            ca: self.ca.file.clone(),
            clock: Arc::new(ManualClock::at(NOW)),
            turns: Semaphore::new(turns),
        };
        inner.issue("podwitness-u", &self.der, &names()).await
    }

    /// Why there is no certificate.
    async fn fails(&self) -> &'static str {
        self.issue_at_a_time(1).await.unwrap_err().label()
    }

    fn deleted(&self) -> usize {
        self.cluster.bodies("DELETE", ONE).len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_made_approved_waited_for_and_deleted() {
    let lab = Lab::new();
    let pem = lab.ca.issue(&lab.der);
    let lab = lab.left(&json!({"certificate": STANDARD.encode(&pem)}));
    assert_eq!(lab.issue_at_a_time(1).await.unwrap().chain, pem);
    let made = &lab.cluster.bodies("POST", REQUESTS)[0];
    assert_eq!(made["spec"]["signerName"], json!("kubernetes.io/kubelet-serving"));
    assert_eq!(made["spec"]["usages"], json!(["digital signature", "server auth"]));
    assert_eq!(made["spec"]["expirationSeconds"], json!(86_400));
    let sent = STANDARD.decode(made["spec"]["request"].as_str().unwrap()).unwrap();
    let (_, parsed) = x509_parser::pem::parse_x509_pem(&sent).unwrap();
    assert_eq!((parsed.label.as_str(), &parsed.contents), ("CERTIFICATE REQUEST", &lab.der));
    let approved = &lab.cluster.bodies("PUT", APPROVAL)[0];
    assert_eq!(approved["status"]["conditions"][0]["type"], json!("Approved"));
    assert_eq!(approved["metadata"]["resourceVersion"], json!("7"));
    assert_eq!(lab.deleted(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_way_to_get_no_certificate_has_its_reason_and_leaves_nothing_behind() {
    let condition = |kind: &str| {
        json!({"conditions": [{"type": "Approved", "status": "True"},
            {"type": kind, "status": "True", "message": "because"}]})
    };
    let foreign = Lab::new();
    let of_other_ca = TestCa::new("another").issue(&foreign.der);
    for (lab, reason) in [
        (Lab::new().left(&json!({})), "no-signer"),
        (Lab::new().left(&condition("Denied")), "denied"),
        (Lab::new().left(&condition("Failed")), "failed"),
        (Lab::new().left(&json!({"certificate": STANDARD.encode("no PEM")})), "unusable"),
        (foreign.left(&json!({"certificate": STANDARD.encode(of_other_ca)})), "other-ca"),
        (Lab::new(), "api-server"),
    ] {
        assert_eq!((lab.fails().await, lab.deleted()), (reason, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_forbidden_is_named() {
    let lab = Lab::new();
    lab.cluster.answer_with("PUT", APPROVAL, 403, status(403, "Forbidden"));
    let error = lab.issue_at_a_time(1).await.unwrap_err();
    assert!(error.to_string().contains("approve"), "{error}");
    lab.cluster.answer_with("POST", REQUESTS, 403, status(403, "Forbidden"));
    let error = lab.issue_at_a_time(1).await.unwrap_err();
    assert!(error.to_string().contains("create"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_changed_meanwhile_is_approved_again_until_the_deadline() {
    let lab = Lab::new().left(&json!({}));
    lab.cluster.answer_with("PUT", APPROVAL, 409, status(409, "Conflict"));
    assert_eq!((lab.fails().await, lab.deleted()), ("no-signer", 1));
    assert!(lab.cluster.count(APPROVAL) > 2);
}

#[tokio::test(start_paused = true)]
async fn a_denial_before_the_approval_is_heard() {
    let lab = Lab::new().left(&json!({"conditions": [{"type": "Denied", "status": "True"}]}));
    lab.cluster.answer_with("PUT", APPROVAL, 422, status(422, "Invalid"));
    assert_eq!(lab.fails().await, "denied");
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_turn_in_time_is_told_so_and_asks_for_nothing() {
    let lab = Lab::new();
    assert_eq!(lab.issue_at_a_time(0).await.unwrap_err().label(), "busy");
    assert_eq!(lab.cluster.count(REQUESTS), 0);
}

#[tokio::test]
async fn what_a_pod_may_not_ask_for_reaches_no_signer() {
    let lab = Lab::new();
    let clock = Arc::new(ManualClock::at(NOW));
    let certificates = Certificates::new(lab.cluster.client(), lab.ca.file.clone(), clock);
    for (uid, request) in
        [("another", STANDARD.encode(&lab.der)), ("u", "???".to_owned()), ("u", "A".repeat(1 << 20))]
    {
        let asked = CertificateRequest { request };
        assert_eq!(certificates.get(uid, &asked, &names()).await.unwrap_err().label(), "bad-request");
    }
    assert_eq!(lab.cluster.count(REQUESTS), 0);
}
