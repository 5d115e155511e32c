//! TLS for our servers: rustls over aws-lc-rs, one provider for the process, certificates that change under live
//! connections, and directories watched as the kubelet writes them.

pub mod listener;
pub mod resolver;
pub mod watch;

use std::sync::Arc;

use rustls::{ServerConfig, server::ResolvesServerCert, version::TLS13};

/// Installs the one crypto provider of the process. Call it first in `main`; a second call does nothing.
pub fn install_provider() {
    // An error says that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A server's TLS configuration: TLS 1.3, no client certificates, HTTP/2 and HTTP/1.1 by ALPN.
///
/// # Errors
/// Where the provider lacks TLS 1.3, which aws-lc-rs does not.
pub fn server_config(resolver: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
