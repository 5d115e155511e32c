//! The certificate of the cluster's CA: asked for once a netmap says for which names, asked for anew when they change,
//! and renewed after two thirds of its life, a little earlier by chance, so that the pods of a cluster do not ask at the
//! same moment.
//!
//! While there is none, certificates of the in-pod CA are served, and the reason is logged and counted. Where admission
//! has said that one is to be expected, the pod's other containers wait for the first attempt, for a few seconds only:
//! the control plane may be away.

use std::{sync::Arc, time::Duration};

use podwitness_agent::{AgentError, Backoff, CertificateOrder};
use podwitness_core::control::{Netmap, ServingNames, serving_common_name};
use podwitness_proxy::{
    Certified, ClusterCertificate, ServingKey,
    ca::{CaError, ClusterCertificateError},
};
use podwitness_runtime::{clock::Clock, readiness::BlockReady};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use crate::metrics::Metrics;

/// How long other containers wait for the first attempt.
const FIRST: Duration = Duration::from_secs(10);
/// For one attempt, the way to the control plane included.
const ATTEMPT: Duration = Duration::from_secs(60);
/// Pauses after failures; the control plane slows those who ask more often.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How often the wall clock is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Why there is no new certificate. No variant holds a key.
#[derive(Debug, Error)]
enum CertificateError {
    /// No key or request can be made.
    #[error("cannot make a key or a request")]
    Make(#[from] CaError),
    /// There was no answer.
    #[error("the control plane does not answer")]
    Silence,
    /// The control plane refuses.
    #[error(transparent)]
    Refused(#[from] AgentError),
    /// What came cannot be served.
    #[error(transparent)]
    Unusable(#[from] ClusterCertificateError),
}

/// Keeps the certificate.
pub struct Keeper {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Says for which names.
    pub netmap: watch::Receiver<Option<Arc<Netmap>>>,
    /// Takes requests to the control plane.
    pub orders: mpsc::Sender<CertificateOrder>,
    /// Where it is served.
    pub certificate: Arc<ClusterCertificate>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Shows whether there is one.
    pub metrics: Metrics,
    /// Held until the first attempt, or for a few seconds.
    pub expected: Option<BlockReady>,
}

/// What is known between attempts.
struct Attempts {
    backoff: Backoff,
    next: Instant,
    last: Option<ServingNames>,
}

impl Attempts {
    /// How long until the next attempt for these names; other names than last time are tried at once.
    fn pause(&mut self, names: &ServingNames) -> Duration {
        if self.last.as_ref() != Some(names) {
            self.backoff.reset();
            self.next = Instant::now();
            self.last = Some(names.clone());
        }
        self.next.saturating_duration_since(Instant::now())
    }
}

impl Keeper {
    /// Keeps it for as long as it runs.
    pub async fn run(mut self) {
        let (first, over) = oneshot::channel::<()>();
        let mut first = Some(first);
        if let Some(expected) = self.expected.take() {
            tokio::spawn(async move {
                // An end without a word is an end.
                let _ = timeout(FIRST, over).await;
                expected.clear();
            });
        }
        let mut attempts =
            Attempts { backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), next: Instant::now(), last: None };
        loop {
            let netmap = self.netmap.borrow_and_update().clone();
            let pause = match netmap.as_deref().map(|netmap| &netmap.serving) {
                Some(Some(names)) if self.is_due(names) => {
                    let pause = attempts.pause(names);
                    if pause.is_zero() {
                        self.attempt(names, &mut attempts).await;
                        drop(first.take());
                        continue;
                    }
                    pause
                }
                // There is one, or none to be had.
                Some(_) => {
                    drop(first.take());
                    LOOK_AGAIN
                }
                None => LOOK_AGAIN,
            };
            self.show();
            tokio::select! {
                Ok(()) = self.netmap.changed() => {}
                () = sleep(pause.min(LOOK_AGAIN)) => {}
            }
        }
    }

    fn is_due(&self, names: &ServingNames) -> bool {
        let now = self.clock.now_unix();
        self.certificate
            .certified(now)
            .is_none_or(|certified| certified.names != *names || now >= renew_at(&certified))
    }

    async fn attempt(&self, names: &ServingNames, attempts: &mut Attempts) {
        match timeout(ATTEMPT, self.obtain(names)).await.unwrap_or(Err(CertificateError::Silence)) {
            Ok(()) => {
                attempts.backoff.reset();
                tracing::info!(names = names.names.len(), "a certificate of the cluster's CA is served");
            }
            Err(error) => {
                let pause = attempts.backoff.delay();
                attempts.next = Instant::now() + pause;
                self.metrics.certificate_failures.inc();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    pause = pause.as_secs(),
                    "no new certificate of the cluster's CA; clients that trust only that CA may not get through"
                );
            }
        }
    }

    async fn obtain(&self, names: &ServingNames) -> Result<(), CertificateError> {
        let key = ServingKey::generate()?;
        let request = key.request(&serving_common_name(&self.pod_uid), names)?;
        let (answer, answered) = oneshot::channel();
        let order = CertificateOrder { request, answer };
        self.orders.send(order).await.map_err(|_| CertificateError::Silence)?;
        let certificate = answered.await.map_err(|_| CertificateError::Silence)??;
        // It is checked and kept in a file.
        let (served, names, now) = (Arc::clone(&self.certificate), names.clone(), self.clock.now_unix());
        let installed = spawn_blocking(move || served.install(&key, &names, certificate, now)).await;
        Ok(installed.map_err(|_| CertificateError::Silence)??)
    }

    fn show(&self) {
        let is_there = self.certificate.certified(self.clock.now_unix()).is_some();
        self.metrics.certificate.set(i64::from(is_there));
    }
}

/// Two thirds of the life, less up to a twelfth by chance.
fn renew_at(certified: &Certified) -> i64 {
    let Certified { not_before, not_after, chance, .. } = certified;
    let life = not_after.saturating_sub(*not_before).max(0);
    let jitter = (life / 12).saturating_mul(i64::from(*chance)) / 256;
    not_before.saturating_add((life / 3).saturating_mul(2)).saturating_sub(jitter)
}

#[cfg(test)]
mod tests;
