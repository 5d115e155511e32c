//! Publishing the roots: `caBundle` of every entry of the webhook configuration.
//!
//! Manifests leave `caBundle` out. Until it is written the API server cannot verify admission, so that pods of
//! `required` namespaces are refused and those of `optional` ones pass; admission is not ready before it has seen its
//! roots there.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use podwitness_runtime::readiness::BlockReady;
use serde_json::json;
use tokio::sync::watch;

use super::{CertsError, WEBHOOK_CONFIGURATION};
use crate::failures::Failures;

/// Pause between looks, so that a configuration which was replaced is filled again.
const PERIOD: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(2);

/// Writes the roots into the webhook configuration and keeps them there.
#[derive(Clone, Debug)]
pub struct Publisher {
    webhooks: Api<MutatingWebhookConfiguration>,
}

impl Publisher {
    /// Publishes through `client`.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self { webhooks: Api::all(client.clone()) }
    }

    /// Publishes whatever `roots` holds, for ever; `first` is held until it was there once.
    pub async fn run(self, mut roots: watch::Receiver<Option<Arc<str>>>, first: BlockReady) {
        let mut first = Some(first);
        let mut failures = Failures::of("tell the API server our roots");
        loop {
            let current = roots.borrow_and_update().clone();
            let pause = match current {
                None => PERIOD,
                Some(bundle) => match self.publish(&bundle).await {
                    Ok(()) => {
                        drop(first.take());
                        failures.clear();
                        PERIOD
                    }
                    Err(error) => {
                        failures.note(&error);
                        RETRY
                    }
                },
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = roots.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn publish(&self, bundle: &str) -> Result<(), CertsError> {
        let name = WEBHOOK_CONFIGURATION;
        let found = self
            .webhooks
            .get(name)
            .await
            .map_err(CertsError::api("read MutatingWebhookConfiguration", name))?;
        if is_published(&found, bundle) {
            return Ok(());
        }
        let patch = Patch::Strategic(patch(&found, bundle));
        self.webhooks
            .patch(name, &PatchParams::default(), &patch)
            .await
            .map_err(CertsError::api("patch MutatingWebhookConfiguration", name))?;
        tracing::info!(configuration = name, "published the roots to the API server");
        Ok(())
    }
}

/// Whether every entry has exactly these roots.
pub(super) fn is_published(configuration: &MutatingWebhookConfiguration, bundle: &str) -> bool {
    let entries = configuration.webhooks.iter().flatten();
    let holds = |has: Option<&[u8]>| has == Some(bundle.as_bytes());
    configuration.webhooks.iter().flatten().next().is_some()
        && entries
            .into_iter()
            .all(|entry| holds(entry.client_config.ca_bundle.as_ref().map(|bytes| bytes.0.as_slice())))
}

/// Entries are merged by name, so that nothing else of them changes.
fn patch(configuration: &MutatingWebhookConfiguration, bundle: &str) -> serde_json::Value {
    let bundle = k8s_openapi::ByteString(bundle.as_bytes().to_vec());
    let entry = |name: &String| json!({"name": name, "clientConfig": {"caBundle": bundle}});
    let names = configuration.webhooks.iter().flatten().map(|entry| &entry.name);
    json!({"webhooks": names.map(entry).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests;
