//! Keeps the pod's connections to the API server coming here: rules in place, renewed, following the netmap, and
//! proven by a connection of our own.
//!
//! Invariant: in a `required` pod rules are never taken away and never expire: a dead sidecar refuses, whatever its
//! grants say, because a pod can make its own sidecar die. Where injection is `optional`, their elements expire when
//! this loop stops renewing them. An `optional` pod in which interception cannot be proven is left alone, because half
//! of it would only break connections.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use podwitness_core::{
    control::Netmap,
    inject::{Inject, SidecarEnv, UntilNetmap},
};
use podwitness_runtime::readiness::BlockReady;
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep},
};

use crate::{
    kernel::{
        Kernel, KernelError,
        rules::{Rules, Targets},
        selftest::Probe,
    },
    metrics::Metrics,
    netmap,
};

/// Life of an element that nobody renews.
const DEAD_MAN: Duration = Duration::from_secs(10);
/// How often elements with a life are renewed; two renewals may fail.
const RENEW: Duration = Duration::from_secs(3);
/// How often rules without a life are looked after, in case somebody flushed them.
const LOOK_AFTER: Duration = Duration::from_secs(30);
/// Pause between proofs that fail.
const PROVE_AGAIN: Duration = Duration::from_millis(250);
/// How long an `optional` pod waits for a proof before it starts without.
const STEP_ASIDE: Duration = Duration::from_secs(10);

/// What a proof came to.
enum Proof {
    Holds,
    NotYet,
    StepAside,
}

/// What keeps interception up.
pub struct Interception {
    kernel: Kernel,
    rules: Arc<Rules>,
    own: Vec<SocketAddr>,
    /// Ports to which nothing else may be connected before there is a netmap.
    held: Vec<u16>,
    inject: Inject,
    netmap: watch::Receiver<Option<Arc<Netmap>>>,
    probe: Arc<Probe>,
    metrics: Metrics,
    begun: Instant,
    told: String,
}

impl Interception {
    /// Redirects to `listener`, a port, what goes to the API server's addresses `own`, as the pod knows them.
    #[must_use]
    pub fn new(
        env: &SidecarEnv,
        kernel: Kernel,
        listener: u16,
        own: Vec<SocketAddr>,
        netmap: watch::Receiver<Option<Arc<Netmap>>>,
        metrics: Metrics,
    ) -> Self {
        let rules = Rules {
            mark: kernel.mark(),
            uid: rustix::process::geteuid().as_raw(),
            listener,
            dead_man: dead_man(env.inject),
        };
        let probe = Arc::default();
        let begun = Instant::now();
        Self {
            kernel,
            rules: Arc::new(rules),
            own,
            held: held(env),
            inject: env.inject,
            netmap,
            probe,
            metrics,
            begun,
            told: String::new(),
        }
    }

    /// The probe about which the listener has to ask.
    #[must_use]
    pub fn probe(&self) -> Arc<Probe> {
        Arc::clone(&self.probe)
    }

    /// Puts the rules in place.
    ///
    /// # Errors
    /// Where the kernel refuses them.
    pub async fn install(&self) -> Result<(), KernelError> {
        self.kernel.install(Arc::clone(&self.rules), self.targets()).await
    }

    /// Renews the rules for as long as it runs; holds readiness back until interception is proven.
    ///
    /// # Errors
    /// Where the privileged thread has ended, so that nothing can be renewed any more.
    pub async fn keep(mut self, block: BlockReady) -> Result<Infallible, KernelError> {
        let mut block = Some(block);
        let mut renewals = self.renewals();
        loop {
            if block.is_some() {
                match self.prove().await {
                    Proof::Holds => drop(block.take()),
                    Proof::NotYet => {}
                    Proof::StepAside => break self.kernel.remove().await?,
                }
            }
            tokio::select! {
                _ = renewals.tick() => {}
                () = changed(&mut self.netmap) => {}
                () = sleep(PROVE_AGAIN), if block.is_some() => continue,
            }
            self.renew().await?;
        }
        drop(block);
        std::future::pending().await
    }

