//! What a program serves: the certificate of its own Secret, swapped under live connections, and the roots that go
//! with it.

use std::sync::{Arc, atomic::AtomicI64};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use podwitness_runtime::{
    metrics::SharedRegistry,
    readiness::BlockReady,
    tls::resolver::{HotCert, certified_key},
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use super::{CertsError, Leaf, mint, secret};
use crate::failures::Failures;

/// The certificate that is served, and the roots to tell others.
#[derive(Debug)]
pub struct Served {
    /// For the TLS listener.
    pub cert: Arc<HotCert>,
    roots: watch::Sender<Option<Arc<str>>>,
    expiry: Gauge<i64, AtomicI64>,
    leaf: Leaf,
}

impl Served {
    /// Nothing to serve yet.
    #[must_use]
    pub fn new(leaf: Leaf, registry: &SharedRegistry) -> Self {
        let expiry = Gauge::default();
        registry.with(|registry| {
            let help = "When the certificate that is served expires, in Unix seconds";
            registry.register("podwitness_certificate_expiry_timestamp_seconds", help, expiry.clone());
        });
        Self { cert: Arc::new(HotCert::empty()), roots: watch::Sender::new(None), expiry, leaf }
    }

    /// The roots under which the certificate stands, as PEM; `None` until there is one.
    #[must_use]
    pub fn roots(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.roots.subscribe()
    }

    /// Follows the Secret, for ever; `first` is held until there is a certificate to serve. A Secret that vanishes or
    /// cannot be served changes nothing.
    pub async fn follow(&self, client: &Client, namespace: &str, first: BlockReady) {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let mut first = Some(first);
        let mut failures = Failures::of("serve our certificate");
        let mut changes = watch_object(secrets, self.leaf.secret).default_backoff().boxed();
        while let Some(change) = changes.next().await {
            let taken = match change {
                Ok(Some(secret)) => self.take(&secret::entries(&secret)),
                Ok(None) => {
                    tracing::info!(secret = self.leaf.secret, "waiting for the certificate");
                    continue;
                }
                Err(error) => {
                    failures.note(&error);
                    continue;
                }
            };
            match taken {
                Ok(()) => {
                    drop(first.take());
                    failures.clear();
                }
                Err(error) => failures.note(&error),
            }
        }
    }

    fn take(&self, entries: &secret::Entries) -> Result<(), CertsError> {
        let name = self.leaf.secret;
        let entry = |entry: &'static str| {
            entries.get(entry).ok_or_else(|| CertsError::Entry { secret: name.to_owned(), entry })
        };
        let (chain, key, roots) = (entry("tls.crt")?, entry("tls.key")?, entry("ca.crt")?);
        let served = certified_key(chain.as_bytes(), key.as_bytes())
            .map_err(|source| CertsError::Serve { secret: name.to_owned(), source })?;
        let until = mint::validity(chain, "served")?.until;
        self.cert.swap(served);
        self.expiry.set(until);
        self.roots.send_if_modified(|current| {
            let changed = current.as_deref() != Some(roots.as_str());
            if changed {
                *current = Some(Arc::from(roots.as_str()));
            }
            changed
        });
        tracing::info!(secret = name, until, "serving the certificate");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
