use podwitness_core::control::CertificateResponse;
use podwitness_runtime::{clock::ManualClock, readiness::Readiness};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, date_time_ymd,
};
use rustls::RootCertStore;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

struct Lab {
    netmap: watch::Sender<Option<Arc<Netmap>>>,
    orders: mpsc::Receiver<CertificateOrder>,
    certificate: Arc<ClusterCertificate>,
    clock: Arc<ManualClock>,
    issuer: Issuer<'static, KeyPair>,
    readiness: Readiness,
    metrics: Metrics,
    running: JoinHandle<()>,
    _dir: TempDir,
}

fn names(name: &str) -> ServingNames {
    ServingNames { names: vec![name.into()], addresses: vec![[10, 96, 0, 1].into()] }
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
        let certificate = Arc::new(ClusterCertificate::load(dir.path(), roots, NOW));
        let (netmap, clock) = (watch::Sender::new(None), Arc::new(ManualClock::at(NOW)));
        let (sender, orders) = mpsc::channel(1);
        let (readiness, metrics) = (Readiness::default(), Metrics::default());
        let keeper = Keeper {
            pod_uid: "uid".into(),
            netmap: netmap.subscribe(),
            orders: sender,
            certificate: Arc::clone(&certificate),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            metrics: metrics.clone(),
            expected: Some(readiness.block("certificate")),
        };
        let running = tokio::spawn(keeper.run());
        let issuer = Issuer::new(params, key);
        Self { netmap, orders, certificate, clock, issuer, readiness, metrics, running, _dir: dir }
    }

    fn publish(&self, serving: Option<ServingNames>) {
        self.netmap.send_replace(Some(Arc::new(Netmap { serving, ..Netmap::default() })));
    }

    /// Issues what is asked for next, from now on for a day.
    async fn issue(&mut self) -> CertificateResponse {
        let CertificateOrder { request, answer } = self.orders.recv().await.unwrap();
        let mut csr = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
        let (not_before, not_after) = (self.clock.now_unix(), self.clock.now_unix() + DAY);
        let at = |unix: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(unix.unsigned_abs());
        (csr.params.not_before, csr.params.not_after) = (at(not_before), at(not_after));
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let chain = csr.signed_by(&self.issuer).unwrap().pem();
        let response = CertificateResponse { chain, not_before, not_after };
        answer.send(Ok(response.clone())).unwrap();
        response
    }

    fn served(&self) -> Option<ServingNames> {
        self.certificate.certified(self.clock.now_unix()).map(|certified| certified.names)
    }

    /// Waits until a certificate for this name is served.
    async fn serves(&self, name: &str) {
        while self.served() != Some(names(name)) {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_had_before_others_start_and_renewed_after_two_thirds_of_its_life() {
    let mut lab = Lab::new();
    lab.publish(Some(names("one")));
    let began = Instant::now();
    lab.issue().await;
    lab.readiness.ready().await;
    assert!(began.elapsed() < FIRST);
    lab.serves("one").await;
    sleep(LOOK_AGAIN).await;
    assert_eq!(lab.metrics.certificate.get(), 1);
    lab.clock.set(NOW + DAY / 2);
    sleep(LOOK_AGAIN * 3).await;
    assert!(lab.orders.try_recv().is_err(), "it is young");
    lab.clock.set(NOW + DAY * 2 / 3);
    lab.issue().await;
    lab.running.abort();
}

#[tokio::test(start_paused = true)]
async fn other_names_are_asked_for_at_once_and_what_is_served_stays_meanwhile() {
    let mut lab = Lab::new();
    lab.publish(Some(names("one")));
    lab.issue().await;
    lab.serves("one").await;
    lab.publish(Some(names("two")));
    let order = lab.orders.recv().await.unwrap();
    assert_eq!(lab.served(), Some(names("one")));
    let _ = order.answer.send(Err(AgentError::Silence(1)));
    lab.publish(None);
    sleep(LONGEST_PAUSE * 2).await;
    assert!(lab.orders.try_recv().is_err(), "the netmap names none any more");
    assert_eq!(lab.served(), Some(names("one")), "it is served until it ends");
    lab.publish(Some(names("two")));
    lab.issue().await;
    lab.serves("two").await;
    lab.running.abort();
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_and_tried_again_ever_more_slowly() {
    let mut lab = Lab::new();
    lab.publish(Some(names("one")));
    for _ in 0..8 {
        let order = lab.orders.recv().await.unwrap();
        let _ = order.answer.send(Err(AgentError::Silence(1)));
        // Changes of other things in the netmap are no reason to try at once.
        lab.publish(Some(names("one")));
    }
    lab.readiness.ready().await;
    let began = Instant::now();
    let order = lab.orders.recv().await.unwrap();
    assert!(began.elapsed() >= LONGEST_PAUSE / 2, "{:?}", began.elapsed());
    assert_eq!(lab.metrics.certificate_failures.get(), 8);
    // An answer that never comes is one more.
    sleep(ATTEMPT).await;
    lab.orders.recv().await.unwrap();
    assert_eq!(lab.metrics.certificate_failures.get(), 9);
    assert!(order.answer.is_closed());
    lab.running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_ca_is_not_served() {
    let mut lab = Lab::new();
    let mut other = Lab::new();
    std::mem::swap(&mut lab.issuer, &mut other.issuer);
    lab.publish(Some(names("one")));
    lab.issue().await;
    lab.orders.recv().await.unwrap();
    assert_eq!((lab.served(), lab.metrics.certificate_failures.get()), (None, 1));
    lab.running.abort();
    other.running.abort();
}

#[tokio::test(start_paused = true)]
async fn others_wait_a_few_seconds_for_a_control_plane_that_is_away_and_not_at_all_where_there_is_none_to_be_had()
 {
    let lab = Lab::new();
    let began = Instant::now();
    lab.readiness.ready().await;
    assert!(began.elapsed() >= FIRST && began.elapsed() < FIRST * 2, "{:?}", began.elapsed());
    let none = Lab::new();
    let began = Instant::now();
    none.publish(None);
    none.readiness.ready().await;
    assert!(began.elapsed() < FIRST);
    lab.running.abort();
    none.running.abort();
}

#[test]
fn certificates_of_a_crowd_are_renewed_at_different_times() {
    let at = |chance| {
        renew_at(&Certified { names: ServingNames::default(), not_before: NOW, not_after: NOW + DAY, chance })
    };
    assert_eq!(at(0), NOW + DAY * 2 / 3);
    assert!(at(255) < at(100) && at(255) > NOW + DAY / 2);
    let odd =
        Certified { names: ServingNames::default(), not_before: i64::MAX, not_after: i64::MIN, chance: 9 };
    assert_eq!(renew_at(&odd), i64::MAX);
}
