//! Certificates that Podwitness makes for itself.
//!
//! A root (10 years) signs an intermediate (30 days), which signs the leaf of each Service (7 days). `control` keeps
//! them: the authority in the Secret [`AUTHORITY_SECRET`], each leaf with its chain and the trusted roots in a Secret
//! of its own. Both programs serve what their Secret holds and swap it under live connections; admission publishes the
//! roots in its webhook configuration.
//!
//! Invariants: replicas agree through the Secrets (created if absent, replaced only in the version that was read);
//! everything is renewed after two thirds of its life by the wall clock; a new root is trusted everywhere before
//! anything is served under it, and the old one is trusted until it expires.

mod authority;
mod bundle;
mod error;
mod keeper;
mod mint;
mod secret;
mod served;
#[cfg(test)]
mod testing;

pub use authority::{Authority, Keyed};
pub use bundle::Publisher;
pub use error::CertsError;
pub use keeper::Keeper;
pub use served::Served;

/// Secret of the authority.
pub const AUTHORITY_SECRET: &str = "podwitness-ca";
/// Name of the MutatingWebhookConfiguration.
pub const WEBHOOK_CONFIGURATION: &str = "podwitness";

/// A Service that serves under a certificate of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Leaf {
    /// Name of the Service.
    pub service: &'static str,
    /// Name of the Secret that holds its certificate (`kubernetes.io/tls`, with the roots as `ca.crt`).
    pub secret: &'static str,
}

/// Admission.
pub const ADMIT: Leaf = Leaf { service: "podwitness-admit", secret: "podwitness-admit-tls" };
/// The control API.
pub const CONTROL: Leaf = Leaf { service: "podwitness-control", secret: "podwitness-control-tls" };

impl Leaf {
    /// The name by which in-cluster clients verify the Service, without the cluster's domain.
    #[must_use]
    pub fn host(self, namespace: &str) -> String {
        format!("{}.{namespace}.svc", self.service)
    }

    fn names(self, namespace: &str) -> Vec<String> {
        vec![self.host(namespace), format!("{}.{namespace}", self.service), self.service.to_owned()]
    }
}
