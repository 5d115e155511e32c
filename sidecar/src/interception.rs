//! Keeps the pod's connections to the API server coming here: rules in place, renewed, following the netmap, and
//! proven by a connection of our own.
//!
//! Invariant: in a `required` pod rules are never taken away and never expire: a dead sidecar refuses, whatever its
//! grants say, because a pod can make its own sidecar die. Where injection is `optional`, their elements expire when
//! this loop stops renewing them. An `optional` pod in which interception cannot be proven is left alone, because half
//! of it would only break connections.
//!
//! Where the node translates Service addresses in the socket, as load balancers by eBPF do, connections to the API
//! server's Service go to one of its endpoints before they meet any rule. Those that admission wrote into the pod and the
//! netmap's are redirected as they are; one that is neither is learned from a proof.

mod own;

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
        rules::{MovedPort, Refreshed, Rules, Targets},
        selftest::{Probe, SelftestError},
    },
    metrics::Metrics,
    netmap,
};
use own::OwnAddresses;

/// Life of an element that nobody renews.
const DEAD_MAN: Duration = Duration::from_secs(10);
/// How often elements with a life are renewed, of which two renewals may fail; and how often rules are looked after, which an
/// init container of a mesh may change, or somebody may flush.
const RENEW: Duration = Duration::from_secs(3);
/// Pause between proofs that fail.
const PROVE_AGAIN: Duration = Duration::from_millis(250);
/// How long an `optional` pod waits for a proof before it starts without.
const STEP_ASIDE: Duration = Duration::from_secs(10);

/// What a proof came to.
enum Proof {
    Holds,
    /// Not yet, and another address has to be redirected first.
    Learned,
    NotYet,
    StepAside,
}

/// What keeps interception up.
pub struct Interception {
    kernel: Kernel,
    rules: Arc<Rules>,
    own: OwnAddresses,
    /// Ports to which nothing else may be connected before there is a netmap.
    held: Vec<u16>,
    inject: Inject,
    netmap: watch::Receiver<Option<Arc<Netmap>>>,
    probe: Arc<Probe>,
    metrics: Metrics,
    begun: Instant,
    told: String,
    /// Whether connections did not come here although the rules were put in place anew.
    is_lost: bool,
}

impl Interception {
    /// Redirects to `listener`, a port, what goes to the API server's addresses `own`, as the pod knows them; and to us
    /// what goes to ports that were `moved`.
    #[must_use]
    pub fn new(
        env: &SidecarEnv,
        kernel: Kernel,
        (listener, moved): (u16, Vec<MovedPort>),
        own: Vec<SocketAddr>,
        netmap: watch::Receiver<Option<Arc<Netmap>>>,
        metrics: Metrics,
    ) -> Self {
        let rules = Rules {
            mark: kernel.mark(),
            uid: rustix::process::geteuid().as_raw(),
            listener,
            dead_man: dead_man(env.inject),
            moved,
        };
        let probe = Arc::default();
        let begun = Instant::now();
        Self {
            kernel,
            rules: Arc::new(rules),
            own: OwnAddresses::new(own),
            held: held(env),
            inject: env.inject,
            netmap,
            probe,
            metrics,
            begun,
            told: String::new(),
            is_lost: false,
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
                    Proof::Learned => {
                        self.renew().await?;
                        continue;
                    }
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
            if block.is_none() {
                self.prove_again().await?;
            }
        }
        drop(block);
        std::future::pending().await
    }

    async fn prove(&mut self) -> Proof {
        let Some(to) = self.own.first() else { return Proof::NotYet };
        match self.probe.run(to).await {
            Ok(original) => {
                self.metrics.interception.set(1);
                tracing::info!(api_server = %to, %original, after = ?self.begun.elapsed(), "interception is proven");
                Proof::Holds
            }
            Err(error) if self.learn(&error) => Proof::Learned,
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

    /// Puts the rules in place anew where connections no longer land here: somebody has taken some of them away, which a
    /// renewal does not see. Where that does not help, something else stands in front.
    async fn prove_again(&mut self) -> Result<(), KernelError> {
        let Some(to) = self.own.first() else { return Ok(()) };
        let Some(error) = self.misses(to).await? else { return Ok(()) };
        // What stands in front stays there for long; it is told once.
        if !self.is_lost {
            self.metrics.rules_repaired.inc();
            tracing::warn!(%error, "connections no longer come here; the rules are put in place anew");
        }
        match self.install().await {
            Ok(()) => {}
            Err(KernelError::Stopped) => return Err(KernelError::Stopped),
            Err(error) => self.tell(&error),
        }
        if let Some(error) = self.misses(to).await? {
            self.metrics.interception.set(0);
            if !std::mem::replace(&mut self.is_lost, true) {
                tracing::warn!(%error, "connections still do not come here; something stands in front of the rules");
            }
        }
        Ok(())
    }

    /// Why a connection does not land here, if the rules are to blame. They are not where the node makes an address of
    /// the destination that they do not have yet: that is redirected from now on. One that is ended at once says nothing:
    /// all places may be taken.
    async fn misses(&mut self, to: SocketAddr) -> Result<Option<SelftestError>, KernelError> {
        match self.probe.run(to).await {
            Ok(_) => {
                self.metrics.interception.set(1);
                self.is_lost = false;
            }
            Err(error) if self.learn(&error) => self.renew().await?,
            Err(SelftestError::Ended { .. }) => {}
            Err(error) => return Ok(Some(error)),
        }
        Ok(None)
    }

    /// Whether an address has to be redirected that is not yet.
    fn learn(&mut self, error: &SelftestError) -> bool {
        let Some(translated) = error.translated() else { return false };
        if self.targets().redirects(translated) {
            return false;
        }
        self.own.learn(translated);
        tracing::info!(
            %translated,
            "the node translates the API server's address in the socket; connections to what it makes of it are redirected, too"
        );
        true
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
            Ok(Refreshed::Renewed) => self.told.clear(),
            Ok(Refreshed::PutBack) => {
                self.told.clear();
                self.metrics.rules_repaired.inc();
                tracing::warn!("the table of the network rules was removed; it is put back");
            }
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
        let targets = netmap::targets(self.own.all(), netmap.as_deref());
        Arc::new(if netmap.is_none() { targets.holding(self.held.iter().copied()) } else { targets })
    }

    fn renewals(&self) -> Interval {
        let mut renewals = interval(RENEW);
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
            ports: podwitness_core::inject::SidecarPorts::default(),
            declared_ports: vec![],
            grace_period: podwitness_core::inject::GRACE_PERIOD,
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
