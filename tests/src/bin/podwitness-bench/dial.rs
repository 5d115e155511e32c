//! The way to a server: TLS as the pod's clients speak it.

use std::{env, fs, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use podwitness_core::inject::SERVICE_ACCOUNT_DIR;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longest head of an answer.
const MAX_HEAD: usize = 16 << 10;

/// A server and what it takes to talk to it.
#[derive(Clone)]
pub struct Server {
    address: String,
    pub name: String,
    pub token: Option<String>,
    roots: Arc<RootCertStore>,
}

impl Server {
    pub fn new(address: String, name: String) -> Result<Self> {
        let ca = env::var("CA_FILE").unwrap_or_else(|_| format!("{SERVICE_ACCOUNT_DIR}/ca.crt"));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&ca)? {
            roots.add(certificate?)?;
        }
        let token = fs::read_to_string(format!("{SERVICE_ACCOUNT_DIR}/token")).ok();
        let token = token.filter(|_| env::var_os("CA_FILE").is_none());
        Ok(Self { address, name, token, roots: Arc::new(roots) })
    }

    pub async fn connect(&self, alpn: &[u8]) -> Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.name.clone())?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    /// A session over WebSocket, behind its handshake.
    pub async fn session(&self, path: &str) -> Result<TlsStream<TcpStream>> {
        let mut stream = self.connect(b"http/1.1").await?;
        let token = self.token.as_deref().context("a session needs the token of a service account")?;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
            self.name
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        // Byte by byte, so that nothing of the session is read.
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < MAX_HEAD {
            answer.push(stream.read_u8().await?);
        }
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 101 "), "no session: {answer}");
        Ok(stream)
    }
}
