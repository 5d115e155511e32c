//! Assertions for enrolled pods: what is said of whom, and for how long.

use std::{sync::Arc, time::Duration};

use podwitness_core::{
    address,
    assertion::{self, Claims, MAX_LIFE},
    control::Issuer,
    inject::Inject,
};
use podwitness_runtime::clock::Clock;

use super::{issuer::Signer, pod::Pod, refusal::Refusal};

/// Says who holds a tunnel key.
#[derive(Clone, Debug)]
pub struct Assertions {
    signer: Arc<Signer>,
    clock: Arc<dyn Clock>,
}

impl Assertions {
    /// With this key, by this clock.
    #[must_use]
    pub fn new(signer: Arc<Signer>, clock: Arc<dyn Clock>) -> Self {
        Self { signer, clock }
    }

    /// The key's public half.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        self.signer.issuer()
    }

    /// Time after which an assertion is to be replaced: two thirds of its life.
    #[must_use]
    pub const fn renewal() -> Duration {
        Duration::from_secs(MAX_LIFE.unsigned_abs() * 2 / 3)
    }

    /// Says that the pod holds the key, and how binding its injection is.
    ///
    /// # Errors
    /// Where signing fails, which is no fault of the caller's.
    pub fn assert(&self, pod: &Pod, key: &str, mode: Option<Inject>) -> Result<String, Refusal> {
        let now = self.clock.now_unix();
        let claims = Claims {
            cluster: self.issuer().cluster.clone(),
            namespace: pod.namespace().to_owned(),
            pod: pod.name().to_owned(),
            pod_uid: pod.uid().to_owned(),
            node: pod.spec.node_name.clone(),
            service_account: pod.spec.service_account_name.clone(),
            key: key.to_owned(),
            mode,
            iat: now,
            exp: now.saturating_add(MAX_LIFE),
        };
        self.signer.sign(&claims).map_err(|error| {
            tracing::error!(%error, "cannot sign an assertion");
            Refusal::Unavailable("cannot sign an assertion now")
        })
    }

    /// Reads an assertion that we signed and that is still valid; `None` for any other text.
    #[must_use]
    pub fn read(&self, text: &str) -> Option<Claims> {
        let claims =
            assertion::verify(text, std::slice::from_ref(self.issuer()), self.clock.now_unix()).ok()?;
        address::parse_key(&claims.key).is_ok().then_some(claims)
    }
}

#[cfg(test)]
pub(super) mod testing {
    use aws_lc_rs::{
        encoding::{AsDer as _, Pkcs8V1Der},
        signature::Ed25519KeyPair,
    };
    use podwitness_runtime::clock::ManualClock;

    use super::*;

    /// Assertions by a new key under a clock that stands at `now`.
    pub fn assertions(now: i64) -> (Assertions, Arc<ManualClock>) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let clock = Arc::new(ManualClock::at(now));
        let signer = Arc::new(Signer::new(key.as_ref(), "c").unwrap());
        (Assertions::new(signer, Arc::clone(&clock) as Arc<dyn Clock>), clock)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::pod::testing::{injected, pod},
        testing::assertions,
        *,
    };

    const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    #[test]
    fn an_assertion_names_the_live_pod_and_lives_an_hour() {
        let (assertions, clock) = assertions(1000);
        let text = assertions.assert(&pod(injected()), KEY, Some(Inject::Required)).unwrap();
        let claims = assertions.read(&text).unwrap();
        assert_eq!(claims.mode, Some(Inject::Required));
        assert_eq!((claims.namespace.as_str(), claims.pod_uid.as_str()), ("shop", "uid-till"));
        assert_eq!((claims.node.as_str(), claims.service_account.as_str()), ("n1", "till"));
        assert_eq!(claims.exp - claims.iat, MAX_LIFE);
        clock.set(1000 + MAX_LIFE);
        assert_eq!(assertions.read(&text), None);
    }

    #[test]
    fn assertions_of_others_prove_nothing() {
        let ((ours, _), (theirs, _)) = (assertions(1000), assertions(1000));
        let text = theirs.assert(&pod(injected()), KEY, None).unwrap();
        assert_eq!(ours.read(&text), None);
        assert_eq!(ours.read("nonsense"), None);
    }
}
