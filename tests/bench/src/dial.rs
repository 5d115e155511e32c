//! The way to a server: TLS as the pod's clients speak it.

use std::{env, fs, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use hyper::{Request, client::conn::http2::SendRequest, header::AUTHORIZATION};
use hyper_util::rt::{TokioExecutor, TokioIo};
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

use crate::spdy;

/// Longest head of an answer.
const MAX_HEAD: usize = 16 << 10;

/// A server and what it takes to talk to it.
#[derive(Clone)]
pub struct Server {
    address: String,
    name: String,
    token: Option<String>,
    tls: Arc<ClientConfig>,
}

/// What a session is spoken in.
#[derive(Clone, Copy)]
pub enum Transport {
    WebSocket,
    Spdy,
}

impl Server {
    pub fn new(address: String, name: String) -> Result<Self> {
        let ca = env::var("CA_FILE").unwrap_or_else(|_| format!("{SERVICE_ACCOUNT_DIR}/ca.crt"));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&ca)? {
            roots.add(certificate?)?;
        }
        let own = || fs::read_to_string(format!("{SERVICE_ACCOUNT_DIR}/token")).ok();
        let token = env::var("TOKEN").ok().or_else(|| own().filter(|_| env::var_os("CA_FILE").is_none()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { address, name, token, tls: Arc::new(tls) })
    }

    /// The same with another credential of its kind.
    pub fn with_credential(&self, number: u32) -> Self {
        let token = self.token.as_ref().map(|token| format!("{token}-{number}"));
        Self { token, ..self.clone() }
    }

    async fn connect(&self, alpn: &[u8]) -> Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::clone(&self.tls);
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.name.clone())?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    /// A connection of HTTP/2.
    pub async fn http2<B>(&self) -> Result<SendRequest<B>>
    where
        B: hyper::body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + Unpin
            + 'static,
    {
        let stream = TokioIo::new(self.connect(b"h2").await?);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// The head of a request.
    pub fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("https://{}{path}", self.name));
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    /// A session, behind its handshake.
    pub async fn session(&self, path: &str, transport: Transport) -> Result<TlsStream<TcpStream>> {
        let mut stream = self.connect(b"http/1.1").await?;
        let token = self.token.as_deref().context("a session needs the token of a service account")?;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n{}\r\n",
            self.name,
            transport.headers()
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        // Byte by byte, so that nothing of the session is read.
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < MAX_HEAD {
            answer.push(stream.read_u8().await?);
        }
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 101 "), "no session: {answer}");
        if let Transport::Spdy = transport {
            let asked = |kind: &&str| *kind == "error" || path.contains(&format!("{kind}=1"));
            let kinds = ["error", "stdin", "stdout", "stderr"].into_iter().filter(asked);
            stream.write_all(&spdy::streams(kinds)?).await?;
        }
        Ok(stream)
    }
}

impl Transport {
    /// WebSocket where nothing is said.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        match text {
            None | Some("websocket") => Ok(Self::WebSocket),
            Some("spdy") => Ok(Self::Spdy),
            Some(other) => bail!("{other:?} is neither websocket nor spdy"),
        }
    }

    fn headers(self) -> &'static str {
        match self {
            Self::WebSocket => {
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
            }
            Self::Spdy => "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n",
        }
    }
}