    async fn prove(&mut self) -> Proof {
        let Some(to) = self.own.first() else { return Proof::NotYet };
        match self.probe.run(*to).await {
            Ok(()) => {
                self.metrics.interception.set(1);
                tracing::info!(api_server = %to, after = ?self.begun.elapsed(), "interception is proven");
                Proof::Holds
            }
            Err(error) if self.inject == Inject::Optional && self.begun.elapsed() > STEP_ASIDE => {
                tracing::warn!(%error, "nothing is intercepted; injection is optional, so the pod starts without");
                Proof::StepAside
            }
            Err(error) => {
                self.tell(&error);
                Proof::NotYet
            }
        }
    }

    async fn renew(&mut self) -> Result<(), KernelError> {
        let targets = self.targets();
        if targets.left_out() > 0 {
            tracing::warn!(
                left_out = targets.left_out(),
                "more addresses of the API server than can be redirected"
            );
        }
        match self.kernel.refresh(Arc::clone(&self.rules), targets).await {
            Ok(()) => self.told.clear(),
            Err(KernelError::Stopped) => return Err(KernelError::Stopped),
            Err(error) => {
                self.metrics.rules_failures.inc();
                self.tell(&error);
            }
        }
        Ok(())
    }

    fn targets(&self) -> Arc<Targets> {
        let netmap = self.netmap.borrow();
        let targets = netmap::targets(&self.own, netmap.as_deref());
        Arc::new(if netmap.is_none() { targets.holding(self.held.iter().copied()) } else { targets })
    }

    fn renewals(&self) -> Interval {
        let mut renewals = interval(if self.rules.dead_man.is_some() { RENEW } else { LOOK_AFTER });
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The rules were put in place just now.
        renewals.reset();
        renewals
    }

    /// Tells what is wrong when that is new, not each time.
    fn tell(&mut self, error: &dyn std::error::Error) {
        let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        let now = format!("{error}{cause}");
        if now != self.told {
            tracing::warn!("{now}");
            self.told = now;
        }
    }
}

/// On which ports an API server may answer at addresses that are not known yet, where nothing may pass unrecorded.
fn held(env: &SidecarEnv) -> Vec<u16> {
    let ports = env.api_server.endpoints.iter().map(SocketAddr::port);
    ports.filter(|_| env.until_netmap != UntilNetmap::Open).collect()
}

/// After how long a dead sidecar lets connections pass unrecorded; never if `None`.
fn dead_man(inject: Inject) -> Option<Duration> {
    (inject == Inject::Optional).then_some(DEAD_MAN)
}

async fn changed(netmap: &mut watch::Receiver<Option<Arc<Netmap>>>) {
    if netmap.changed().await.is_err() {
        // Nobody will change it any more.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use podwitness_core::{
        inject::{ApiServerAddresses, ControlAddress, Credentials, Profile},
        trust::Trust,
    };

    use super::*;

    fn env(inject: Inject, until_netmap: UntilNetmap, credentials: Credentials) -> SidecarEnv {
        SidecarEnv {
            control: ControlAddress { name: "c".into(), port: 1, addresses: vec![] },
            control_ca: String::new(),
            until_netmap,
            inject,
            profile: Profile::Interface,
            credentials,
            service_accounts: vec![],
            log_level: "info".into(),
            spool_limit: 0,
            api_server: ApiServerAddresses {
                service: vec!["10.96.0.1:443".parse().unwrap()],
                endpoints: vec!["192.0.2.1:8443".parse().unwrap()],
            },
            trust: Trust::Pod,
        }
    }

    #[test]
    fn only_closed_pods_hold_the_ports_of_the_endpoints() {
        for (until, expected) in [
            (UntilNetmap::Open, &[][..]),
            (UntilNetmap::Closed, &[8443]),
            (UntilNetmap::ClosedToAll, &[8443]),
        ] {
            assert_eq!(held(&env(Inject::Required, until, Credentials::Passthrough)), expected, "{until:?}");
        }
    }

    #[test]
    fn a_dead_sidecar_opens_only_where_injection_is_optional() {
        assert_eq!(dead_man(Inject::Required), None);
        assert_eq!(dead_man(Inject::Optional), Some(DEAD_MAN));
    }
}
