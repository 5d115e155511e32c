//! What can go wrong with certificates. No variant holds a key.

use podwitness_runtime::tls::resolver::CertError;
use thiserror::Error;

/// Why certificates cannot be made, kept or served.
#[derive(Debug, Error)]
pub enum CertsError {
    /// Making a certificate failed.
    #[error("cannot make the {what} certificate")]
    Mint {
        /// Which certificate.
        what: &'static str,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A stored certificate is not one.
    #[error("the stored {what} certificate cannot be read")]
    Read {
        /// Which certificate.
        what: &'static str,
    },
    /// A Secret lacks an entry.
    #[error("Secret {secret} has no text under {entry:?}; if nothing of it is worth keeping, delete it")]
    Entry {
        /// Name of the Secret.
        secret: String,
        /// Name of the entry.
        entry: &'static str,
    },
    /// The API server refused or could not be reached.
    #[error("cannot {verb} {object}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On which object.
        object: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// A certificate cannot be served.
    #[error("Secret {secret} cannot be served")]
    Serve {
        /// Name of the Secret.
        secret: String,
        /// Why.
        #[source]
        source: CertError,
    },
}

impl CertsError {
    /// Maps an error of the API client.
    pub(super) fn api(verb: &'static str, object: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Api { verb, object, source: Box::new(source) }
    }
}
