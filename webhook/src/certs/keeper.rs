//! Keeps authority and leaves renewed. Any number of replicas may do so at a time.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret};
use kube::{Api, Client};
use podwitness_runtime::{clock::Clock, drain, readiness::BlockReady};

use super::{
    ADMIT, AUTHORITY_SECRET, Authority, CONTROL, CertsError, Leaf, WEBHOOK_CONFIGURATION, bundle,
    secret::{self, Entries, Written},
};
use crate::failures::Failures;

/// Pause between looks when all is well.
const PERIOD: Duration = Duration::from_secs(60);
/// Pause after an error or a conflict.
const RETRY: Duration = Duration::from_secs(2);
/// Entries of a leaf's Secret, as `kubernetes.io/tls` wants them.
const TLS: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Renews what is due, for ever.
#[derive(Clone, Debug)]
pub struct Keeper {
    secrets: Api<Secret>,
    webhooks: Api<MutatingWebhookConfiguration>,
    namespace: String,
    clock: Arc<dyn Clock>,
}

impl Keeper {
    /// Keeps the Secrets of `namespace`.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, clock: Arc<dyn Clock>) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            webhooks: Api::all(client.clone()),
            namespace: namespace.to_owned(),
            clock,
        }
    }

    /// Looks every minute until the drain; `first` is held until everything was there once.
    pub async fn run(self, first: BlockReady, drain: drain::Watch) {
        let mut first = Some(first);
        let mut failures = Failures::of("renew certificates");
        loop {
            let pause = match self.pass().await {
                Ok(Written::Stored) => {
                    drop(first.take());
                    failures.clear();
                    PERIOD
                }
                Ok(Written::Conflict) => RETRY,
                Err(error) => {
                    failures.note(&error);
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = drain.draining() => return,
            }
        }
    }

    /// One look: the authority first, then each leaf.
    async fn pass(&self) -> Result<Written, CertsError> {
        let now = self.clock.now_unix();
        let Some(authority) = self.authority(now).await? else { return Ok(Written::Conflict) };
        let mut outcome = Written::Stored;
        for leaf in [ADMIT, CONTROL] {
            if self.leaf(leaf, &authority, now).await? == Written::Conflict {
                outcome = Written::Conflict;
            }
        }
        Ok(outcome)
    }

    /// The authority as it is stored; `None` where another replica changed it meanwhile.
    async fn authority(&self, now: i64) -> Result<Option<Authority>, CertsError> {
        let found = secret::read(&self.secrets, AUTHORITY_SECRET).await?;
        let (before, after) = match &found {
            None => (None, Authority::found(now)?),
            Some(found) => {
                let before = Authority::from_entries(|name| found.entries.get(name).cloned())
                    .map_err(|entry| CertsError::Entry { secret: AUTHORITY_SECRET.to_owned(), entry })?;
                let after = before.advance(now, self.published(&before).await?)?;
                (Some(before), after)
            }
        };
        if before.as_ref() == Some(&after) {
            return Ok(Some(after));
        }
        let entries =
            after.entries().into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        let written =
            secret::write(&self.secrets, AUTHORITY_SECRET, "Opaque", entries, found.as_ref()).await?;
        tracing::info!(secret = AUTHORITY_SECRET, ?written, "renewed the certificate authority");
        Ok((written == Written::Stored).then_some(after))
    }

    /// Whether the API server is told every root. Asked only while a next root waits for it.
    async fn published(&self, authority: &Authority) -> Result<bool, CertsError> {
        if !authority.has_next() {
            return Ok(false);
        }
        let configuration = self
            .webhooks
            .get_opt(WEBHOOK_CONFIGURATION)
            .await
            .map_err(CertsError::api("read MutatingWebhookConfiguration", WEBHOOK_CONFIGURATION))?;
        Ok(configuration.is_some_and(|found| bundle::is_published(&found, &authority.bundle())))
    }

    async fn leaf(&self, leaf: Leaf, authority: &Authority, now: i64) -> Result<Written, CertsError> {
        let found = secret::read(&self.secrets, leaf.secret).await?;
        let names = leaf.names(&self.namespace);
        let [chain, key, roots] = TLS;
        let entry = |name: &str| found.as_ref().and_then(|found| found.entries.get(name).cloned());
        let bundle = authority.bundle();
        let served = entry(chain).filter(|chain| !authority.due(chain, &names, now)).zip(entry(key));
        if served.is_some() && entry(roots).as_ref() == Some(&bundle) {
            return Ok(Written::Stored);
        }
        let (cert, private) = match served {
            Some(served) => served,
            None => authority.issue(&names, now).map(|keyed| (keyed.cert, keyed.key))?,
        };
        let entries: Entries = [(chain, cert), (key, private), (roots, bundle)]
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text))
            .collect();
        let written =
            secret::write(&self.secrets, leaf.secret, "kubernetes.io/tls", entries, found.as_ref()).await?;
        tracing::info!(secret = leaf.secret, ?written, "renewed a server certificate");
        Ok(written)
    }
}

#[cfg(test)]
mod tests;
