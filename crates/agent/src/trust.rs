//! Roots under which the control API's certificate may stand: those we were given, and those that a netmap names,
//! so that a root can be replaced while pods run.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::AgentError;

/// Cap on roots taken from one netmap; more are left out.
const MAX_ROOTS: usize = 16;

/// A client configuration that trusts `given` and as much of `learned` as can be read.
pub(crate) fn config(given: &str, learned: &[String]) -> Result<Arc<ClientConfig>, AgentError> {
    let mut roots = RootCertStore::empty();
    add(&mut roots, given);
    if roots.is_empty() {
        return Err(AgentError::Roots);
    }
    for pem in learned.iter().take(MAX_ROOTS) {
        add(&mut roots, pem);
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(AgentError::Config)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn add(roots: &mut RootCertStore, pem: &str) {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
    roots.add_parsable_certificates(certificates.take(MAX_ROOTS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_a_certificate_is_no_root() {
        assert!(matches!(config("nothing", &[]), Err(AgentError::Roots)));
    }
}
