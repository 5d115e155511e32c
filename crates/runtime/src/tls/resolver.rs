//! A server certificate that can be replaced while connections live: new handshakes see the new one, established
//! connections are not touched.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error;

/// The current certificate. Handshakes fail while there is none.
#[derive(Default)]
pub struct HotCert(ArcSwapOption<CertifiedKey>);

/// Why a certificate cannot be served. No variant holds the key.
#[derive(Debug, Error)]
pub enum CertError {
    /// The chain is not PEM.
    #[error("the certificate chain is not PEM")]
    Chain(#[source] pem::Error),
    /// The chain has no certificate.
    #[error("the certificate chain is empty")]
    Empty,
    /// The key is not PEM.
    #[error("the private key is not PEM")]
    Key(#[source] pem::Error),
    /// Key and certificate do not belong together, or the key's kind is unknown.
    #[error("the private key cannot be used with the certificate")]
    Unusable(#[source] rustls::Error),
}

impl HotCert {
    /// No certificate yet.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Begins with this certificate.
    #[must_use]
    pub fn new(key: CertifiedKey) -> Self {
        Self(ArcSwapOption::from_pointee(key))
    }

    /// Serves `key` from the next handshake on.
    pub fn swap(&self, key: CertifiedKey) {
        self.0.store(Some(Arc::new(key)));
    }

    /// What is served now.
    #[must_use]
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl fmt::Debug for HotCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotCert").field("present", &self.0.load().is_some()).finish()
    }
}

impl ResolvesServerCert for HotCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

/// Reads a chain (leaf first) and its key from PEM, and checks that they belong together.
///
/// # Errors
/// Where one of them cannot be read, or they do not match.
pub fn certified_key(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, CertError> {
    let chain =
        CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().map_err(CertError::Chain)?;
    if chain.is_empty() {
        return Err(CertError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(CertError::Key)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(CertError::Unusable)
}
